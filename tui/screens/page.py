"""What all screens are: title, numbers of the others, their own body, keys; and a card when there is no room."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from textual.containers import Container
from textual.widgets import Static

from .. import bindings, words
from ..cells import clipped
from ..lens import Lens, fault
from ..widgets.canvas import Lines
from ..widgets.dialogs import Pick
from ..widgets.finder import FILTER, GO, Finder
from ..widgets.keys import Keys, Tabs
from ..widgets.rows import Rows
from .base import Looking

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from textual.app import ComposeResult
    from textual.binding import BindingType
    from textual.widget import Widget

    from ..cells import Line
    from ..columns import Sheet
    from ..state import State

T = TypeVar("T")


class Page(Looking):
    number: ClassVar[int] = 0  # of its tab
    AUTO_FOCUS = "Rows"
    finder: Finder | None = None  # until it is composed

    def compose(self) -> ComposeResult:
        yield Lines(id="top")
        yield Tabs(bindings.NAMES, self.number, self.monitor.symbols.rule)
        with Container(id="body"):
            yield from self.body()
        self.finder = Finder()
        yield self.finder
        yield Keys()
        yield Static("", id="small", markup=False)

    @property
    def is_typing(self) -> bool:
        return self.finder is not None and self.finder.display

    def body(self) -> Iterable[Widget]:
        """What is between the tabs and the keys."""
        raise NotImplementedError

    def show_body(self, state: State) -> None:
        raise NotImplementedError

    def top_lines(self, state: State, width: int) -> list[Line]:
        """Below the title; on a large screen the body has it all."""
        return []

    def paint(self) -> None:
        state = self.monitor.shown
        self.show_top(self.top_lines(state, self.size.width))
        self.show_body(state)

    async def on_tabs_pressed(self, event: Tabs.Pressed) -> None:
        await self.monitor.action_page(event.number + 1)

    # what is typed at the bottom

    def ask_where(self) -> None:
        """To which request or model to go."""
        self.query_one(Finder).open(GO)

    def on_finder_went(self, event: Finder.Went) -> None:
        self.monitor.go_to(event.name)

    def on_finder_left(self, event: Finder.Left) -> None:
        if self.focused is None:
            self.focus_body()

    def on_resize(self, event: Any) -> None:
        if self.is_small:
            self.query_one(Finder).close_line(undo=False)

    def focus_body(self) -> None:
        """To the table."""
        for rows in self.query("#body Rows").results(Rows):
            if rows.can_focus:
                rows.focus()
                return


class TablePage(Page, Generic[T]):
    """A screen around one table, which can be filtered and sorted, and whose columns can be chosen."""

    BINDINGS: ClassVar[list[BindingType]] = [*bindings.TABLE]
    what: ClassVar[str] = "rows"
    empty: ClassVar[str] = "nothing"

    def __init__(self) -> None:
        super().__init__()
        self.lens = Lens()
        self.counts = 0, 0  # rows that are seen, of all

    def sheet(self) -> Sheet[T]:
        raise NotImplementedError

    def rows_of(self, state: State) -> Sequence[T]:
        raise NotImplementedError

    def main_table(self) -> Iterable[Widget]:
        yield Lines(id="heading", classes="heading")
        yield Rows[T](self.sheet(), self.monitor.symbols, empty=self.empty, id="table")

    @property
    def table(self) -> Rows[T]:
        return self.query_one("#table", Rows)

    def show_body(self, state: State) -> None:
        rows = list(self.rows_of(state))
        table = self.table
        seen = self.lens.look(rows, table.sheet, table.symbols)
        table.show(seen, self.lens)
        self.counts = len(seen), len(rows)
        self.show_heading(*self.counts)

    def show_heading(self, n_shown: int, n_all: int) -> None:
        count = f"{n_all}" if n_shown == n_all else f"{n_shown} of {n_all}"
        line: list[tuple[str, str]] = [(f" {self.what} {count}", "title")]
        if self.lens.pattern:
            wrong = fault(self.lens.pattern)
            line.append((f"   filter /{self.lens.pattern}", "accent"))
            line.append((f" {wrong}", "fail") if wrong else (" (esc: all)", "dim"))
        if self.lens.only is not None:
            line.append((f"   only {self.lens.only[0]} {self.lens.only[1]}", "accent"))
            line.append((" (esc: all)", "dim"))
        if self.lens.sorted_by:
            arrow = self.table.symbols.down if self.lens.reverse else self.table.symbols.up
            line.append((f"   sorted by {self.lens.sorted_by} {arrow}", "dim"))
        whole = clipped([(words.plain(text), style) for text, style in (*line, *self.heading_extra())], self.size.width)
        self.query_one("#heading", Lines).show([whole])

    def heading_extra(self) -> list[tuple[str, str]]:
        return []

    def action_filter(self) -> None:
        self.query_one(Finder).open(FILTER, self.lens.pattern)

    def on_finder_typed(self, event: Finder.Typed) -> None:
        self.lens = replace(self.lens, pattern=event.pattern)
        self.show()

    def on_finder_left(self, event: Finder.Left) -> None:
        if event.undo:
            self.lens = replace(self.lens, pattern="")
        self.show()

    def show_only(self, key: str, text: str) -> None:
        """Rows that have this in a column, and no others."""
        self.lens = replace(self.lens, only=(key, text), pattern="")
        self.show()

    def action_back(self) -> None:
        """Out of a filter, then out of a sorting."""
        filtered = self.lens.pattern or self.lens.only
        self.lens = replace(self.lens, pattern="", only=None) if filtered else Lens()
        self.show()

    def action_sort(self) -> None:
        self.lens = self.lens.sort_next(self.table.sheet, self.table.shown)
        self.show()

    def action_reverse(self) -> None:
        self.lens = replace(self.lens, reverse=not self.lens.reverse)
        self.show()

    def on_rows_head_clicked(self, event: Rows.HeadClicked) -> None:
        self.lens = self.lens.sort_by(event.key)
        self.show()

    def action_columns(self) -> None:
        sheet = self.table.sheet
        choices = [(column.key, column.title.capitalize()) for column in sheet.columns]
        shown = frozenset(key for key, _ in choices) - sheet.hidden
        self.app.push_screen(Pick("Which columns, where there is room for them?", choices, shown), self._choose)

    def _choose(self, picked: frozenset[str] | None) -> None:
        if picked:
            sheet = self.table.sheet
            self.table.use(replace(sheet, hidden=frozenset(column.key for column in sheet.columns) - picked))
            self.show()

    def action_copy(self) -> None:
        if self.table.current is not None:
            self.monitor.copy(self.copied(self.table.current))

    def copied(self, row: T) -> str:
        """What `y` takes of a row: its name."""
        return self.table.sheet.key(row)
