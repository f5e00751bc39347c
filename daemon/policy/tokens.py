"""Which tokens hold. The time of day may jump, so a token must be within its time by two clocks."""

from __future__ import annotations

import hmac
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..domain.access import Token

SKEW_S = 300.0  # that the time of day may be set back without ending tokens that end anyway


class Now(NamedTuple):
    """One moment on two clocks."""

    unix_s: float
    steady_s: float  # never set


@dataclass(slots=True)
class Held:
    """One token, and what is remembered of it while the daemon runs."""

    token: Token
    until_s: float  # on the steady clock
    last_used_unix_s: float | None = None

    def left_s(self, now: Now) -> float:
        """How long it still holds; 0 or less: no more."""
        token = self.token
        if token.expires_unix_s is None:
            return math.inf
        if now.unix_s < token.created_unix_s - SKEW_S:
            return 0.0  # the clock is wrong by more than is usual, and so nobody knows
        return min(token.expires_unix_s - now.unix_s, self.until_s - now.steady_s)


class Tokens:
    """All that were made and not revoked."""

    def __init__(self) -> None:
        self._by_digest: dict[str, Held] = {}

    def __len__(self) -> int:
        return len(self._by_digest)

    def __iter__(self) -> Iterator[Held]:
        return iter(list(self._by_digest.values()))

    def add(self, token: Token, now: Now) -> None:
        """It holds from now on."""
        left_s = math.inf if token.expires_unix_s is None else token.expires_unix_s - now.unix_s
        self._by_digest[token.sha256] = Held(token, now.steady_s + left_s)

    def find(self, digest: str) -> Held | None:
        """By the SHA-256 of what somebody brought."""
        # What a look-up's time tells is of the hash of a guess, which leads to no token.
        held = self._by_digest.get(digest)
        return held if held is not None and hmac.compare_digest(held.token.sha256, digest) else None

    def named(self, name: str) -> Token | None:
        """By its id, or by its name where that is the only one so called."""
        found = [held.token for held in self if held.token.id == name]
        found = found or [held.token for held in self if held.token.name == name]
        return found[0] if len(found) == 1 else None

    def remove(self, token: Token) -> None:
        del self._by_digest[token.sha256]

    def drop_expired(self, now: Now) -> None:
        """Those whose time is over for good."""
        for held in self:
            if (expires_unix_s := held.token.expires_unix_s) is not None and expires_unix_s <= now.unix_s:
                self.remove(held.token)
