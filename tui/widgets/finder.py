"""The line at the bottom in which one types: a filter that works while it is written, or an id to go to."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding
from textual.events import Key
from textual.message import Message
from textual.widgets import Input

if TYPE_CHECKING:
    from textual.binding import BindingType

FILTER, GO = "/", ":"


class Finder(Input):
    """Hidden until it is opened for one of the two."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "leave", "Leave", show=False, id="leave_finder")]

    class Typed(Message):
        """The filter is another one."""

        def __init__(self, pattern: str) -> None:
            super().__init__()
            self.pattern = pattern

    class Went(Message):
        """An id to go to was entered."""

        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

    class Left(Message):
        """It is closed. `undo`: the filter is to go."""

        def __init__(self, undo: bool) -> None:
            super().__init__()
            self.undo = undo

    def __init__(self) -> None:
        super().__init__(id="finder", compact=True, select_on_focus=False)
        self.purpose = FILTER
        self.display = False

    def open(self, purpose: str, text: str = "") -> None:
        self.purpose = purpose
        filters = purpose == FILTER
        self.placeholder = (
            "filter: a regular expression; ! before it keeps the others" if filters else "id of a request, or a model"
        )
        self.display = True
        with self.prevent(Input.Changed):
            self.value = text
        self.cursor_position = len(text)
        self.screen.set_focus(self)  # at once: the next key may be on its way

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        if self.display and self.purpose == FILTER:
            self.post_message(self.Typed(event.value))

    async def _on_key(self, event: Key) -> None:
        """Keys come in bunches: what follows the one that closes the line is for what is below it."""
        if self.display and event.key != "enter":
            return await super()._on_key(event)
        event.stop()
        event.prevent_default()
        if not self.display:
            self.app.post_message(Key(event.key, event.character).set_sender(self.app))
            return None
        if self.purpose == GO and self.value.strip():
            self.post_message(self.Went(self.value.strip()))
        return self.close_line(undo=False)

    def action_leave(self) -> None:
        self.close_line(undo=self.purpose == FILTER)

    def on_blur(self) -> None:
        if self.app.app_focus and self.screen.is_active:
            self.close_line(undo=False)

    def close_line(self, *, undo: bool) -> None:
        if self.display:
            self.display = False
            self.screen.set_focus(None)
            self.post_message(self.Left(undo))
