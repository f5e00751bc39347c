"""Why a request waits, in one sentence for whoever looks: what stands in the way, in figures, and what would help.

`obstacle` says what all who wait for one model have in common, so it is made once; `sentence` adds what is one's own.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import msgspec

from ...backends.facts import HOST
from .explain import CLASSES, PARKED, WAITS_FOR
from .line import RANK

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..domain.request import Job
    from .line import Line

SHOWN = 3  # models that hold the memory, the largest first; the others are only counted

STAYS = {
    "pinned": "pinned",
    "leased": "leased by a client",
    "busy": "busy",
    "young": "just loaded",
    "loading": "being loaded",
}


class Held(msgspec.Struct, frozen=True):
    """A model that holds memory where it is short."""

    model: str
    n_bytes: int
    stays: str = ""  # why it does not make way now, as in residency.Holder
    for_s: float | None = None  # about how much longer; None: nobody knows


class Room(msgspec.Struct, frozen=True):
    """The memory of which a model lacks most."""

    pool: str
    need_bytes: int
    free_bytes: int  # with what is on its way out
    holders: tuple[Held, ...] = ()
    others_bytes: int = 0  # that other programs use


class Scene(msgspec.Struct, frozen=True):
    """What all who wait for one model find."""

    model: str
    slots: int = 0  # of all its workers that are ready
    cells_free: int = 0
    first_cells: int = 0  # that the first one in line needs, once its prompt is read
    progress: float | None = None  # of the load that is under way: 0 to 1
    on: tuple[str, ...] = ()  # devices that it is being loaded on; empty: the processor
    awaits: tuple[str, ...] = ()  # models that are making way for it
    retry_in_s: float | None = None  # its load, or its worker, has failed; it is tried again then
    room: Room | None = None
    psi: float | None = None  # of memory: per cent of the last 10 s


class Turn(msgspec.Struct, frozen=True):
    """Who is before one in the line of its model, in the order in which they would be served."""

    n_before: int
    rank: int = 0  # of its class
    first_rank: int = 0  # of the class of who comes first
    n_above: int = 0  # of those before it, in higher classes
    n_others: int = 0  # and of other tenants in its own
    n_tenants: int = 0  # as many tenants
    other: str = ""  # the first of these
    less: bool = False  # which has had less service than its own


class Waiter(msgspec.Struct, frozen=True):
    """One who waits."""

    why: str  # in the words of turns.wait
    turn: Turn
    cells: int = 0  # KV cells that it needs
    parked: str = ""  # why it lost the slot that it had


def in_order(line: Line) -> Iterator[tuple[Job, Turn]]:
    """All who wait, the first one first; the order is asked for once."""
    first_rank = rank = -1
    n_above, current = 0, None
    seen: dict[str, int] = {}  # of the class so far: requests by tenant
    for n_before, job in enumerate(line.order()):
        priority, tenant = line.where(job)
        if priority is not current:
            rank, current, n_above, seen = RANK[priority], priority, n_before, {}
            had = functools.cache(functools.partial(line.served, priority))
            first_rank = rank if first_rank < 0 else first_rank
        n_own = seen.get(tenant, 0)
        if n_others := n_before - n_above - n_own:
            other = next(name for name in seen if name != tenant)
            n_tenants = len(seen) - (n_own > 0)
            yield job, Turn(n_before, rank, first_rank, n_above, n_others, n_tenants, other, had(other) < had(tenant))
        else:
            yield job, Turn(n_before, rank, first_rank, n_above)
        seen[tenant] = n_own + 1


def obstacle(why: str, scene: Scene) -> str:
    """What stands in the way of all who wait for this."""
    it = scene
    match why:
        case "load":
            return _load(it)
        case "pressure":
            share = "" if it.psi is None else f" (tasks stood still for it {it.psi:.0f} % of the last 10 s)"
            return f"the machine is short of memory{share}, and nothing is loaded until that is over"
        case "room":
            return WAITS_FOR[why] if it.room is None else _room(it.model, it.room)
        case "slot":
            taken = f"the slot of {it.model} is" if it.slots == 1 else f"all {it.slots} slots of {it.model} are"
            return f"{taken} taken"
        case "memory":
            return f"{max(0, it.cells_free):,} of {it.model} are free"
        case "turn":  # a slot is free, and kept for the first one as long as that lacks cells
            lacks = f"the first of them {_needs(it.first_cells)}, and {max(0, it.cells_free):,} are free"
            return lacks if it.first_cells > it.cells_free else ""
        case _:
            return WAITS_FOR[why]


def sentence(stands: str, waiter: Waiter) -> str:
    """Why one waits, and who comes before it. `stands`: the obstacle that it shares with others."""
    turn = waiter.turn
    match waiter.why:
        case "prompt" | "predecessor":
            said = [stands]
        case "memory":
            said = [f"it {_needs(waiter.cells)}, and {stands}", _before(turn, "before it")]
        case "turn":
            said = [_before(turn, "served before it"), stands if turn.n_before else ""]
        case "slot":
            said = [stands, _before(turn, "before it")]
        case _:
            said = [stands, _before(turn, "before it") if turn.n_before else ""]
    if waiter.parked:
        said.insert(0, PARKED[waiter.parked])
    return "; ".join(filter(None, said))


def _before(turn: Turn, where: str) -> str:
    """How many come first, and by which rules, where it is not arrival alone."""
    if not turn.n_before:
        return "it is next"
    rules = []
    if turn.n_above:
        rules.append(f"{CLASSES[turn.first_rank]} goes before {CLASSES[turn.rank]}")
    if turn.n_others and not turn.less:
        rules.append("tenants take turns")
    elif turn.n_others:
        whose = f"tenant {turn.other} has" if turn.n_tenants == 1 else "other tenants have"
        rules.append(f"{whose} had less service")
    n_before = "1 request is" if turn.n_before == 1 else f"{turn.n_before:,} requests are"
    return f"{n_before} {where}{': ' if rules else ''}{', '.join(rules)}"


def _needs(n_cells: int) -> str:
    return f"needs {n_cells:,} KV cells, one for each token"


def _load(it: Scene) -> str:
    if it.progress is not None:
        where = f" on {', '.join(it.on)}" if it.on else ""
        return f"{it.model} is being loaded{where}: {100 * it.progress:.0f} %"
    if it.awaits:
        have = "has" if len(it.awaits) == 1 else "have"
        return f"{it.model} is loaded as soon as {_names(it.awaits)} {have} made way"
    if it.retry_in_s is not None:
        return f"{it.model} has failed, and is tried again in {it.retry_in_s:.1f} s"
    return f"{it.model} is on its way out, and is loaded again after that"


def _room(model: str, room: Room) -> str:
    """Both numbers, who holds the memory and for how long, and whether others than models are to blame."""
    missing = room.need_bytes - room.free_bytes
    if missing <= 0:
        return f"a model that is on its way out still holds the memory that {model} needs"
    where = "of memory" if room.pool == HOST else f"on {room.pool}"
    text = f"{model} needs {size(room.need_bytes)} {where} and {size(max(0, room.free_bytes))} are free"
    if room.holders:
        holders = sorted(room.holders, key=lambda held: -held.n_bytes)
        text += f"; held by {', '.join(map(_held, holders[:SHOWN]))}"
        text += f" and {len(holders) - SHOWN} more" if len(holders) > SHOWN else ""
    if room.others_bytes >= missing:
        text += f"; it would fit without the {size(room.others_bytes)} that other programs use"
    return text


def _held(held: Held) -> str:
    if not held.stays:
        return held.model
    more = "" if held.for_s is None else f", about {held.for_s:.1f} s more"
    return f"{held.model} ({STAYS[held.stays]}{more})"


def _names(names: tuple[str, ...]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def size(n_bytes: int) -> str:
    """31.0 GiB, 512 MiB."""
    return f"{n_bytes / 2**30:,.1f} GiB" if n_bytes >= 2**30 else f"{n_bytes / 2**20:,.0f} MiB"
