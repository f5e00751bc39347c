"""Devices: memory, ours against others', how busy, hot and hungry, what holds them back, and the machine."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from .. import bindings
from ..panels import devices, summary
from ..widgets.canvas import Lines
from .page import Page

if TYPE_CHECKING:
    from collections.abc import Iterable

    from textual.binding import BindingType
    from textual.widget import Widget

    from ..cells import Line
    from ..state import State


class Devices(Page):
    number = 3
    AUTO_FOCUS = "#blocks"
    BINDINGS: ClassVar[list[BindingType]] = [replace(bindings.COPY, description="copy all")]

    def body(self) -> Iterable[Widget]:
        blocks = Lines(id="blocks")
        blocks.can_focus = True
        yield blocks

    def top_lines(self, state: State, width: int) -> list[Line]:
        return [] if state.snapshot is None else summary.warnings(state.snapshot, width, self.monitor.symbols, 3)

    def show_body(self, state: State) -> None:
        blocks = self.query_one("#blocks", Lines)
        blocks.show(devices.blocks(state, max(20, blocks.size.width - 1), self.monitor.symbols))

    def focus_body(self) -> None:
        """To what can be scrolled."""
        self.query_one("#blocks", Lines).focus()

    def action_copy(self) -> None:
        """All of it: figures of devices are what one pastes into a report."""
        self.monitor.copy(self.query_one("#blocks", Lines).all_text())
