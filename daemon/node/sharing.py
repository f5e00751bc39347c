"""Who computes with how many threads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..policy import cores

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ..policy.place import Place
    from .resident import Resident


class Sharing:
    """Asked before each decision is carried out, and mostly nothing has changed since the last time."""

    def __init__(self) -> None:
        self._busy: list[str] = []  # places that compute

    def share(self, residents: Iterable[Resident], places: Mapping[str, Place], n_threads: int) -> None:
        """Those that compute on the processor divide it; one that is alone has all it wants."""
        running = [name for name, place in places.items() if place.running]
        if running == self._busy:
            return
        self._busy = running
        busy = {r.place: r for r in residents if r.on_cpu and places[r.place].running}
        wanted = {place: r.model.plan.n_threads for place, r in busy.items()}
        n_fixed = sum(wanted.pop(place) for place, r in busy.items() if r.model.plan.numerics == "exact")
        given = cores.share(wanted, n_threads, n_fixed)
        for place, n in given.items():
            busy[place].use_threads(n)
