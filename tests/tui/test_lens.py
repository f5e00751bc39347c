from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.tests.tui.test_columns import SHEET, Row
from inferd.tui.lens import Lens, compiled, fault
from inferd.tui.symbols import UNICODE

ROWS: list[Row] = [("web", 3), ("ide", 1), ("nightly", 2)]


def names(lens: Lens, rows: list[Row] = ROWS) -> list[str]:
    return [row[0] for row in lens.look(rows, SHEET, UNICODE)]


def test_without_a_wish_rows_are_in_the_sheets_own_order() -> None:
    assert names(Lens()) == ["ide", "nightly", "web"]


def test_a_pattern_keeps_what_it_finds_in_any_column() -> None:
    assert names(Lens(pattern="NIGHT|^web")) == ["nightly", "web"]
    assert names(Lens(pattern="3$")) == ["web"]


def test_an_exclamation_mark_keeps_the_others() -> None:
    assert names(Lens(pattern="!web|ide")) == ["nightly"]


@pytest.mark.parametrize("pattern", ["(", "!(", "[", "", "!"])
def test_a_pattern_that_is_none_yet_hides_nothing(pattern: str) -> None:
    assert compiled(pattern) is None
    assert len(names(Lens(pattern=pattern))) == 3


@pytest.mark.parametrize("pattern", [r"(\w+)+!", "!(a*)*b", "(x{2,}y)+"])
def test_a_pattern_that_could_search_for_ever_is_refused(pattern: str) -> None:
    assert "for ever" in fault(pattern)
    assert compiled(pattern) is None


def test_a_broken_pattern_says_what_is_wrong() -> None:
    assert "missing" in fault("!(")
    assert fault("a|b") == ""


def test_sorting_goes_through_the_columns_and_back() -> None:
    lens, seen = Lens(), []
    for _ in range(4):
        lens = lens.sort_next(SHEET, ["name", "size", "note"])
        seen.append(lens.sorted_by)
    assert seen == ["name", "size", "note", ""]


def test_the_same_title_again_turns_the_direction() -> None:
    lens = Lens().sort_by("size")
    assert names(lens) == ["ide", "nightly", "web"]
    assert names(lens.sort_by("size")) == ["web", "nightly", "ide"]
    assert names(lens.sort_by("size").sort_by("name")) == ["ide", "nightly", "web"]


@given(st.lists(st.tuples(st.text(max_size=5), st.integers(0, 9)), max_size=30), st.text(max_size=6), st.booleans())
def test_looking_invents_and_loses_nothing(rows: list[Row], pattern: str, reverse: bool) -> None:
    seen = Lens("size", reverse, pattern).look(rows, SHEET, UNICODE)
    assert all(rows.count(row) >= seen.count(row) for row in seen)
    assert [row[1] for row in seen] == sorted((row[1] for row in seen), reverse=reverse)
    if not pattern:
        assert sorted(seen) == sorted(rows)


def test_what_is_not_known_comes_last_in_both_directions() -> None:
    column = replace(SHEET.columns[2], sort=lambda row: row[1] or None)
    sheet = replace(SHEET, columns=(column,))
    rows: list[Row] = [("a", 0), ("b", 2), ("c", 1)]
    for reverse, order in ((False, ["c", "b", "a"]), (True, ["b", "c", "a"])):
        assert [row[0] for row in Lens("size", reverse).look(rows, sheet, UNICODE)] == order


def test_only_those_that_have_just_this_in_a_column() -> None:
    rows: list[Row] = [("web", 1), ("web2", 2)]
    assert names(Lens(only=("name", "web")), rows) == ["web"]
    assert names(Lens(only=("name", "2")), rows) == []
