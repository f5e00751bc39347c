"""Whether the scheduler gets anywhere: who could be served, and is not, for a time that no rule explains."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .lane import Lane

STALL_S = 10.0


class Vitals:
    """By every rule a model that is loaded and runs nothing takes a request that may start at once."""

    def __init__(self) -> None:
        self._since_s: dict[str, float] = {}

    def look(self, lanes: Iterable[Lane], now_s: float) -> list[str]:
        """Once a second: the models before which requests have stood still for STALL_S."""
        idle = [lane.name for lane in lanes if _idle(lane)]
        self._since_s = {name: self._since_s.get(name, now_s) for name in idle}
        return [name for name, since_s in self._since_s.items() if now_s - since_s >= STALL_S]


def _idle(lane: Lane) -> bool:
    return lane.line.n_pickable > 0 and any(place.slots_free and not place.running for place in lane.places)
