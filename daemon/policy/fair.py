"""Fairness between the tenants of one class: virtual token counters (VTC; Sheng et al., OSDI'24, algorithm 2).

Each tenant's counter grows with the service it gets, and the one that waits with the lowest is served next. A tenant
that comes back is lifted to the lowest of those who wait, so that time away earns no credit.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush, heapreplace

PROMPT_WEIGHT, OUTPUT_WEIGHT = 1.0, 2.0  # the paper's w_p and w_q: an output token takes about twice the work
MAX_TENANTS = 4096  # whose counters are kept while they do not wait


def service(prompt_tokens: int, output_tokens: int) -> float:
    """Weighted tokens: what one request is charged for."""
    return PROMPT_WEIGHT * prompt_tokens + OUTPUT_WEIGHT * output_tokens


class Counters:
    """Weighted tokens served, by tenant."""

    def __init__(self) -> None:
        self._served: dict[str, float] = {}
        self._credit: dict[str, float] = {}  # charged and not taken up
        self.waiting: dict[str, int] = {}  # requests, by tenant
        self._left = 0.0  # the counter of the tenant that stopped waiting last
        self._lowest: list[tuple[float, str]] = []  # of those who wait, at least; counters only grow

    def served(self, tenant: str) -> float:
        return self._served.get(tenant, 0.0)

    def join(self, tenant: str) -> None:
        """One more request of the tenant waits."""
        if tenant not in self.waiting:
            lowest = self._lowest_waiting()
            self._forget(lowest)
            if self.served(tenant) < lowest:
                self._credit.pop(tenant, None)  # time away earns none
                self._served[tenant] = lowest
            self._served.setdefault(tenant, 0.0)
            heappush(self._lowest, (self._served[tenant], tenant))
            if len(self._lowest) > 2 * len(self.waiting) + 64:  # the lowest one hides those that left above it
                self._lowest = [(self._served[name], name) for name in (*self.waiting, tenant)]
                heapify(self._lowest)
        self.waiting[tenant] = self.waiting.get(tenant, 0) + 1

    def leave(self, tenant: str) -> None:
        """One less, for whatever reason."""
        n = self.waiting[tenant] - 1
        if n:
            self.waiting[tenant] = n
        else:
            del self.waiting[tenant]
            self._left = self.served(tenant)

    def charge(self, tenant: str, weighted_tokens: float) -> float:
        """Returns what is left to pay beyond the tenant's credit."""
        if credit := self._credit.pop(tenant, 0.0):
            if credit > weighted_tokens:
                self._credit[tenant] = credit - weighted_tokens
            weighted_tokens = max(0.0, weighted_tokens - credit)
        self._served[tenant] = self.served(tenant) + weighted_tokens
        return weighted_tokens

    def credit(self, tenant: str, weighted_tokens: float) -> None:
        """It was charged for more than it took: later charges are less by that, as counters never go back."""
        self._credit[tenant] = self._credit.get(tenant, 0.0) + weighted_tokens

    def _lowest_waiting(self) -> float:
        """What a tenant that comes back is lifted to."""
        heap = self._lowest
        while heap:
            served, tenant = heap[0]
            if tenant not in self.waiting:
                heappop(heap)
            elif served < self._served[tenant]:
                heapreplace(heap, (self._served[tenant], tenant))
            else:
                return served
        return self._left

    def _forget(self, lowest: float) -> None:
        """Counters at or below `lowest` mean nothing any more; of the others the oldest go when there are too many."""
        if len(self._served) <= MAX_TENANTS + len(self.waiting):
            return
        kept = {t: s for t, s in self._served.items() if s > lowest or t in self.waiting}
        for tenant in [t for t in kept if t not in self.waiting][: max(0, len(kept) - MAX_TENANTS)]:
            del kept[tenant]
        self._served = kept
        self._credit = {t: c for t, c in self._credit.items() if t in kept}
