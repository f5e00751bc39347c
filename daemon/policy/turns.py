"""Who is next for a free slot, and who makes way when there is none."""

from __future__ import annotations

import msgspec

SHOWN = 8  # candidates that a question carries: the first ones of their classes decide, the rest is only counted


class Waiting(msgspec.Struct, frozen=True):
    """The first request of one tenant in one class."""

    request_id: str
    tenant: str
    rank: int  # of its class: 0 is the highest
    served: float  # the tenant's virtual counter in the class, in weighted tokens
    deadline_s: float | None
    arrival: int


class TurnQuestion(msgspec.Struct, frozen=True):
    """Who gets a slot of `model`. `owed`: ranks of lower classes that have their floor share to come."""

    model: str
    candidates: tuple[Waiting, ...]
    n_others: int = 0  # that wait behind these
    owed: tuple[int, ...] = ()


def turn(question: TurnQuestion) -> str | None:
    """The request that is next: of an owed class first, else of the highest; the tenant with the least service."""
    owed = [c for c in question.candidates if c.rank in question.owed]
    return min(owed or question.candidates, key=_turn_key).request_id if question.candidates else None


def _turn_key(candidate: Waiting) -> tuple[int, float, float, int]:
    deadline_s = float("inf") if candidate.deadline_s is None else candidate.deadline_s
    return candidate.rank, candidate.served, deadline_s, candidate.arrival


class Running(msgspec.Struct, frozen=True):
    """A request that holds a slot."""

    request_id: str
    rank: int
    tokens: int  # that its next attempt would compute again
    parks: int  # how often it made way already
    owed: bool = False  # its slot is its class's floor share


class PreemptQuestion(msgspec.Struct, frozen=True):
    """Who makes way for `request_id`, whose class is `rank`."""

    request_id: str
    rank: int
    running: tuple[Running, ...]
    max_parks: int


def preempt(question: PreemptQuestion) -> str | None:
    """The victim: of the lowest class below the asker's, the one that is cheapest to continue later."""
    able = [r for r in question.running if r.rank > question.rank and r.parks < question.max_parks and not r.owed]
    if not able:
        return None
    return min(able, key=lambda r: (-r.rank, r.tokens, r.request_id)).request_id


class EndQuestion(msgspec.Struct, frozen=True):
    """Why a request that had been taken in is sent away: the code of the error, and its figures."""

    request_id: str
    code: str
    message: str
    details: dict[str, int | float | str]


def end(question: EndQuestion) -> str:
    """The reason, as narrow as it is known."""
    return str(question.details.get("reason", question.code))


class ClassQuestion(msgspec.Struct, frozen=True):
    """Somebody wants a request in the class of rank `wanted`."""

    request_id: str
    rank: int
    wanted: int
    runs: bool  # it has a slot


def reclass(question: ClassQuestion) -> int:
    """The rank it has from now on: who is asked has decided already."""
    return question.wanted


class WaitQuestion(msgspec.Struct, frozen=True):
    """A waiting request and the state of its model."""

    request_id: str
    prompt_read: bool
    superseding: bool  # the request that it supersedes has not let go of its slot yet
    ready: bool
    loading: bool
    closed: bool  # the model drains, or is in back-off
    pressure: bool  # nothing is loaded now
    slots_free: int
    cells_needed: int
    cells_free: int
    ahead: int  # requests of its class and above that wait too
    parked: str = ""  # why it lost the slot that it had: preempted, evicted, kv_full, device_lost, worker_crashed


def wait(question: WaitQuestion) -> str:
    """What it waits for: prompt, predecessor, load, pressure, room, slot, memory or turn."""
    q = question
    if not q.prompt_read:
        return "prompt"
    if q.superseding:
        return "predecessor"
    if not q.ready:
        if q.loading or q.closed:
            return "load"
        return "pressure" if q.pressure else "room"
    if not q.slots_free:
        return "slot"
    return "memory" if q.cells_needed > q.cells_free else "turn"
