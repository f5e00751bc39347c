"""Everything at a glance: how fast, on what, for whom, and which models."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, TypeVar

from textual.containers import Container

from .. import bindings
from ..panels import devices, events, models, requests, summary, throughput
from ..widgets.canvas import Canvas, Lines
from ..widgets.rows import Rows
from .asking import RequestsPage

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from textual.binding import BindingType
    from textual.widget import Widget

    from ...protos import inferd_pb2 as pb
    from ..cells import Line
    from ..columns import Sheet
    from ..state import State


W = TypeVar("W", bound=Canvas)


class Overview(RequestsPage):
    number = 0
    what = "Requests"
    empty = "no request is live; try: inferd run demo"
    AUTO_FOCUS = "#table"
    BINDINGS: ClassVar[list[BindingType]] = [bindings.GRAPHS]

    def sheet(self) -> Sheet[pb.RequestState]:
        return requests.LIVE

    def rows_of(self, state: State) -> Sequence[pb.RequestState]:
        return requests.live(state)

    def body(self) -> Iterable[Widget]:
        with Container(id="charts"):
            yield _titled(Lines(id="throughput", classes="framed"), "Throughput")
            yield _titled(Lines(id="devices", classes="framed"), "Devices")
        with Container(id="requests"):
            yield from self.main_table()
        with Container(id="lower"):
            empty = "no model is loaded; the first request loads one"
            loaded = Rows(models.BRIEF, self.monitor.symbols, empty=empty, id="models")
            loaded.can_focus = False  # what keys do, they do to requests
            yield _titled(loaded, "Models")
            yield _titled(Lines(id="recent", classes="framed"), "Events")

    def top_lines(self, state: State, width: int) -> list[Line]:
        if not (self.is_large and not self.has_class("-plain")):
            return summary.small(state, width, self.monitor.symbols)
        snapshot = state.snapshot
        return [] if snapshot is None else summary.warnings(snapshot, width, self.monitor.symbols, 2)

    def show_body(self, state: State) -> None:
        super().show_body(state)
        symbols = self.monitor.symbols
        self.query_one("#models", Rows).show(sorted(models.in_use(state), key=models.BRIEF.order))
        if not self.is_large:
            return
        if not self.has_class("-plain"):
            graph, boxes = self.query_one("#throughput", Lines), self.query_one("#devices", Lines)
            graph.show(throughput.panel(state, graph.size.width, graph.size.height, symbols))
            boxes.show(devices.panel(state, boxes.size.width, boxes.size.height, symbols))
        recent = self.query_one("#recent", Lines)
        recent.show(events.last_lines(state.events, recent.size.width, recent.size.height, symbols))

    def heading_extra(self) -> list[tuple[str, str]]:
        """Where there is no room for a column of reasons, that of the row under the cursor."""
        current, marked = self.table.current, super().heading_extra()
        if marked or current is None or self.is_large or not current.why_text:
            return marked
        return [(f"   {current.id} waits: {current.why_text}", "warn")]

    def on_rows_moved(self, event: Rows.Moved) -> None:
        self.show_heading(*self.counts)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "graphs" and not self.is_large:
            return False
        return super().check_action(action, parameters)

    def action_graphs(self) -> None:
        self.toggle_class("-plain")
        self.call_after_refresh(self.show)


def _titled(widget: W, title: str) -> W:
    """Set once: another title would have all of the frame painted again."""
    widget.border_title = title
    return widget
