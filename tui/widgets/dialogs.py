"""Questions over a screen: one to say yes to, one to choose from, one to pick several of; and something to read."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, TypeVar

from textual.binding import Binding
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import OptionList, SelectionList, Static
from textual.widgets.option_list import Option

from .canvas import STYLE_CLASSES, Lines

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from textual import events
    from textual.app import ComposeResult
    from textual.binding import BindingType
    from textual.geometry import Size

    from ..cells import Line

    Made = Callable[[int], Sequence[Line]]  # lines for a width

T = TypeVar("T")


class Wrapped(Lines):
    """Lines that are made for the width that there is."""

    def __init__(self, make: Made, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._make = make

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return len(self._make(width))

    def on_resize(self) -> None:
        self.show(self._make(self.scrollable_content_region.width))


class Asking(ModalScreen[T]):
    """Answered once: keys that come in a bunch must not answer what is below it."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {*STYLE_CLASSES}

    def answer(self, value: T) -> None:
        if self.app.screen is self:
            self.dismiss(value)


class Confirm(Asking[bool]):
    """Asks once before something ends."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y,enter", "answer(True)", "yes", id="yes"),
        Binding("n,escape,q", "answer(False)", "no", id="no"),
    ]

    def __init__(self, question: str, make: Made | None = None, yes: str = "yes") -> None:
        super().__init__()
        self._question = question
        self._make = make
        self._yes = yes

    def compose(self) -> ComposeResult:
        with Vertical(id="dialog"):
            yield Static(self._question, id="question", markup=False)
            if self._make is not None:
                yield Wrapped(self._make, id="details")
            yield Static(f"y  {self._yes}    n  no", id="answers", markup=False)

    def action_answer(self, yes: bool) -> None:
        self.answer(yes)


class Note(Asking[None]):
    """Something to read."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,enter,question_mark", "close", "close", id="close")]
    AUTO_FOCUS = "#text"

    def __init__(self, heading: str, make: Made) -> None:
        super().__init__()
        self._heading = heading
        self._make = make

    def compose(self) -> ComposeResult:
        with Vertical(id="dialog", classes="tall"):
            yield Static(self._heading, id="question", markup=False)
            text = Wrapped(self._make, id="text")
            text.can_focus = True
            yield text
            yield Static("esc  close", id="answers", markup=False)

    def action_close(self) -> None:
        self.answer(None)


class Choose(Asking[str]):
    """One of a few; the keys 1, 2, 3 choose at once. An empty answer is none."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q", "none", "cancel", id="none")]

    def __init__(self, question: str, choices: Sequence[tuple[str, str]], current: str = "") -> None:
        super().__init__()
        self._question = question
        self._choices = choices  # (value, what it means)
        self._current = current

    def compose(self) -> ComposeResult:
        with Vertical(id="dialog"):
            yield Static(self._question, id="question", markup=False)
            options = [Option(f"{i}  {text}", id=value) for i, (value, text) in enumerate(self._choices, start=1)]
            yield OptionList(*options, markup=False)

    def on_mount(self) -> None:
        values = [value for value, _ in self._choices]
        options = self.query_one(OptionList)
        options.highlighted = values.index(self._current) if self._current in values else 0
        options.focus()

    def on_key(self, event: events.Key) -> None:
        number = event.character or ""
        if number.isdecimal() and number.isascii():
            event.stop()
            if 1 <= int(number) <= len(self._choices):
                self.answer(self._choices[int(number) - 1][0])

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        self.answer(event.option_id or "")

    def action_none(self) -> None:
        self.answer("")


class Pick(Asking["frozenset[str] | None"]):
    """Any number of them, by space; None: nothing is changed."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter,c", "done", "done", priority=True, id="done"),
        Binding("escape,q", "none", "cancel", id="none"),
    ]

    def __init__(self, question: str, choices: Sequence[tuple[str, str]], picked: frozenset[str]) -> None:
        super().__init__()
        self._question = question
        self._choices = choices
        self._picked = picked

    def compose(self) -> ComposeResult:
        with Vertical(id="dialog"):
            yield Static(self._question, id="question", markup=False)
            yield SelectionList[str](*((text, value, value in self._picked) for value, text in self._choices))
            yield Static("space  choose    enter  done    esc  leave as it is", id="answers", markup=False)

    def on_mount(self) -> None:
        self.query_one(SelectionList).focus()

    def action_done(self) -> None:
        self.answer(frozenset(self.query_one(SelectionList).selected))

    def action_none(self) -> None:
        self.answer(None)
