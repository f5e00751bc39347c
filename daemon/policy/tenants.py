"""What each tenant has asked for and got: totals, and rates over the same window as everybody's.

Names are free text of clients, so only so many are kept. Tokens are counted at ticks and ends, not as they are made.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .meter import WINDOW_S

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MAX_TENANTS = 256  # those with live requests stay in any case; of the others those that came last


@dataclass(slots=True)
class Account:
    """One tenant's totals for as long as it is kept."""

    seen_s: float = 0.0  # when it last asked for something
    live: int = 0  # requests that are not over, or that a worker still holds
    prompt_tokens: int = 0
    generation_tokens: int = 0  # of requests that are not live any more
    finished: int = 0
    failed: int = 0
    cancelled: int = 0
    refused: int = 0
    stalls: int = 0  # streams that were cut, as their client took nothing


class Tenants:
    """`on_tick` takes the time once a second; everything else only counts."""

    def __init__(self) -> None:
        self._live: dict[str, Account] = {}
        self._idle: OrderedDict[str, Account] = OrderedDict()  # who had something last comes last
        self._marks: deque[tuple[float, dict[str, tuple[int, int]]]] = deque()

    def __len__(self) -> int:
        return len(self._live) + len(self._idle)

    def __iter__(self) -> Iterator[tuple[str, Account]]:
        """By name."""
        return iter(sorted([*self._live.items(), *self._idle.items()]))

    def of(self, tenant: str) -> Account:
        """The account of a tenant that has live requests, or had some lately; of others one that nobody keeps."""
        return self._live.get(tenant) or self._idle.get(tenant) or Account()

    def on_request(self, tenant: str, now_s: float) -> None:
        """One more request is live."""
        account = self._live.get(tenant) or self._idle.pop(tenant, None) or Account()
        self._live[tenant] = account
        account.live += 1
        account.seen_s = now_s
        self._trim()

    def on_over(self, tenant: str, generated_tokens: int) -> None:
        """One less; it has got so many tokens."""
        account = self._live[tenant]
        account.generation_tokens += generated_tokens
        account.live -= 1
        if not account.live:
            self._idle[tenant] = self._live.pop(tenant)
            self._trim()

    def on_refused(self, tenant: str, now_s: float) -> None:
        """It was turned away at the door."""
        account = self._live.get(tenant) or self._idle.pop(tenant, None) or Account()
        account.refused += 1
        account.seen_s = now_s
        if not account.live:
            self._idle[tenant] = account
            self._trim()

    def on_tick(self, now_s: float, live_tokens: Mapping[str, int]) -> None:
        """`live_tokens`: what live requests have got so far, by tenant."""
        mark = {
            tenant: (account.prompt_tokens, account.generation_tokens + live_tokens.get(tenant, 0))
            for accounts in (self._live, self._idle)
            for tenant, account in accounts.items()
        }
        self._marks.append((now_s, mark))
        while len(self._marks) > 2 and now_s - self._marks[1][0] >= WINDOW_S:
            self._marks.popleft()

    def rates_per_s(self, tenant: str) -> tuple[float, float]:
        """(prompt tokens, generated tokens) per second over the window."""
        if len(self._marks) < 2:
            return 0.0, 0.0
        (t0, before), (t1, after) = self._marks[0], self._marks[-1]
        (p0, g0), (p1, g1) = before.get(tenant, (0, 0)), after.get(tenant, (0, 0))
        span_s = max(t1 - t0, 1e-9)
        # One that was forgotten in between has begun to count anew.
        return max(0, p1 - p0) / span_s, max(0, g1 - g0) / span_s

    def _trim(self) -> None:
        """Who has had nothing for longest goes when there are too many."""
        while self._idle and len(self) > MAX_TENANTS:
            self._idle.popitem(last=False)
