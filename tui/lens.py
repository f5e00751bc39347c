"""Which rows of a table are seen, and in which order."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .columns import Sheet
    from .symbols import Symbols

T = TypeVar("T")
SEARCHED = 400  # signs of a row
# What makes a search exponential, and the monitor deaf while it goes on.
NESTED = re.compile(r"[+*}][^()]*\)[+*{]")


@dataclass(frozen=True, slots=True)
class Lens:
    """`pattern`: a regular expression over all columns of a row, in any case; `!` before it turns it round."""

    sorted_by: str = ""  # a column's key; empty: the sheet's own order
    reverse: bool = False
    pattern: str = ""
    only: tuple[str, str] | None = None  # a column's key, and what a row has to have there

    def look(self, rows: Iterable[T], sheet: Sheet[T], symbols: Symbols) -> list[T]:
        """The rows that pass, sorted; a pattern that is none lets everything pass."""
        seen = list(rows)
        if self.only is not None and (column := sheet.column(self.only[0])) is not None:
            seen = [row for row in seen if column.cell(row, symbols)[0] == self.only[1]]
        if self.pattern and (match := compiled(self.pattern)) is not None:
            keep, expression = match
            seen = [row for row in seen if bool(expression.search(sheet.text(row, symbols)[:SEARCHED])) is keep]
        seen.sort(key=sheet.order)
        if (column := sheet.column(self.sorted_by)) is not None:
            known = [row for row in seen if column.sort(row) is not None]
            unknown = [row for row in seen if column.sort(row) is None]  # last, whatever the direction
            seen = [*sorted(known, key=column.sort, reverse=self.reverse), *unknown]
        return seen

    def sort_next(self, sheet: Sheet[T], shown: Iterable[str]) -> Lens:
        """By the next of the columns that are shown; after the last one in the sheet's own order again."""
        keys = ["", *shown]
        at = keys.index(self.sorted_by) if self.sorted_by in keys else 0
        return replace(self, sorted_by=keys[(at + 1) % len(keys)], reverse=False)

    def sort_by(self, key: str) -> Lens:
        """Once more by the same column turns the direction."""
        return replace(self, sorted_by=key, reverse=not self.reverse if key == self.sorted_by else False)


def compiled(pattern: str) -> tuple[bool, re.Pattern[str]] | None:
    """(matches are kept, the expression); None when it is none, or not yet while it is typed."""
    keep = not pattern.startswith("!")
    text = pattern if keep else pattern[1:]
    return (keep, re.compile(text, re.IGNORECASE)) if text and not fault(pattern) else None


def fault(pattern: str) -> str:
    """What is wrong with a pattern, in a few words; empty when nothing is."""
    text = pattern.removeprefix("!")
    if NESTED.search(text):
        return "a repeated group that repeats something may take for ever"
    try:
        re.compile(text, re.IGNORECASE)
    except re.error as error:
        return str(error)
    return ""
