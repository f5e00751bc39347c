"""What each tenant was served, and how far that is from fair.

Service is counted in weighted tokens, as the scheduler's counters do: a prompt when it gets its slot, an output token
when it comes. Two measures are made of it:

- the *service gap*: the largest difference between the service of two tenants of one class over any time in which both
  were backlogged, that is, had a request waiting. Theorem 4.4 of Sheng et al. (OSDI'24) bounds it under VTC by
  2 x max(w_p x L_input, w_q x M): the longest prompt, and the most tokens that run at a time;
- *Jain's index* (Jain, Chiu, Hawe 1984) of the tenants' shares: (sum x)^2 / (n x sum x^2), where x is what a tenant was
  served over its max-min fair part of what its class was served. 1 is fair, 1/n is all for one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..policy.fair import OUTPUT_WEIGHT, PROMPT_WEIGHT, service

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..domain.request import Request

    Who = tuple[str, str]  # class and tenant: tenants are compared inside a class


@dataclass(frozen=True, slots=True)
class Gap:
    """In weighted tokens: how much more `ahead` was served than `behind`, until `at_s`."""

    weighted_tokens: float
    at_s: float
    ahead: str
    behind: str


@dataclass(slots=True)
class _Pair:
    """Two that are backlogged together since some time: the range of the difference of their service."""

    lowest: float
    highest: float


class Book:
    """Told of everything that happens to requests; `look` after each moment in which something did."""

    def __init__(self) -> None:
        self.served: dict[Who, float] = {}
        self.demand: dict[Who, float] = {}
        self.served_in_time: dict[Who, float] = {}  # until arrivals ended
        self.gap: Gap | None = None
        self.longest_prompt = 0
        self.most_running = 0  # tokens at a time
        self._running = 0
        self._waiting: dict[Who, int] = {}
        self._pairs: dict[tuple[Who, Who], _Pair] = {}
        self._changed: set[Who] = set()

    def arrive(self, who: Who, prompt_tokens: int, output_tokens: int) -> None:
        """A request waits."""
        self.demand[who] = self.demand.get(who, 0.0) + service(prompt_tokens, output_tokens)
        self.served.setdefault(who, 0.0)
        self.longest_prompt = max(self.longest_prompt, prompt_tokens)
        self._wait(who)

    def leave(self, who: Who) -> None:
        """One that waited is over."""
        self._waiting[who] -= 1
        if not self._waiting[who]:
            del self._waiting[who]
            for pair in [pair for pair in self._pairs if who in pair]:
                del self._pairs[pair]

    def start(self, who: Who, prompt_tokens: int, generated_tokens: int = 0, *, again: bool = False) -> None:
        """One that waited has a slot; a prompt that is computed `again` is not its tenant's doing."""
        self.leave(who)
        self._run(prompt_tokens + generated_tokens)
        if not again:
            self._serve(who, service(prompt_tokens, 0))

    def grow(self, who: Who, n_tokens: int) -> None:
        self._run(n_tokens)
        self._serve(who, service(0, n_tokens))

    def stop(self, who: Who, n_tokens: int, *, waits: bool = False) -> None:
        """It has no slot any more; all its tokens are given."""
        self._run(-n_tokens)
        if waits:
            self._wait(who)

    def look(self, now_s: float) -> None:
        """Compare those who are backlogged; what was told since the last look happened at once."""
        for mine in [who for who in self._waiting if who in self._changed]:
            for theirs in self._waiting:
                if theirs[0] == mine[0] and theirs != mine:
                    self._compare(_pair(mine, theirs), now_s)
        self._changed.clear()

    def end_of_arrivals(self) -> None:
        self.served_in_time = dict(self.served)

    def bound(self) -> float:
        """The theorem's, in weighted tokens."""
        return 2 * max(PROMPT_WEIGHT * self.longest_prompt, OUTPUT_WEIGHT * self.most_running)

    def jain(self, name: str | None = None) -> float:
        """The index over the tenants of a class, or of all classes, at the end of arrivals."""
        shares: list[float] = []
        for one in dict.fromkeys(who[0] for who in self.demand) if name is None else (name,):
            demand = {who: n for who, n in self.demand.items() if who[0] == one}
            served = {who: self.served_in_time.get(who, 0.0) for who in demand}
            fair = max_min(demand, sum(served.values()))
            shares += [served[who] / fair[who] for who in demand if fair[who]]
        return jain(shares)

    def _wait(self, who: Who) -> None:
        n = self._waiting.get(who, 0)
        self._waiting[who] = n + 1
        if not n:  # from now on it is compared
            for other in self._waiting:
                if other[0] == who[0] and other != who:
                    first, second = both = _pair(who, other)
                    difference = self.served[first] - self.served[second]
                    self._pairs[both] = _Pair(difference, difference)

    def _run(self, n_tokens: int) -> None:
        self._running += n_tokens
        self.most_running = max(self.most_running, self._running)

    def _serve(self, who: Who, weighted_tokens: float) -> None:
        self.served[who] = self.served.get(who, 0.0) + weighted_tokens
        self._changed.add(who)

    def _compare(self, both: tuple[Who, Who], now_s: float) -> None:
        (first, second), pair = both, self._pairs[both]
        difference = self.served[first] - self.served[second]
        for gap, ahead, behind in (
            (difference - pair.lowest, first, second),
            (pair.highest - difference, second, first),
        ):
            if gap > 0 and (self.gap is None or gap > self.gap.weighted_tokens):
                self.gap = Gap(gap, now_s, ahead[1], behind[1])
        pair.lowest = min(pair.lowest, difference)
        pair.highest = max(pair.highest, difference)


def jain(values: Sequence[float]) -> float:
    """Jain's fairness index; 1 for nobody."""
    squares = sum(value * value for value in values)
    return sum(values) ** 2 / (len(values) * squares) if squares else 1.0


def max_min(demand: Mapping[Who, float], total: float) -> dict[Who, float]:
    """The max-min fair parts of a total: nobody gets more than its demand, and what is left is shared equally."""
    fair: dict[Who, float] = {}
    for n_left, who in zip(range(len(demand), 0, -1), sorted(demand, key=lambda who: demand[who]), strict=True):
        fair[who] = min(demand[who], total / n_left)
        total -= fair[who]
    return fair


def who(request: Request) -> Who:
    """Whose service it is."""
    return request.priority.value, request.tenant


def _pair(one: Who, other: Who) -> tuple[Who, Who]:
    """Two tenants of a class, in one order."""
    return (one, other) if one[1] < other[1] else (other, one)
