"""Columns of a table: what each shows, how it sorts, and which of them fit into a width."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from .cells import fit

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .cells import Cell, Line
    from .symbols import Symbols

T = TypeVar("T")
GAP = 1  # cells between two columns


@dataclass(frozen=True)
class Column(Generic[T]):
    """`key` names it for good: sorting and choosing go by it. Those with a higher `rank` leave a narrow table first."""

    key: str
    title: str
    width: int  # the least
    cell: Callable[[T, Symbols], Cell]
    sort: Callable[[T], Any]  # None: not known
    right: bool = False
    rank: int = 0
    grow: int = 0  # cells beyond `width` that it may take where there is room


@dataclass(frozen=True)
class Sheet(Generic[T]):
    """The columns of one kind of row, and who a row is."""

    columns: tuple[Column[T], ...]
    key: Callable[[T], str]
    order: Callable[[T], Any]  # of rows that nobody sorts
    hidden: frozenset[str] = field(default_factory=frozenset)  # columns that nobody wants to see

    def column(self, key: str) -> Column[T] | None:
        return next((column for column in self.columns if column.key == key), None)

    def text(self, row: T, symbols: Symbols) -> str:
        """All that a row says, for a filter."""
        return " ".join(column.cell(row, symbols)[0] for column in self.columns)


Layout = tuple[tuple[Column[Any], int], ...]


def lay_out(sheet: Sheet[T], width: int) -> Layout:
    """(column, its width), in order: as many as fit, the least needed leave first; what is left over is given out."""
    kept = [column for column in sheet.columns if column.key not in sheet.hidden]
    while len(kept) > 1 and sum(c.width + GAP for c in kept) - GAP > width:
        last = max(range(len(kept)), key=lambda i: (kept[i].rank, i))
        del kept[last]
    for column in sorted(sheet.columns, key=lambda c: c.rank):  # a wide one may have made room for others
        left = width - sum(c.width + GAP for c in kept)
        if column not in kept and column.key not in sheet.hidden and column.width <= left:
            kept.append(column)
    kept.sort(key=sheet.columns.index)
    widths = {c.key: c.width for c in kept}
    left = width - sum(c.width + GAP for c in kept) + GAP
    for column in sorted(kept, key=lambda c: c.rank):
        more = min(max(0, left), column.grow)
        widths[column.key] += more
        left -= more
    return tuple((column, widths[column.key]) for column in kept)


def head_line(layout: Layout, symbols: Symbols, *, sorted_by: str = "", reverse: bool = False) -> Line:
    """The titles; the one that is sorted by has an arrow."""
    cells: list[Cell] = []
    for column, width in layout:
        arrow = symbols.down if reverse else symbols.up
        title = f"{column.title}{arrow}" if column.key == sorted_by else column.title
        style = "accent" if column.key == sorted_by else "head"
        cells += [(fit(title, width, symbols, right=column.right), style), (" " * GAP, "")]
    return tuple(cells[:-1])


def row_line(row: Any, layout: Layout, symbols: Symbols) -> Line:
    cells: list[Cell] = []
    for column, width in layout:
        text, style = column.cell(row, symbols)
        cells += [(fit(text, width, symbols, right=column.right), style), (" " * GAP, "")]
    return tuple(cells[:-1])


def column_at(layout: Layout, x: int) -> Column[Any] | None:
    """The column whose title is at `x`."""
    start = 0
    for column, width in layout:
        if start <= x < start + width + GAP:
            return column
        start += width + GAP
    return None


def table(sheet: Sheet[T], rows: Sequence[T], width: int, symbols: Symbols) -> list[Line]:
    """A whole table as lines."""
    layout = lay_out(sheet, width)
    return [head_line(layout, symbols), *(row_line(row, layout, symbols) for row in rows)]
