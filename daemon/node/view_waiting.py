"""Of all who wait, who is before them and why they wait: what they have in common is looked up once for each model."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from ..domain.model import ModelState
from ..policy.place import cells
from ..policy.pressure import Grade
from ..policy.residency import shortage
from ..policy.turns import wait
from ..policy.waiting import Held, Room, Scene, Waiter, in_order, obstacle, sentence

if TYPE_CHECKING:
    from ..domain.request import Job
    from ..policy.lane import Lane
    from ..policy.placing import Option
    from .machine import Machine
    from .node import Node

PASSING = ("busy", "young")  # reasons to stay that end by themselves


class Told(NamedTuple):
    """What one who waits can be told."""

    position: int  # requests before it
    why: str  # in the words of turns.wait
    text: str


def waiting(node: Node, machine: Machine, now_s: float) -> dict[Job, Told]:
    """Of all who wait, for whatever model."""
    found: dict[Job, Told] = {}
    for lane in node.scheduler.lanes.values():
        if lane.line:
            _tell(node, machine, lane, now_s, found)
    return found


def _tell(node: Node, machine: Machine, lane: Lane, now_s: float, found: dict[Job, Told]) -> None:
    line, blocked = list(in_order(lane.line)), node.scheduler.keys.blocked
    short = node.scheduler.pressure.grade >= Grade.NO_LOADS
    common = lane.wait_question(line[0][0], now_s, superseding=False, pressure=short)
    free = common.cells_free
    first_cells = next((cells(job) for job, _ in line if job.prompt is not None), 0)
    scene = _scene(node, machine, lane, now_s, free, first_cells)
    reasons: dict[tuple[bool, bool, bool], tuple[str, str]] = {}  # by all that a rule could tell two of them by
    for job, turn in line:
        need = cells(job)
        case = is_read, supersedes, _ = job.prompt is not None, blocked(job), need > free
        if case not in reasons:
            why = wait(replace(common, prompt_read=is_read, superseding=supersedes, cells_needed=need))
            room = _room(node, lane, now_s) if why == "room" else None
            reasons[case] = why, obstacle(why, replace(scene, room=room))
        why, stands = reasons[case]
        found[job] = Told(turn.n_before, why, sentence(stands, Waiter(why, turn, need, job.parked_why)))


def _scene(node: Node, machine: Machine, lane: Lane, now_s: float, cells_free: int, first_cells: int) -> Scene:
    """What is cheap to know of a model, whatever somebody waits for."""
    places, residents = node.scheduler.places, node.fleet.residents
    loading = [residents[place.name].model for place in lane.places if place.loading]
    foremost = max(loading, key=lambda model: model.load_progress, default=None)
    leaving = {places[name].lane.name for place in lane.places for name in place.granted} - {lane.name}
    failed = [model for place in lane.places if (model := residents[place.name].model).state is ModelState.FAILED]
    return Scene(
        lane.name,
        lane.slots,
        cells_free,
        first_cells,
        progress=foremost.load_progress if foremost else None,
        on=foremost.plan.devices if foremost else (),
        awaits=tuple(sorted(leaving)),
        retry_in_s=max(0.0, min(model.retry_at_s for model in failed) - now_s) if failed else None,
        psi=machine.memory.psi_some_avg10,
    )


def _room(node: Node, lane: Lane, now_s: float) -> Room | None:
    """Where it would fit best: what that lacks, and who holds it."""
    rooms, places = node.scheduler.rooms, node.scheduler.places
    options = rooms.options_of(lane, now_s).options
    if not options:
        return None
    question = min(options, key=_missing_bytes).room
    missing = shortage(question.need, question.free) or question.need
    pool = max(missing, key=lambda name: missing[name])
    holders = []
    for holder in question.holders:
        if n_bytes := holder.bytes_on.get(pool, 0):
            place = places[holder.model]
            until_s = rooms.stays_until_s(lane, place) if holder.stays in PASSING else None
            for_s = until_s - now_s if until_s is not None and until_s > now_s else None
            holders.append(Held(place.lane.name, n_bytes, holder.stays, for_s))
    others_bytes = node.ledger.pools[pool].foreign if pool in node.ledger.pools else 0
    return Room(pool, question.need[pool], question.free[pool], tuple(holders), others_bytes)


def _missing_bytes(option: Option) -> int:
    return sum(shortage(option.room.need, option.room.free).values())
