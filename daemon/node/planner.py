"""What a load would do now, without doing it: the answer to `inferd plan`."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from ...backends import kinds
from ..policy.corrections import key
from ..policy.placing import place as choose
from ..policy.pressure import Grade
from ..policy.residency import evict
from ..policy.rooms import NEVER, NoRoom, no_room
from .plans import CELL_STEP

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from ...backends.facts import LoadPlan
    from ..domain.model import Model
    from ..policy.corrections import Corrections
    from ..policy.place import Place
    from ..policy.placing import PlaceQuestion
    from ..policy.residency import EvictQuestion, Holder
    from ..policy.rooms import Rooms
    from ..policy.scheduler import Scheduler
    from .node import Node
    from .resident import Resident


SCALES = "its scales are those of a whole call (dynamic quantization), so company moves a result"


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
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Outlook:
    """What asking for a model now would come to, by the scheduler's own rules, and in which place."""

    outcome: str
    place: Place
    question: EvictQuestion
    victims: tuple[str, ...] = ()
    message: str = ""


def outlook(scheduler: Scheduler, name: str, now_s: float) -> Outlook:
    """Changes nothing; a load decides the same."""
    lane, rooms = scheduler.lanes[name], scheduler.rooms
    up = next((place for place in lane.places if place.slots), None) or next((p for p in lane.places if p.up), None)
    if up is not None:
        question = rooms.question(up, now_s)
        loading = Outlook("waits", up, question, message="it is being loaded")
        return Outlook("loaded", up, question) if up.slots else loading
    options = rooms.options_of(lane, now_s)
    chosen = choose(options)
    place = next((place for place in lane.places if place.name == chosen), lane.places[0])
    question = rooms.question(place, now_s)
    if lane.closed(now_s):
        why = "it is on its way out, or pauses after a failed load"
        return Outlook("waits", place, question, message=why)
    if scheduler.pressure.grade >= Grade.NO_LOADS:
        return Outlook("waits", place, question, message="the machine is short of memory, and nothing is loaded now")
    if chosen is None and len(options.options) == len(lane.places):
        return _without_room(rooms, options, place, question)
    if chosen is None:
        return Outlook(
            "waits", place, question, message="it is on its way out elsewhere, or pauses after a failed load"
        )
    if victims := evict(question):
        return Outlook("evicts", place, question, victims)
    if rooms.fits_now(place):
        return Outlook("fits", place, question)
    return Outlook("waits", place, question, message="a model that is on its way out still holds the memory")


def _without_room(rooms: Rooms, options: PlaceQuestion, place: Place, question: EvictQuestion) -> Outlook:
    try:
        rooms.check_possible(options)
    except NoRoom as no:
        return Outlook("refused", place, question, message=no_room(options.model, no.short).message)
    stay = ", ".join(f"{h.model} ({h.stays})" for h in question.holders if h.stays)
    return Outlook("waits", place, question, message=f"the memory is held by {stay}")


def plan_load(node: Node, name: str) -> LoadReport:
    """Raises InferdError for a model that is not there."""
    deployment = node.fleet.get(name)
    name = deployment.name
    it = outlook(node.scheduler, name, time.monotonic())
    resident = deployment.residents[it.place.name]
    refused = it.outcome == "refused"
    return LoadReport(
        model=name,
        outcome=it.outcome,
        devices=resident.model.plan.devices or ("cpu",),
        pools=tuple((pool, n_bytes, it.question.free[pool]) for pool, n_bytes in it.question.need.items()),
        victims=it.victims,
        holders=it.question.holders,
        load_ms=None if refused else node.scheduler.rooms.reload_s(it.place) * 1e3,
        message=it.message,
        change=_change(resident, it.question, node.fleet.corrections) if refused else "",
        notes=_notes(resident.model),
    )


def _notes(model: Model) -> tuple[str, ...]:
    """What those who read its results should know."""
    rows = model.plan.batching.max_batch_size
    if rows <= 1 or not model.facts.inputs:
        return ()
    shared = f"up to {rows} rows of several requests share a call"
    if model.facts.dynamic_quantization:
        return (f"{shared}, but never those of two tenants: {SCALES}",)
    return (shared,)


def _change(resident: Resident, question: EvictQuestion, known: Corrections) -> str:
    """The smallest change of the config that would make it fit, the one that costs least first."""
    room, facts = _room(question, ()), resident.model.facts
    short = 0
    for change, plan in _smaller(resident, room, known):
        need = known.apply(key(facts, plan), kinds.footprint(facts, plan).bytes_on)
        if _fits(need, room):
            return change
        short = max(n_bytes - room.get(pool, 0) for pool, n_bytes in need.items())
    pinned = [holder for holder in question.holders if holder.stays in NEVER]
    if pinned and _fits(question.need, _room(question, [holder.model for holder in pinned])):
        return f"pinned = false for {', '.join(holder.model for holder in pinned)}"
    return f"free {short / 2**20:,.0f} MiB more: even one slot with the smallest context does not fit"


def _smaller(resident: Resident, room: Mapping[str, int], known: Corrections) -> Iterator[tuple[str, LoadPlan]]:
    """Ways to need less, in the order of what they cost the users."""
    plan, facts, replace = resident.model.plan, resident.model.facts, msgspec.structs.replace
    if plan.cache_bytes:
        yield "cache_bytes = 0", replace(plan, cache_bytes=0)
        plan = replace(plan, cache_bytes=0)
    if plan.n_lanes > 1:
        yield "instances = 1", replace(plan, n_lanes=1)
        plan = replace(plan, n_lanes=1)
    if plan.draft is not None:
        yield 'spec_type = "ngram-simple"', replace(plan, draft=None)
    for n_cells in _halves(plan.kv_cells, plan.n_ctx):
        yield f"kv_cells = {n_cells}", replace(plan, kv_cells=n_cells)
    if plan.kv_type in ("f32", "f16", "bf16") and plan.flash_attention is not False:
        yield 'kv_type = "q8_0"', replace(plan, kv_type="q8_0")
        yield f'kv_type = "q8_0" and kv_cells = {plan.n_ctx}', replace(plan, kv_type="q8_0", kv_cells=plan.n_ctx)
    spare = {pool: n_bytes - known.offset_bytes(key(facts, plan), pool) for pool, n_bytes in room.items()}
    n_ctx = kinds.largest_context(facts, plan, spare)
    if n_ctx is not None and n_ctx < plan.n_ctx:
        n_cells = n_ctx * (plan.n_slots if plan.kv_layout == "split" else 1)
        yield f"context_tokens = {n_ctx} and kv_cells = {n_cells}", replace(plan, n_ctx=n_ctx, kv_cells=n_cells)
    least = f"slots = 1, context_tokens = {CELL_STEP} and kv_cells = {CELL_STEP}"
    yield least, replace(plan, n_slots=1, n_ctx=CELL_STEP, kv_cells=CELL_STEP)


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
