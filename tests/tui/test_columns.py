from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from inferd.tui.cells import text_of
from inferd.tui.columns import GAP, Column, Sheet, column_at, head_line, lay_out, row_line, table
from inferd.tui.symbols import UNICODE

Row = tuple[str, int]
NAME = Column[Row]("name", "NAME", 6, lambda row, _: (row[0], "value"), lambda row: row[0], grow=10)
SIZE = Column[Row]("size", "SIZE", 5, lambda row, _: (str(row[1]), ""), lambda row: row[1], right=True, rank=1)
NOTE = Column[Row]("note", "NOTE", 8, lambda row, _: ("a note", "dim"), lambda row: "", rank=5, grow=4)
SHEET = Sheet[Row]((NAME, NOTE, SIZE), lambda row: row[0], lambda row: row[1])


def test_what_is_needed_least_leaves_a_narrow_table_first() -> None:
    assert [c.key for c, _ in lay_out(SHEET, 40)] == ["name", "note", "size"]
    assert [c.key for c, _ in lay_out(SHEET, 20)] == ["name", "size"]
    assert [c.key for c, _ in lay_out(SHEET, 3)] == ["name"]


@given(st.integers(0, 120))
def test_a_layout_fits_and_gives_no_more_than_wanted(width: int) -> None:
    layout = lay_out(SHEET, width)
    total = sum(w + GAP for _, w in layout) - GAP
    assert total <= max(width, NAME.width)
    assert all(c.width <= w <= c.width + c.grow for c, w in layout)


def test_a_hidden_column_is_not_there() -> None:
    assert [c.key for c, _ in lay_out(replace(SHEET, hidden=frozenset({"note"})), 80)] == ["name", "size"]


def test_titles_and_figures_stand_above_each_other() -> None:
    lines = [text_of(line) for line in table(SHEET, [("a", 7), ("long-name", 12345)], 20, UNICODE)]
    assert lines == ["NAME            SIZE", "a                  7", "long-name      12345"]


def test_a_wide_column_that_leaves_makes_room_for_others() -> None:
    wide = replace(NOTE, key="wide", width=30, rank=2)
    sheet = replace(SHEET, columns=(NAME, NOTE, wide, SIZE))
    assert [c.key for c, _ in lay_out(sheet, 60)] == ["name", "note", "wide", "size"]
    assert [c.key for c, _ in lay_out(sheet, 30)] == ["name", "note", "size"]


def test_the_title_that_is_sorted_by_has_an_arrow() -> None:
    layout = lay_out(SHEET, 40)
    assert "SIZE▲" in text_of(head_line(layout, UNICODE, sorted_by="size"))
    assert "SIZE▼" in text_of(head_line(layout, UNICODE, sorted_by="size", reverse=True))


def test_a_click_finds_its_column() -> None:
    layout = lay_out(SHEET, 40)
    line = text_of(head_line(layout, UNICODE))
    assert column_at(layout, line.index("NAME")) is NAME
    assert column_at(layout, line.index("SIZE")) is SIZE
    assert column_at(layout, 500) is None


def test_a_filter_sees_every_column_also_those_without_room() -> None:
    assert SHEET.text(("a", 7), UNICODE) == "a a note 7"
    assert SHEET.column("size") is SIZE
    assert SHEET.column("none") is None


def test_names_from_elsewhere_cannot_break_a_row() -> None:
    assert text_of(row_line(("a\nb\x1b[0m", 1), lay_out(SHEET, 20), UNICODE)).startswith("a b[0m")
