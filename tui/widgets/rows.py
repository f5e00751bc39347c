"""A table of many rows of which only the visible ones are ever made into text."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar

from textual.geometry import Size
from textual.message import Message

from ..bindings import MOVES
from ..cells import text_of
from ..columns import column_at, head_line, lay_out, row_line
from .canvas import Canvas

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from textual import events
    from textual.binding import BindingType

    from ..cells import Line
    from ..columns import Layout, Sheet
    from ..lens import Lens
    from ..symbols import Symbols

T = TypeVar("T")
MARGIN = 2  # cells before each row, for the cursor and the mark


class Rows(Canvas, Generic[T], can_focus=True):
    """The cursor stays on its row wherever that moves. `end`: new rows come at the end, and the cursor follows them."""

    BINDINGS: ClassVar[list[BindingType]] = [*MOVES]

    class Moved(Message):
        """The cursor is on another row."""

    class Chosen(Message):
        """A row was clicked twice."""

    class HeadClicked(Message):
        """A title was clicked."""

        def __init__(self, key: str) -> None:
            super().__init__()
            self.key = key

    def __init__(self, sheet: Sheet[T], symbols: Symbols, *, empty: str = "", id: str | None = None) -> None:
        super().__init__(id=id)
        self.sheet = sheet
        self.symbols = symbols
        self.empty = empty  # what an empty table says
        self.rows: Sequence[T] = ()
        self.marks: Callable[[str], bool] = lambda key: False
        self.at = 0  # the row of the cursor
        self.displaced_s = float("-inf")  # when the cursor last was moved to another row by nobody
        self._lens: Lens | None = None
        self._key = ""  # of that row
        self._layout: Layout = ()

    # what is shown

    def show(self, rows: Sequence[T], lens: Lens | None = None) -> None:
        """Other rows, or the same ones with other figures."""
        n_before, in_view = len(self.rows), self._in_view(self.at)
        self.rows, self._lens = rows, lens
        if len(rows) != n_before:
            self.virtual_size = Size(self.size.width, len(rows) + 1)
        self._find_cursor(in_view)
        self.repaint()

    def use(self, sheet: Sheet[T]) -> None:
        """Other columns."""
        self.sheet = sheet
        self._lay_out()
        self.repaint_all()

    def _lay_out(self) -> None:
        self._layout = lay_out(self.sheet, self.scrollable_content_region.width - MARGIN)

    @property
    def shown(self) -> tuple[str, ...]:
        """The columns that there is room for."""
        return tuple(column.key for column, _ in self._layout)

    @property
    def in_view(self) -> bool:
        """Whether the cursor is seen; a table that has no size yet says nothing about that."""
        return self.size.height <= 1 or self._in_view(self.at)

    @property
    def current(self) -> T | None:
        return self.rows[self.at] if self.rows else None

    def select(self, key: str) -> bool:
        """The cursor to the row of that key; False when there is none."""
        for i, row in enumerate(self.rows):
            if self.sheet.key(row) == key:
                self._go(i)
                return True
        return False

    def _find_cursor(self, in_view: bool) -> None:
        """Where its row is now; when that is gone, the one that took its place."""
        before, rows = self._key, self.rows
        if not rows:
            self.at = 0  # whose row it was is kept: what comes next is another one
        elif not (self.at < len(rows) and self.sheet.key(rows[self.at]) == before):
            found = next((i for i, row in enumerate(rows) if self.sheet.key(row) == before), None)
            self.at = min(self.at, len(rows) - 1) if found is None else found
            self._key = self.sheet.key(rows[self.at])
            if found is None and before:
                self.displaced_s = time.monotonic()
        if rows and in_view:
            self._into_view()
        if self._key != before or not rows:
            self.post_message(self.Moved())

    # lines

    def line_at(self, y: int) -> Line:
        if y == 0:
            lens = self._lens
            by, reverse = ("", False) if lens is None else (lens.sorted_by, lens.reverse)
            return ((" " * MARGIN, "head"), *head_line(self._layout, self.symbols, sorted_by=by, reverse=reverse))
        number = self.content_line(y) - 1
        if number >= len(self.rows):
            return ((" " * MARGIN + self.empty, "dim"),) if number == 0 else ()
        return self._row_line(number)

    def content_line(self, y: int) -> int:
        return y + round(self.scroll_y) if y else 0

    def _row_line(self, number: int) -> Line:
        row = self.rows[number]
        here, marked = number == self.at and self.has_focus, self.marks(self.sheet.key(row))
        margin = (self.symbols.cursor if here else " ") + (self.symbols.mark if marked else " ")
        line = ((margin, "accent"), *row_line(row, self._layout, self.symbols))
        if here or marked:
            return tuple((text, "cursor" if here else "marked") for text, _ in line)
        return line

    def all_text(self) -> str:
        head = " " * MARGIN + text_of(head_line(self._layout, self.symbols))
        return "\n".join([head, *(text_of(self._row_line(i)) for i in range(len(self.rows)))])

    def on_resize(self) -> None:
        self._lay_out()
        self.virtual_size = Size(self.size.width, len(self.rows) + 1)
        self._into_view()

    # the cursor, which is seen where keys go

    def watch_has_focus(self, has_focus: bool) -> None:
        super().watch_has_focus(has_focus)
        self.repaint()

    @property
    def _n_visible(self) -> int:
        return max(1, self.size.height - 1)

    def _in_view(self, number: int) -> bool:
        return 0 <= number - round(self.scroll_y) < self._n_visible

    def _into_view(self) -> None:
        top = round(self.scroll_y)
        if self.at < top:
            self.scroll_to(y=self.at, animate=False, force=True, immediate=True)
        elif self.at >= top + self._n_visible:
            self.scroll_to(y=self.at - self._n_visible + 1, animate=False, force=True, immediate=True)

    def _go(self, number: int) -> None:
        if not self.rows:
            return
        self.at = min(max(0, number), len(self.rows) - 1)
        key = self.sheet.key(self.rows[self.at])
        if key != self._key:
            self._key = key
            self.post_message(self.Moved())
        self._into_view()
        self.repaint()

    def action_move(self, n: int) -> None:
        self._go(self.at + n)

    def action_page(self, n: int) -> None:
        self._go(self.at + n * self._n_visible)

    def action_edge(self, number: int) -> None:
        self._go(len(self.rows) - 1 if number < 0 else number)

    def on_click(self, event: events.Click) -> None:
        event.prevent_default()  # a double click would select all of the text
        offset = event.get_content_offset(self)
        if offset is None or not self.can_focus:
            return
        if offset.y == 0:
            column = column_at(self._layout, offset.x - MARGIN)
            if column is not None:
                self.post_message(self.HeadClicked(column.key))
            return
        number = self.content_line(offset.y) - 1
        if number < len(self.rows):
            self._go(number)
            if event.chain == 2:
                self.post_message(self.Chosen())
