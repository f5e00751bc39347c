"""What a load would do now, without doing it: the answer to `inferd plan`."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import msgspec

from ...backends import kinds
from ..policy.residency import evict
from ..policy.rooms import NEVER, NoRoom
from ..policy.scheduler import no_room
from .plans import CELL_STEP

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from ...backends.facts import LoadPlan
    from ..policy.residency import EvictQuestion, Holder
    from .node import Node
    from .resident import Resident


@dataclass(frozen=True, slots=True)
class LoadReport:
    """`outcome`: loaded, fits, evicts, waits, refused. `pools`: (pool, bytes needed, bytes free)."""

    model: str
    outcome: str
    devices: tuple[str, ...]
    pools: tuple[tuple[str, int, int], ...]
    victims: tuple[str, ...] = ()
    holders: tuple[Holder, ...] = ()
    load_ms: float | None = None
    message: str = ""
    change: str = ""


def plan_load(node: Node, name: str) -> LoadReport:
    """Raises InferdError for a model that is not there. What it says is what a load decides, by the same rules."""
    resident = node.fleet.get(name)
    lane, rooms = node.scheduler.lanes[name], node.scheduler.rooms
    question = rooms.question(lane, time.monotonic())
    devices = resident.model.plan.devices or ("cpu",)
    pools = tuple((pool, n_bytes, question.free[pool]) for pool, n_bytes in question.need.items())
    known = LoadReport(name, "loaded", devices, pools, holders=question.holders, load_ms=rooms.reload_s(lane) * 1e3)
    if lane.slots or lane.loading:
        return known
    victims = evict(question)
    if victims:
        return replace(known, outcome="evicts", victims=victims)
    if victims is not None:
        if rooms.fits_now(lane):
            return replace(known, outcome="fits")
        return replace(known, outcome="waits", message="a model that is on its way out still holds the memory")
    try:
        rooms.check_possible(question)
    except NoRoom as no:
        message = no_room(name, no.short).message
        return replace(known, outcome="refused", message=message, load_ms=None, change=_change(resident, question))
    stay = ", ".join(f"{h.model} ({h.stays})" for h in question.holders if h.stays)
    return replace(known, outcome="waits", message=f"the memory is held by {stay}")


def _change(resident: Resident, question: EvictQuestion) -> str:
    """The smallest change of the config that would make it fit, the one that costs least first."""
    room = _room(question, ())
    plan, facts = resident.model.plan, resident.model.facts
    for change, smaller in _smaller(plan):
        if _fits(kinds.footprint(facts, smaller).bytes_on, room):
            return change
    pinned = [holder for holder in question.holders if holder.stays in NEVER]
    if pinned and _fits(question.need, _room(question, [holder.model for holder in pinned])):
        return f"pinned = false for {', '.join(holder.model for holder in pinned)}"
    least = kinds.footprint(facts, msgspec.structs.replace(plan, n_ctx=CELL_STEP, kv_cells=CELL_STEP, n_slots=1))
    short = max(n_bytes - room.get(pool, 0) for pool, n_bytes in least.bytes_on.items())
    return f"free {short / 2**20:,.0f} MiB more: even its smallest context does not fit"


def _smaller(plan: LoadPlan) -> Iterator[tuple[str, LoadPlan]]:
    """Ways to need less, in the order of what they cost the users."""
    replace = msgspec.structs.replace
    for n_cells in _halves(plan.kv_cells, plan.n_ctx):
        yield f"kv_cells = {n_cells}", replace(plan, kv_cells=n_cells)
    if plan.kv_type in ("f32", "f16", "bf16") and plan.flash_attention is not False:
        yield 'kv_type = "q8_0"', replace(plan, kv_type="q8_0")
        yield f'kv_type = "q8_0" and kv_cells = {plan.n_ctx}', replace(plan, kv_type="q8_0", kv_cells=plan.n_ctx)
    for n_ctx in _halves(plan.n_ctx, CELL_STEP):
        yield f"context_tokens = {n_ctx} and kv_cells = {n_ctx}", replace(plan, n_ctx=n_ctx, kv_cells=n_ctx)


def _halves(n: int, least: int) -> Iterator[int]:
    """Half, a quarter and so on in whole steps, down to `least`."""
    while n > least:
        n = max(least, n // 2 // CELL_STEP * CELL_STEP)
        yield n


def _room(question: EvictQuestion, also: Iterable[str]) -> dict[str, int]:
    """What could be free by pool if all went that may, and those named `also`."""
    room = dict(question.free)
    for holder in question.holders:
        if holder.stays not in NEVER or holder.model in also:
            for pool, n_bytes in holder.bytes_on.items():
                room[pool] = room.get(pool, 0) + n_bytes
    return room


def _fits(need: Mapping[str, int], room: Mapping[str, int]) -> bool:
    return all(n_bytes <= room.get(pool, 0) for pool, n_bytes in need.items())
