"""The same as the screens say, once and as plain text: for scripts, logs and reports."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, TypeVar

from ..protos.client import Client
from ..protos.errors import InferdError
from . import state
from .cells import text_of
from .columns import table
from .panels import clients, devices, events, models, requests, summary

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .cells import Line
    from .columns import Sheet
    from .state import State
    from .symbols import Symbols

T = TypeVar("T")


def look(address: str | None, screen: str) -> tuple[State, str]:
    """(what the daemon says now, its address). Raises InferdError."""
    with Client(address) as client:
        now = state.on_snapshot(state.State(), client.snapshot(), time.monotonic())
        with contextlib.suppress(InferdError):  # a daemon of another version
            me = client.whoami()
            now = state.on_greeting(now, me.role, me.tenant)
        if screen == "models":
            now = state.on_catalog(now, client.models())
        if screen == "events":
            now = state.on_events(now, list(client.events(follow=False)))
        return now, client.address


def lines(now: State, screen: str, width: int, symbols: Symbols, address: str) -> list[Line]:
    """A screen as lines of at most `width` cells."""
    head = summary.title(now, width, symbols, address=address, pace="once")
    return [head, *summary.small(now, width, symbols), (), *_body(now, screen, width, symbols)]


def _body(now: State, screen: str, width: int, symbols: Symbols) -> list[Line]:
    def of(sheet: Sheet[T], rows: Sequence[T]) -> list[Line]:
        return table(sheet, sorted(rows, key=sheet.order), width, symbols)

    match screen:
        case "queue":
            return of(requests.QUEUE, requests.waiting(now))
        case "models":
            return of(models.MODELS, models.rows(now))
        case "devices":
            return devices.blocks(now, width, symbols)
        case "events":
            return of(events.EVENTS, events.rows(now))
        case "clients":
            return of(clients.CLIENTS, clients.rows(now))
    return [*of(requests.LIVE, requests.live(now)), (), *of(models.BRIEF, models.in_use(now))]


def text(shown: Sequence[Line]) -> str:
    return "\n".join(text_of(line).rstrip() for line in shown)
