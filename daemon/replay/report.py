"""What became of the arrivals, and the figures that are made of it: the same for a replay and for a live run.

Terms are those of perf_analyzer and AIPerf: TTFT is from arrival to the first token, E2EL from arrival to the last,
goodput the completed requests per second that met all objectives of their class. Percentiles are of completed requests,
by nearest rank. Rates are per second of the time in which requests came.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from ..domain.errors import Code
from ..domain.request import Priority

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .arrivals import Arrival
    from .fairness import Book

DONE, LOST = "done", "lost"
SHARES = (0.50, 0.95, 0.99)
# Sent away at the door or from the line; any other ending without a slot is a failure.
REFUSALS = {code.value for code in (Code.OVERLOADED, Code.QUEUE_FULL, Code.NO_ROOM, Code.PROMPT_TOO_LONG)}


@dataclass(slots=True)
class Outcome:
    """One arrival's end; times in ms from its arrival, None where it did not come so far."""

    arrival: Arrival
    ended: str = LOST  # done, or the Code's value
    reason: str = ""  # of a refusal by admission: wait, deadline, requests, ...
    retry_after_ms: int | None = None
    eta_ms: tuple[float, float] | None = None  # to the first token in 80 of 100 cases, as told first
    queue_ms: float | None = None
    ttft_ms: float | None = None
    end_ms: float | None = None
    output_tokens: int = 0
    parks: int = 0

    @property
    def refused(self) -> bool:
        """Sent away before it had a slot."""
        return self.queue_ms is None and self.ended in REFUSALS

    def met(self, target_s: float | None) -> bool:
        """Completed, its first token within the target and its end within its deadline."""
        if self.ended != DONE or self.ttft_ms is None or self.end_ms is None:
            return False
        deadline_ms = self.arrival.deadline_ms
        in_time = target_s is None or self.ttft_ms <= target_s * 1e3
        return in_time and (deadline_ms is None or self.end_ms <= deadline_ms)


@dataclass(slots=True)
class Result:
    """A run: outcomes in the order of arrival. `decisions`: (when in s, what, whom), of a replay only."""

    outcomes: list[Outcome]
    book: Book
    preemptions: int = 0
    evictions: int = 0
    decisions: list[tuple[float, str, str]] = field(default_factory=list)

    @property
    def span_s(self) -> float:
        """In which requests came."""
        times_s = [outcome.arrival.at_s for outcome in self.outcomes]
        return max(times_s, default=0.0) - min(times_s, default=0.0)


@dataclass(frozen=True, slots=True)
class Spread:
    """Percentiles in ms; None when nothing was completed."""

    p50: float | None
    p95: float | None
    p99: float | None


@dataclass(frozen=True, slots=True)
class ClassReport:
    """One class, or all."""

    name: str
    requests: int
    done: int
    refused: int  # by admission
    missed: int  # the deadline, after being admitted
    failed: int  # in another way
    lost: int  # neither an answer nor a refusal: there must be none
    ttft_ms: Spread
    e2el_ms: Spread
    goodput_per_s: float
    target_s: float | None  # of TTFT, that goodput counts
    jain: float


@dataclass(frozen=True, slots=True)
class Report:
    """Figures of one run. `refused_by`: by reason; `eta_*`: of the requests that were told one and got a token."""

    span_s: float
    classes: tuple[ClassReport, ...]
    total: ClassReport
    refused_by: Mapping[str, int]
    without_retry: int  # refusals for overload that did not say when to come back
    output_tokens_per_s: float  # until the last request had its end
    preemptions: int
    evictions: int
    eta_told: int
    eta_covered: float | None  # share of them whose first token came in the interval
    gap_tokens: float  # service gap, in weighted tokens
    gap_bound_tokens: float
    gap_at_s: float | None
    gap_between: tuple[str, str] | None

    def twin(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def report(result: Result, targets_s: Mapping[Priority, float] | None = None) -> Report:
    """`targets_s`: the TTFT that a request of the class must meet to count as goodput."""
    targets_s = targets_s or {}
    outcomes, book, gap = result.outcomes, result.book, result.book.gap
    span_s = result.span_s or 1.0
    told = [o for o in outcomes if o.eta_ms is not None and o.ttft_ms is not None]
    refused = [o for o in outcomes if o.refused]
    overload = (Code.OVERLOADED.value, Code.QUEUE_FULL.value)
    by_class = {p: [o for o in outcomes if o.arrival.priority is p] for p in Priority}
    return Report(
        span_s=result.span_s,
        classes=tuple(
            _class_report(p.value, some, span_s, targets_s, book.jain(p.value)) for p, some in by_class.items() if some
        ),
        total=_class_report("all", outcomes, span_s, targets_s, book.jain()),
        refused_by=dict(Counter(o.reason or o.ended for o in refused).most_common()),
        without_retry=sum(o.retry_after_ms is None for o in refused if o.ended in overload),
        output_tokens_per_s=sum(o.output_tokens for o in outcomes) / (_busy_s(outcomes) or 1.0),
        preemptions=result.preemptions,
        evictions=result.evictions,
        eta_told=len(told),
        eta_covered=sum(map(_covered, told)) / len(told) if told else None,
        gap_tokens=0.0 if gap is None else gap.weighted_tokens,
        gap_bound_tokens=book.bound(),
        gap_at_s=None if gap is None else gap.at_s,
        gap_between=None if gap is None else (gap.ahead, gap.behind),
    )


def percentile(values: Sequence[float], share: float) -> float | None:
    """Nearest rank; None of nothing."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)] if values else None


def spread(values: Sequence[float]) -> Spread:
    ordered = sorted(values)
    return Spread(*(percentile(ordered, share) for share in SHARES))


def _class_report(
    name: str, outcomes: Sequence[Outcome], span_s: float, targets_s: Mapping[Priority, float], jain: float
) -> ClassReport:
    done = [o for o in outcomes if o.ended == DONE]
    n_refused = sum(o.refused for o in outcomes)
    n_missed = sum(o.ended == Code.DEADLINE.value for o in outcomes)
    n_lost = sum(o.ended == LOST for o in outcomes)
    priorities = {o.arrival.priority for o in outcomes}
    return ClassReport(
        name=name,
        requests=len(outcomes),
        done=len(done),
        refused=n_refused,
        missed=n_missed,
        failed=len(outcomes) - len(done) - n_refused - n_missed - n_lost,
        lost=n_lost,
        ttft_ms=spread([o.ttft_ms for o in done if o.ttft_ms is not None]),
        e2el_ms=spread([o.end_ms for o in done if o.end_ms is not None]),
        goodput_per_s=sum(o.met(targets_s.get(o.arrival.priority)) for o in outcomes) / span_s,
        target_s=targets_s.get(priorities.pop()) if len(priorities) == 1 and name != "all" else None,
        jain=jain,
    )


def _busy_s(outcomes: Sequence[Outcome]) -> float:
    """From the first arrival to the last end."""
    starts_s = [o.arrival.at_s for o in outcomes]
    ends_s = [o.arrival.at_s + (o.end_ms or 0.0) / 1e3 for o in outcomes]
    return max(ends_s, default=0.0) - min(starts_s, default=0.0)


def _covered(outcome: Outcome) -> bool:
    assert outcome.eta_ms is not None
    assert outcome.ttft_ms is not None
    low_ms, high_ms = outcome.eta_ms
    return low_ms <= outcome.ttft_ms <= high_ms
