"""Rates and percentiles for monitors, from counters on the token path that cost an addition each."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

WINDOW_S = 5.0  # rates are means over this
SAMPLES = 512  # that percentiles are made of: the last ones


@dataclass(slots=True)
class Counters:
    """Totals since the start."""

    prompt_tokens: int = 0
    prompt_tokens_cached: int = 0  # of those: had been computed for an earlier request
    generation_tokens: int = 0
    requests_finished: int = 0
    requests_failed: int = 0
    requests_cancelled: int = 0
    requests_refused: int = 0  # at the door, or sent away later; these have not failed
    preemptions: int = 0
    evictions: int = 0
    computed_tokens: int = 0  # put through a model, in attempts that are over
    delivered_tokens: int = 0  # of those, what answers were made of
    wasted_tokens: dict[str, int] = field(default_factory=dict)  # and the rest, by why


@dataclass(slots=True)
class Meter:
    """`on_tick` takes the time once a second; everything else only counts."""

    total: Counters = field(default_factory=Counters)
    by_place: dict[str, int] = field(default_factory=dict)  # generated tokens
    ttft_ms: deque[float] = field(default_factory=lambda: deque(maxlen=SAMPLES))
    queue_ms: deque[float] = field(default_factory=lambda: deque(maxlen=SAMPLES))  # from arrival to the first slot
    tpot_ms: deque[float] = field(default_factory=lambda: deque(maxlen=SAMPLES))  # of finished ones: a token's mean
    _marks: deque[tuple[float, int, int, dict[str, int]]] = field(default_factory=deque)

    def on_tokens(self, place: str, n: int) -> None:
        self.total.generation_tokens += n
        self.by_place[place] = self.by_place.get(place, 0) + n

    def on_wasted(self, n_tokens: int, why: str) -> None:
        """So many tokens were computed and not delivered, for this reason."""
        self.total.wasted_tokens[why] = self.total.wasted_tokens.get(why, 0) + n_tokens

    def on_tick(self, now_s: float) -> None:
        self._marks.append((now_s, self.total.prompt_tokens, self.total.generation_tokens, dict(self.by_place)))
        while len(self._marks) > 2 and now_s - self._marks[1][0] >= WINDOW_S:
            self._marks.popleft()

    def rates_per_s(self) -> tuple[float, float]:
        """(prompt tokens, generated tokens) per second over the window."""
        if len(self._marks) < 2:
            return 0.0, 0.0
        (t0, p0, g0, _), (t1, p1, g1, _) = self._marks[0], self._marks[-1]
        span_s = max(t1 - t0, 1e-9)
        return (p1 - p0) / span_s, (g1 - g0) / span_s

    def place_rate_per_s(self, place: str) -> float:
        """Generated tokens per second of one worker over the window."""
        if len(self._marks) < 2:
            return 0.0
        (t0, _, _, m0), (t1, _, _, m1) = self._marks[0], self._marks[-1]
        return (m1.get(place, 0) - m0.get(place, 0)) / max(t1 - t0, 1e-9)


def percentiles(samples: Collection[float], *shares: float) -> tuple[float | None, ...]:
    """Nearest-rank percentiles, such as 0.95; each is None before the first sample."""
    ordered = sorted(samples)
    if not ordered:
        return (None,) * len(shares)
    return tuple(ordered[max(0, math.ceil(share * len(ordered)) - 1)] for share in shares)
