"""The queue: who waits, since when, until when, and above all why."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..panels import requests, why
from ..widgets.canvas import Lines
from .asking import RequestsPage

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from textual.widget import Widget

    from ...protos import inferd_pb2 as pb
    from ..columns import Sheet
    from ..state import State
    from ..widgets.rows import Rows


class Waiting(RequestsPage):
    number = 1
    what = "Waiting"
    empty = "nobody waits"

    def sheet(self) -> Sheet[pb.RequestState]:
        return requests.QUEUE

    def rows_of(self, state: State) -> Sequence[pb.RequestState]:
        return requests.waiting(state)

    def body(self) -> Iterable[Widget]:
        yield from self.main_table()
        yield Lines(id="why")

    def show_body(self, state: State) -> None:
        super().show_body(state)
        self.show_why(state)

    def show_why(self, state: State) -> None:
        box, current = self.query_one("#why", Lines), self.table.current
        if current is None:
            box.show([])
            return
        records = self.monitor.explanations.get(current.id)
        box.show(why.brief(current, state, records, max(20, box.size.width), box.size.height))

    def on_rows_moved(self, event: Rows.Moved) -> None:
        if (current := self.table.current) is not None:
            self.monitor.explanations.want(current.id)
            self.show_why(self.monitor.shown)
