"""What must hold between any two events, checked by tests and by whoever doubts it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from ..domain.request import Priority
from .line import Load

if TYPE_CHECKING:
    from ..domain.request import Job
    from .lane import Lane
    from .line import Line
    from .scheduler import Scheduler


def check_integrity(scheduler: Scheduler) -> None:
    """No job twice, no place over its slots, the books of desk, classes and lanes agree. Raises AssertionError."""
    seen: set[Job] = set()
    for name, lane in scheduler.lanes.items():
        jobs = [*lane.line, *(job for place in lane.places for job in place.running)]
        assert len(set(jobs)) == len(jobs), f"{name}: a job twice"
        assert not seen & set(jobs), f"{name}: a job in two lanes"
        assert sorted(map(id, lane.waiting)) == sorted(map(id, lane.line)), f"{name}: somebody has no place"
        _check_places(lane)
        _check_line(lane.line)
        seen |= set(jobs)
    places = {place.name: place for lane in scheduler.lanes.values() for place in lane.places}
    assert places == scheduler.places, "a place that nobody has, or that two have"
    n_waiting = sum(len(lane.line) for lane in scheduler.lanes.values())
    desk = scheduler.desk
    assert desk.total.n == n_waiting == sum(load.n for load in desk.by_tenant.values())
    waiting = [lane.line.where(job) for lane in scheduler.lanes.values() for job in lane.line]
    for priority, counters in scheduler.slots.counters.items():
        assert counters.waiting == Counter(tenant for which, tenant in waiting if which is priority), "fairness"
    assert desk.tensor_bytes == sum(job.request.tensor_bytes for job in seen), "bytes of nobody"


def _check_line(line: Line) -> None:
    """What is counted by class and tenant is what waits there, and who is first in a class belongs to it."""
    for priority in Priority:
        loads: dict[str, Load] = {}
        total, tickets = Load(), {job: t for job, t in line.tickets.items() if line.where(job)[0] is priority}
        for job, ticket in tickets.items():
            loads.setdefault(line.where(job)[1], Load()).add(ticket)
            total.add(ticket)
        assert (line.loads[priority], line.totals[priority]) == (loads, total), f"{priority}: the books are wrong"
        able = [job for job, ticket in tickets.items() if ticket.pickable]
        assert line.pickable[priority] == len(able), f"{priority}: who may be picked is miscounted"
        heads = [entry[2] for _, entry in line.heads(priority)]
        assert set(heads) <= set(able), f"{priority}: somebody is first who is not there"
        assert sorted(line.where(job)[1] for job in heads) == sorted({line.where(job)[1] for job in able})


def _check_places(lane: Lane) -> None:
    for place in lane.places:
        assert place.lane is lane
        assert not place.slots or len(place.running) <= place.slots, f"{place.name}: more jobs than slots"
        assert place.slots or not place.leaving, f"{place.name}: leaves, and is not there"
        assert place.parking <= set(place.running), f"{place.name}: makes way without a slot"
        assert not (place.slots and place.granted), f"{place.name}: ready, and others still make way for it"
    n_up = sum(place.up for place in lane.places)
    assert n_up <= lane.replicas, f"{lane.name}: {n_up} copies, and {lane.replicas} may be"
