"""The tokens of this daemon: who holds one, how they are made and kept, and what ends when one is revoked."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from ..domain.access import check_name
from ..domain.errors import Code, InferdError
from ..policy.tokens import Now, Tokens
from ..system import tokens as files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from ..domain.access import Role, Token
    from ..policy.tokens import Held

log = logging.getLogger(__name__)

MAX_TOKENS = 1024
TTL_S = (1.0, 10 * 365 * 86_400.0)
USED_S = 60.0  # how exactly it is told when a token was used last


class Keyring:
    """On the event loop. In doubt nobody gets in: while the file cannot be read no token holds, and none is made."""

    def __init__(self) -> None:
        self.on_revoked: Callable[[str], None] = lambda token_id: None
        self._folder: Path | None = None
        self._tokens = Tokens()
        self._bootstrapped: set[str] = set()  # hashes in the service's file
        self._revoked: set[str] = set()  # of these and of those that stood there before, what holds no more
        self._behind = False  # the file of tokens does not say yet what holds
        self.unreadable = False  # the file is there, and nobody knows what it says
        self._writing = asyncio.Lock()

    def open(self, folder: Path) -> None:
        """What is in the files, as the daemon starts."""
        self._folder = folder
        try:
            kept = files.load(folder)
        except files.Unreadable as error:
            self.unreadable = True
            log.error("%s; no token holds until the file is mended or taken away and the daemon started again", error)
            return
        now = _now()
        bootstrapped = files.from_credentials(now.unix_s)
        self._bootstrapped = {token.sha256 for token in bootstrapped}
        self._revoked = set(kept.revoked)
        for token in (*bootstrapped, *kept.tokens):
            if token.sha256 not in self._revoked:
                self._tokens.add(token, now)

    def __iter__(self) -> Iterator[Held]:
        return iter(self._tokens)

    def holder(self, text: str) -> tuple[Token, float]:
        """(the token that somebody brought, how many s it still holds). Raises UNAUTHENTICATED."""
        now = _now()
        held = self._tokens.find(files.digest_of(text))
        if held is None:
            raise InferdError(Code.UNAUTHENTICATED, "this token is not valid")
        if (left_s := held.left_s(now)) <= 0:
            raise InferdError(Code.UNAUTHENTICATED, "this token has expired")
        if held.last_used_unix_s is None or abs(now.unix_s - held.last_used_unix_s) >= USED_S:
            held.last_used_unix_s = now.unix_s // USED_S * USED_S
        return held.token, left_s

    async def create(self, name: str, role: Role, tenant: str, ttl_s: float | None) -> tuple[str, Token]:
        """(the token, what is kept of it), once it is on the disk. Raises InferdError."""
        check_name(name, "name")
        check_name(tenant or name, "tenant")
        if ttl_s is not None and not TTL_S[0] <= ttl_s <= TTL_S[1]:  # nor for what is no number
            message = f"ttl_s must be in [{TTL_S[0]:g}, {TTL_S[1]:g}], not {ttl_s:g}"
            raise InferdError(Code.INVALID, message, field="ttl_s", lowest=TTL_S[0], highest=TTL_S[1])
        async with self._writing:
            self._check_readable()
            now = _now()
            self._tokens.drop_expired(now)
            if len(self._tokens) >= MAX_TOKENS:
                message = f"there are {MAX_TOKENS:,} tokens, and no more may be"
                raise InferdError(Code.QUEUE_FULL, message, limit=MAX_TOKENS)
            text, token = files.mint(name, role, tenant or name, now.unix_s, ttl_s)
            if not await self._keep(token):
                raise InferdError(Code.INTERNAL, "the token cannot be kept, so there is none; the log says why")
            self._tokens.add(token, now)
        return text, token

    async def revoke(self, name: str) -> Token | None:
        """It holds no more from now on, nor after a restart; None when there is none. Raises InferdError."""
        self._check_readable()
        if (token := self._tokens.named(name)) is not None:
            self._tokens.remove(token)
            if token.sha256 in self._bootstrapped:
                self._revoked.add(token.sha256)
            self._behind = True
            self.on_revoked(token.id)
        if self._behind:  # also of one before, which could not be kept
            async with self._writing:
                kept = await self._keep()
            if not kept:
                message = f"{name[:64]} is revoked until the daemon ends, and cannot be kept so; the log says why"
                raise InferdError(Code.INTERNAL, message)
        return token

    async def _keep(self, *more: Token) -> bool:
        """Who leaves meanwhile does not take the lock from a file that is being written."""
        writing = asyncio.ensure_future(self._write(*more))
        try:
            return await asyncio.shield(writing)
        except asyncio.CancelledError:
            await asyncio.wait([writing])
            raise

    async def _write(self, *more: Token) -> bool:
        if self._folder is None:
            return True
        self._behind = False
        own = [held.token for held in self._tokens if held.token.sha256 not in self._bootstrapped]
        kept = files.Kept(tokens=(*own, *more), revoked=tuple(sorted(self._revoked)))
        done = await asyncio.to_thread(files.save, kept, self._folder)
        self._behind = self._behind or not done
        return done

    def _check_readable(self) -> None:
        if self.unreadable:
            raise InferdError(Code.INTERNAL, "the file of tokens cannot be read; the daemon's log says more")


def _now() -> Now:
    return Now(time.time(), time.monotonic())
