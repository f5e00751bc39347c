"""What happened, a row for each event."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ...protos import inferd_pb2 as pb
from ..cells import fit
from ..columns import Column, Sheet
from ..symbols import SEVERITIES, sign

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..cells import Cell, Line
    from ..state import State
    from ..symbols import Symbols

Event = pb.Event
LEVELS = tuple(SEVERITIES)  # from the least


def severity_of(event: Event, symbols: Symbols) -> Cell:
    name, style = SEVERITIES.get(event.severity, ("none", ""))
    return f"{sign(symbols, name)} {event.severity}", style


def clock(unix_s: float) -> str:
    try:
        return time.strftime("%H:%M:%S", time.localtime(unix_s))
    except (ValueError, OverflowError, OSError):
        return "--:--:--"


def about(event: Event, _: Symbols) -> Cell:
    return event.request_id or event.model or event.device or event.tenant or "-", "dim"


EVENTS = Sheet[Event](
    (
        Column[Event]("time", "TIME", 8, lambda e, _: (clock(e.unix_s), "dim"), lambda e: e.sequence),
        Column[Event](
            "level", "LEVEL", 9, severity_of, lambda e: LEVELS.index(e.severity) if e.severity in LEVELS else 9
        ),
        Column[Event]("kind", "EVENT", 15, lambda e, _: (e.kind, ""), lambda e: e.kind, rank=2, grow=6),
        Column[Event]("about", "ABOUT", 10, about, lambda e: about(e, None)[0], rank=5, grow=6),  # type: ignore[arg-type]
        Column[Event]("message", "WHAT HAPPENED", 20, lambda e, _: (e.message, ""), lambda e: e.message, grow=200),
    ),
    lambda event: str(event.sequence),
    lambda event: event.sequence,
)


def rows(state: State, least: str = "info") -> list[Event]:
    """Oldest first; of a severity, or worse."""
    shown = LEVELS[LEVELS.index(least) :]
    return [event for event in state.events if event.severity in shown or event.severity not in LEVELS]


def last_lines(events: Iterable[Event], width: int, height: int, symbols: Symbols) -> list[Line]:
    """The newest, for a corner of a screen."""
    lines: list[Line] = []
    for event in list(events)[-height:] if height > 0 else ():
        name, style = SEVERITIES.get(event.severity, ("none", ""))
        text = fit(event.message, max(0, width - 11), symbols)
        lines.append(
            ((clock(event.unix_s), "dim"), (f" {sign(symbols, name)} ", style), (text, style if style != "dim" else ""))
        )
    return lines
