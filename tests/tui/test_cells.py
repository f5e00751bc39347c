from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from inferd.tui import cells
from inferd.tui.symbols import ASCII, UNICODE, Symbols

SETS = pytest.mark.parametrize("symbols", [UNICODE, ASCII], ids=["unicode", "ascii"])
SHARES = st.lists(st.tuples(st.floats(allow_nan=True, allow_infinity=True), st.just("bar")), max_size=3)


@given(st.text(), st.integers(0, 40), st.booleans())
def test_text_is_made_to_fit_exactly(text: str, width: int, right: bool) -> None:
    assert cell_len(cells.fit(text, width, UNICODE, right=right)) == width


def test_what_is_cut_off_shows() -> None:
    assert cells.fit("llama3-70b-q4", 8, UNICODE) == "llama3-…"
    assert cells.fit("llama3-70b-q4", 8, ASCII) == "llama3-~"
    assert cells.fit("7", 3, UNICODE, right=True) == "  7"


def test_wide_signs_take_two_cells() -> None:
    assert cells.fit("日本語", 6, UNICODE) == "日本語"
    assert cell_len(cells.fit("日本語", 5, UNICODE)) == 5


@given(st.lists(st.text(max_size=12), max_size=6), st.integers(0, 30))
def test_a_clipped_line_is_no_longer_than_its_limit(texts: list[str], width: int) -> None:
    line = tuple((text, "") for text in texts)
    clipped = cells.clipped(line, width)
    assert cells.width_of(clipped) <= width
    assert cells.width_of(line) < width or cells.width_of(clipped) == min(width, cells.width_of(line))


def test_both_ends_of_a_line() -> None:
    assert cells.text_of(cells.spread([("left", "")], [("right", "")], 12)) == "left   right"
    assert cells.text_of(cells.spread([("left", "")], [("right", "")], 9)) == "left"


@given(st.text(max_size=200), st.integers(1, 30))
def test_a_sentence_is_broken_into_lines_that_fit(text: str, width: int) -> None:
    lines = cells.wrapped(text, width)
    assert all(cells.width_of(line) <= max(width, 2) for line in lines)


def test_a_sentence_is_broken_between_words() -> None:
    assert [cells.text_of(line) for line in cells.wrapped("all 4 slots are taken", 11)] == ["all 4 slots", "are taken"]


@SETS
@given(shares=SHARES, width=st.integers(2, 40))
def test_a_bar_has_its_width_whatever_it_shows(symbols: Symbols, shares: list[tuple[float, str]], width: int) -> None:
    assert cells.width_of(cells.bar(width, shares, symbols)) == width


def test_a_bar_shows_eighths() -> None:
    assert cells.text_of(cells.bar(6, [(0.5, "bar")], UNICODE)) == "▕██  ▏"
    assert cells.text_of(cells.bar(6, [(0.625, "bar")], UNICODE)) == "▕██▌ ▏"
    assert cells.text_of(cells.bar(6, [(1.0, "bar")], UNICODE)) == "▕████▏"
    assert cells.text_of(cells.bar(6, [(0.5, "bar"), (0.25, "bar-other")], ASCII)) == "[##= ]"


def test_a_little_is_not_nothing_in_a_bar() -> None:
    assert cells.text_of(cells.bar(12, [(0.001, "bar")], UNICODE)) != cells.text_of(cells.bar(12, [], UNICODE))


@SETS
@given(values=st.lists(st.floats(0, 1e6), max_size=50), width=st.integers(1, 30))
def test_a_spark_has_its_width(symbols: Symbols, values: list[float], width: int) -> None:
    assert cell_len(cells.spark(values, width, symbols)) == width


def test_a_spark_rises() -> None:
    assert cells.spark([0, 1, 2, 4], 4, UNICODE) == "▁▃▅█"
    assert cells.spark([1, 1], 4, UNICODE, highest=2) == "  ▅▅"
    assert cells.spark([0, 0], 2, UNICODE) == "▁▁"


@SETS
@given(values=st.lists(st.floats(0, 1e5), max_size=100), width=st.integers(1, 20), height=st.integers(1, 6))
def test_a_chart_has_its_size(symbols: Symbols, values: list[float], width: int, height: int) -> None:
    rows = cells.chart(values, width, height, symbols, highest=cells.nice(max(values, default=0.0)))
    assert [cell_len(row) for row in rows] == [width] * height


def test_a_chart_is_an_area_with_the_newest_at_the_right() -> None:
    rows = cells.chart([0, 0, 8, 8], 3, 2, UNICODE, highest=8)
    assert [row[2] for row in rows] == ["⣿", "⣿"]
    assert rows[0][0] == " "


@given(st.floats(1e-6, 1e12))
def test_an_axis_ends_above_what_it_shows_and_not_far(highest: float) -> None:
    end = cells.nice(highest)
    assert highest * 0.99 <= end <= highest * 10.01
    assert round(end / 10 ** math.floor(math.log10(end)), 6) in (1, 2, 5, 10)
