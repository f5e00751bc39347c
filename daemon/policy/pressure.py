"""What the daemon still does when the machine runs short of memory: grades, not a cliff."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from ..domain.errors import Code, InferdError

CALM_S = 10.0  # a lower grade is believed after this long


class Grade(IntEnum):
    """Each does what the ones before it do, and more."""

    NORMAL = 0
    NO_PREFETCH = 1  # nothing is loaded that one can do without, such as a second copy
    NO_LOADS = 2  # nothing is loaded
    SHED_BATCH = 3  # batch requests are refused, and those that wait are sent away
    REFUSE = 4  # all requests are


@dataclass(slots=True)
class Pressure:
    """`thresholds`: the PSI `some avg10` of memory, in per cent, at which grades 1 to 4 begin."""

    thresholds: tuple[float, float, float, float]
    grade: Grade = Grade.NORMAL
    _calm_since_s: float | None = None

    def on_reading(self, psi_some_avg10: float | None, now_s: float) -> Grade:
        """Up at once; down a grade after each CALM_S below it. No reading is no pressure."""
        seen = sum((psi_some_avg10 or 0.0) >= threshold for threshold in self.thresholds)
        if seen >= self.grade:
            self.grade, self._calm_since_s = Grade(seen), None
        elif self._calm_since_s is None:
            self._calm_since_s = now_s
        elif now_s - self._calm_since_s >= CALM_S:
            self.grade, self._calm_since_s = Grade(self.grade - 1), now_s
        return self.grade


def shed() -> InferdError:
    """What a batch request that waited is told."""
    message = "the machine is short of memory: batch requests are sent away until it has recovered"
    return InferdError(Code.OVERLOADED, message, retry_after_ms=10_000, reason="shed")
