"""What happens when, in virtual time."""

from __future__ import annotations

import math
from heapq import heappop, heappush
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Agenda:
    """Of equal times the one that was put down first is first. `now_s` is moved by its owner."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._entries: list[tuple[float, int, Callable[[], None]]] = []
        self._n = 0

    def at(self, time_s: float, what: Callable[[], None]) -> None:
        self._n += 1
        heappush(self._entries, (time_s, self._n, what))

    def after(self, span_s: float, what: Callable[[], None]) -> None:
        self.at(self.now_s + span_s, what)

    def next_s(self) -> float:
        """Infinite when nothing is to come."""
        return self._entries[0][0] if self._entries else math.inf

    def pop(self) -> Callable[[], None]:
        """The next thing, which is taken out."""
        return heappop(self._entries)[2]
