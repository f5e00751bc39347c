"""Where: the place that a model is loaded in, and among several copies the one that a request runs in."""

from __future__ import annotations

import msgspec

from .residency import EvictQuestion, evict


class Option(msgspec.Struct, frozen=True):
    """A place that is free to be loaded, and what would have to go for that."""

    place: str
    room: EvictQuestion
    fits_now: bool  # the bytes are free this moment


class PlaceQuestion(msgspec.Struct, frozen=True):
    """Where `model` is loaded; the place that is preferred comes first."""

    model: str
    options: tuple[Option, ...]


def place(question: PlaceQuestion) -> str | None:
    """Where nobody makes way and nothing is waited for, else where that costs least; None when it fits nowhere now."""
    best: tuple[tuple[bool, bool, float, int], str] | None = None
    for i, option in enumerate(question.options):
        victims = evict(option.room)
        if victims is not None:
            cost = sum(holder.cost for holder in option.room.holders if holder.model in victims)
            key = (bool(victims), not option.fits_now, cost, i)
            best = min(best or (key, option.place), (key, option.place))
    return best[1] if best else None


class Copy(msgspec.Struct, frozen=True):
    """A place where the model is loaded and a slot is free."""

    place: str
    slots_free: int
    slots: int
    cells_free: int
    takes: bool  # there are KV cells enough for the request
    knows: bool = False  # the last turn of its session ran here


class RouteQuestion(msgspec.Struct, frozen=True):
    """Which copy runs the request."""

    request_id: str
    copies: tuple[Copy, ...]


def route(question: RouteQuestion) -> str | None:
    """Of those that have cells enough the one that knows its session, else the least busy one; of equals the one with
    more cells, then the first. None: it waits."""
    able = [
        (copy.knows, copy.slots_free / copy.slots, copy.cells_free, -i)
        for i, copy in enumerate(question.copies)
        if copy.takes
    ]
    return question.copies[-max(able)[-1]].place if able else None
