"""How many rows of prompts a step may have, by what was measured."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.backends.llama.pace import BLOCK, CHUNKS, DOUBT, STALL, Pace


def measured(call_ms: dict[int, float], flow_ms: float | None = None) -> Pace:
    pace = Pace()
    pace.call_ms, pace.flow_ms = call_ms, flow_ms
    return pace


@pytest.mark.parametrize(
    ("n_rows", "row_ms", "expected"),
    [(63, None, False), (64, None, True), (64, 1.0, False), (512, 1.0, True), (8, 50.0, False)],
)
def test_long_is_a_prompt_that_takes_long(n_rows: int, row_ms: float | None, expected: bool) -> None:
    assert measured({} if row_ms is None else {64: 64 * row_ms}).is_long(n_rows) is expected


@pytest.mark.parametrize(
    ("row_ms", "budget_ms", "expected"),
    [
        (None, None, 512),
        (None, 25.0, 64),
        (0.5, None, 512),
        (10.0, None, 256),
        (100.0, None, 64),
        (2.0, 100.0, 64),
        (0.5, 100.0, 128),
        (0.5, 128.0, 256),
        (0.001, 25.0, 512),
    ],
)
def test_the_chunk_is_the_largest_within_the_budget(
    row_ms: float | None, budget_ms: float | None, expected: int
) -> None:
    assert measured({} if row_ms is None else {64: 64 * row_ms}).chunk(512, budget_ms) == expected


def test_each_size_is_measured_for_itself() -> None:
    pace = measured({64: 20.0, 512: 120.0})
    assert [pace.chunk(512, budget_ms) for budget_ms in (25.0, 45.0, 70.0, 125.0)] == [64, 128, 256, 512]
    assert pace.predict_ms(64) == 20.0
    assert pace.predict_ms(256) == 60.0


@pytest.mark.parametrize("budget_ms", [None, 1.0])
def test_the_chunk_fits_the_ubatch(budget_ms: float | None) -> None:
    assert Pace().chunk(256, None) == 256
    assert measured({64: 1e-3}).chunk(128, 50.0) == 128
    assert Pace().chunk(64, budget_ms) == 64


def test_the_gap_beside_a_prompt_is_measured_by_the_gap_without() -> None:
    pace = Pace()
    for _ in range(50):
        pace.note(7, 0, 10.0)
    assert pace.stall_ms() == pytest.approx(STALL * 10.0)
    pace.note(7, 3, 500.0)  # a few rows of a prompt say nothing
    assert pace.stall_ms() == pytest.approx(STALL * 10.0)
    assert pace.predict_ms(64) is None


def test_few_rows_that_look_at_many_cells_are_filled_up_where_that_is_faster() -> None:
    pace = measured({64: 20.0})
    assert not pace.pads(64, 64 * 4000)
    assert [pace.pads(50, 50 * n_cells) for n_cells in (0, 511, 512)] == [False, False, True]
    pace.note_short(32, 32 * 1000, 110.0)  # 10 ms as in a call of 64, and 100 for looking at 32,000 cells
    assert [pace.pads(n_rows, n_rows * 2000) for n_rows in (2, 5, 40)] == [False, True, True]
    assert not pace.pads(40, 0)
    pace.note_short(32, 32 * 10, 500.0)  # a slow one that looked at little is none of attention's doing
    assert not pace.pads(2, 2 * 2000)
    for _ in range(30):
        pace.note_short(32, 32 * 1000, 10.0)  # a model that does not care
    assert not pace.pads(60, 60 * 2000)


def test_what_was_long_ago_is_doubted_but_never_free() -> None:
    pace = Pace()
    pace.note(3, 0, 10.0)
    for _ in range(2000):
        pace.note(1, 0, 5.0)
    assert pace.flow_rows_ms(1) == pytest.approx(5.0)
    assert pace.flow_rows_ms(3) == pytest.approx(10.0 * 0.999**2000)
    pace._n_calls += 10**6
    assert pace.flow_rows_ms(3) == pytest.approx(1.0)


def test_a_budget_of_nothing_is_no_licence() -> None:
    assert measured({64: 1.0}).chunk(512, 0.0) == 64


def test_nothing_is_filled_up_before_anything_is_known() -> None:
    assert not Pace().pads(50, 50 * 2000)


@given(st.lists(st.tuples(st.integers(BLOCK, 512), st.floats(0.01, 1e4)), min_size=1), st.integers(1, 512))
def test_a_forecast_lies_within_what_was_measured_by_the_row(calls: list[tuple[int, float]], n_rows: int) -> None:
    pace = Pace()
    for n, took_ms in calls:
        pace.note(n, n, took_ms)
    row_ms = [took_ms / n for n, took_ms in calls]
    predicted_ms = pace.predict_ms(n_rows)
    assert predicted_ms is not None
    assert min(row_ms) * 0.999 <= predicted_ms / n_rows <= max(row_ms) * 1.001
    assert set(pace.call_ms) <= set(CHUNKS)


def test_what_was_measured_grows_old_while_nothing_is_called() -> None:
    pace = Pace()
    pace.note(1, 0, 10.0)
    for _ in range(1000):
        pace.passed()
    assert pace.flow_rows_ms(1) == pytest.approx(10.0 * DOUBT**1000)


def test_a_call_takes_no_longer_than_one_of_more_rows() -> None:
    pace = Pace()
    pace.note(1, 0, 100.0)  # something disturbed it
    pace.note(4, 0, 12.0)
    assert pace.flow_rows_ms(1) == pytest.approx(12.0)
    assert pace.flow_rows_ms(5) == pytest.approx(13.2)
