"""What a probe hands back: figures with their bars, and what else is worth printing."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Figure:
    """One row of the table."""

    name: str
    value: float
    lowest: float  # over the runs
    highest: float
    n_runs: int
    unit: str
    bar: float
    at_least: bool  # else at most

    @property
    def met(self) -> bool:
        return self.value >= self.bar if self.at_least else self.value <= self.bar


@dataclass(slots=True)
class Outcome:
    """Everything one probe found."""

    figures: list[Figure]
    lines: list[str] = field(default_factory=list)  # Markdown, printed below the table


def of_runs(
    name: str, runs: Sequence[float], unit: str, *, at_least: float | None = None, at_most: float = 0
) -> Figure:
    """The median of several runs against one bar."""
    bar = at_most if at_least is None else at_least
    return Figure(name, median(runs), min(runs), max(runs), len(runs), unit, bar, at_least is not None)


def percentile(values: Sequence[float], q: float) -> float:
    """Nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


def spread(runs: Sequence[float], digits: int = 1) -> str:
    """`median (lowest-highest)`."""
    return f"{median(runs):.{digits}f} ({min(runs):.{digits}f}-{max(runs):.{digits}f})"
