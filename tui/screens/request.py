"""One request, with every decision about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.containers import Container
from textual.widgets import Static

from .. import bindings
from ..panels import why
from ..widgets.canvas import Lines
from ..widgets.dialogs import Choose
from ..widgets.keys import Keys
from .base import Looking

if TYPE_CHECKING:
    from textual.app import ComposeResult
    from textual.binding import BindingType

    from ...protos import inferd_pb2 as pb
    from ..cells import Line


CLASSES = (
    ("interactive", "interactive: somebody waits for it"),
    ("normal", "normal: soon"),
    ("batch", "batch: when nothing else is to do"),
)


class RequestPage(Looking):
    BINDINGS: ClassVar[list[BindingType]] = [
        bindings.CANCEL,
        bindings.PRIORITY,
        bindings.COPY,
        bindings.COMMAND,
        bindings.LEAVE,
    ]
    AUTO_FOCUS = "#text"

    def __init__(self, request_id: str) -> None:
        super().__init__()
        self.request_id = request_id
        self._last: pb.RequestState | None = None  # as it was seen last

    def compose(self) -> ComposeResult:
        yield Lines(id="top")
        with Container(id="body"):
            text = Lines(id="text", classes="framed")
            text.can_focus = True
            yield text
        yield Keys()
        yield Static("", id="small", markup=False)

    def on_mount(self) -> None:
        self.monitor.explanations.want(self.request_id)

    def paint(self) -> None:
        self.show_top([])
        text = self.query_one("#text", Lines)
        text.show(self.lines(max(20, text.scrollable_content_region.width)))

    def focus_body(self) -> None:
        self.query_one("#text", Lines).focus()

    def lines(self, width: int) -> list[Line]:
        state = self.monitor.shown
        request = state.request(self.request_id)
        records = self.monitor.explanations.get(self.request_id)
        lines: list[Line] = []
        if request is not None:
            self._last = request
            lines = [((request.id, "title"),), *why.brief(request, state, (), width, 100)]
        else:
            lines = [((self.request_id, "title"),), (("it has ended, or was never here", "warn"),)]
            if self._last is not None:
                lines += [((fact, "dim"),) for fact in why.figures(self._last)]
        heading: Line = (("What was decided about it", "title"),)
        return [*lines, (), heading, *(why.decisions(records, width) or [(("nothing is remembered", "dim"),)])]

    def action_leave(self) -> None:
        self.app.pop_screen()

    def action_cancel(self) -> None:
        self.monitor.cancel([self.request_id])

    def action_priority(self) -> None:
        current = self._last.priority if self._last is not None else ""
        question = Choose(f"Which class should {self.request_id} be in?", CLASSES, current)
        self.app.push_screen(question, lambda chosen: self.monitor.set_priority([self.request_id], chosen or ""))

    def action_copy(self) -> None:
        self.monitor.copy(self.request_id)

    def action_copy_command(self) -> None:
        if self._last is not None:
            self.monitor.copy(why.as_command(self._last, self.monitor.address))
