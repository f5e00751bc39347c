"""Events: what happened, as it happens."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from ...protos import inferd_pb2 as pb
from .. import bindings
from ..cells import wrapped
from ..panels import events
from ..widgets.dialogs import Note
from .page import TablePage

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from textual.binding import BindingType
    from textual.widget import Widget

    from ..cells import Line
    from ..columns import Sheet
    from ..state import State
    from ..widgets.rows import Rows


FIELDS = ("kind", "severity", "model", "request_id", "tenant", "device")


class Events(TablePage[pb.Event]):
    number = 4
    what = "Events"
    empty = "nothing has happened"
    BINDINGS: ClassVar[list[BindingType]] = [
        bindings.FOLLOW,
        bindings.LEVEL,
        bindings.ENTER,
        replace(bindings.COPY, description="copy line"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.follows = True
        self.level = events.LEVELS[0]

    def sheet(self) -> Sheet[pb.Event]:
        return events.EVENTS

    def rows_of(self, state: State) -> Sequence[pb.Event]:
        return events.rows(state, self.level)

    def body(self) -> Iterable[Widget]:
        yield from self.main_table()

    def show_body(self, state: State) -> None:
        table = self.table
        if self.follows and table.rows and not table.in_view:
            self.follows = False  # the wheel has turned it away
        super().show_body(state)
        if self.follows:
            table.action_edge(-1)

    def heading_extra(self) -> list[tuple[str, str]]:
        follow = "follows" if self.follows else "stands still (f follows)"
        return [(f"   {follow}", "ok" if self.follows else "warn"), (f"   level {self.level}", "dim")]

    def on_rows_moved(self, event: Rows.Moved) -> None:
        """Who looks back does not want to be carried off."""
        table = self.table
        if self.follows and table.rows and table.at < len(table.rows) - 1:
            self.follows = False
            self.show()

    def action_follow(self) -> None:
        self.follows = not self.follows
        self.show()

    def action_level(self) -> None:
        at = events.LEVELS.index(self.level)
        self.level = events.LEVELS[(at + 1) % len(events.LEVELS)]
        self.show()

    def action_detail(self) -> None:
        if (event := self.table.current) is None:
            return

        def lines(width: int) -> list[Line]:
            about = [(name, str(getattr(event, name))) for name in FIELDS]
            facts = [line for name, value in about if value for line in wrapped(f"{name}: {value}", width, "dim")]
            return [*wrapped(event.message, width), *facts]

        self.app.push_screen(Note(f"{events.clock(event.unix_s)}  {event.kind}", lines))

    def on_rows_chosen(self, event: Rows.Chosen) -> None:
        self.action_detail()

    def copied(self, row: pb.Event) -> str:
        return f"{events.clock(row.unix_s)} {row.severity} {row.kind}: {row.message}"
