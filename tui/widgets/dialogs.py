"""Questions over a screen: one to say yes to, one to choose from, one to pick several of."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import OptionList, SelectionList, Static
from textual.widgets.option_list import Option

from .canvas import Lines

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual.app import ComposeResult
    from textual.binding import BindingType

    from ..cells import Line


class Confirm(ModalScreen[bool]):
    """Asks once before something ends."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y,enter", "answer(True)", "Yes", id="yes"),
        Binding("n,escape,q", "answer(False)", "No", id="no"),
    ]

    def __init__(self, question: str, lines: Sequence[Line] = (), yes: str = "yes") -> None:
        super().__init__()
        self._question = question
        self._lines = lines
        self._yes = yes

    def compose(self) -> ComposeResult:
        with Vertical(id="dialog"):
            yield Static(self._question, id="question", markup=False)
            details = Lines(id="details")
            details.show(self._lines)
            details.display = bool(self._lines)
            yield details
            yield Static(f"y  {self._yes}    n  no", id="answers", markup=False)

    def action_answer(self, yes: bool) -> None:
        self.dismiss(yes)


class Note(ModalScreen[None]):
    """Something to read; any of the keys below ends it."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,enter,question_mark", "close", "Close", id="close")]

    def __init__(self, heading: str, lines: Sequence[Line]) -> None:
        super().__init__()
        self._heading = heading
        self._lines = lines

    def compose(self) -> ComposeResult:
        with Vertical(id="dialog", classes="tall"):
            yield Static(self._heading, id="question", markup=False)
            lines = Lines(id="text")
            lines.can_focus = True
            lines.show(self._lines)
            yield lines
            yield Static("esc  close", id="answers", markup=False)

    def action_close(self) -> None:
        self.dismiss(None)


class Choose(ModalScreen[str]):
    """One of a few; the keys 1, 2, 3 choose at once. An empty answer is none."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q", "none", "Cancel", id="none")]

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

    def on_key(self, event: object) -> None:
        number = getattr(event, "character", None) or ""
        if number.isdigit() and 1 <= int(number) <= len(self._choices):
            self.dismiss(self._choices[int(number) - 1][0])

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(event.option_id or "")

    def action_none(self) -> None:
        self.dismiss("")


class Pick(ModalScreen["frozenset[str] | None"]):
    """Any number of them, by space; None: nothing is changed."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter,c", "done", "Done", priority=True, id="done"),
        Binding("escape,q", "none", "Cancel", id="none"),
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
        self.dismiss(frozenset(self.query_one(SelectionList).selected))

    def action_none(self) -> None:
        self.dismiss(None)
