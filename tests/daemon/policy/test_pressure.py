"""Grades go up at once and come down slowly."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from inferd.daemon.policy.pressure import CALM_S, Grade, Pressure

THRESHOLDS = (10.0, 20.0, 40.0, 60.0)


def test_each_threshold_is_a_grade() -> None:
    for psi, grade in ((0.0, 0), (9.9, 0), (10.0, 1), (25.0, 2), (40.0, 3), (99.0, 4)):
        assert Pressure(THRESHOLDS).on_reading(psi, 0.0) == grade


def test_no_reading_is_no_pressure() -> None:
    assert Pressure(THRESHOLDS).on_reading(None, 0.0) is Grade.NORMAL


def test_it_comes_down_one_grade_after_each_calm_time() -> None:
    pressure = Pressure(THRESHOLDS)
    pressure.on_reading(99.0, 0.0)
    assert pressure.on_reading(0.0, 1.0) is Grade.REFUSE
    assert pressure.on_reading(0.0, 1.0 + CALM_S) is Grade.SHED_BATCH
    assert pressure.on_reading(0.0, 2.0 + CALM_S) is Grade.SHED_BATCH
    assert pressure.on_reading(0.0, 1.0 + 2 * CALM_S) is Grade.NO_LOADS


def test_a_new_peak_starts_the_calm_time_again() -> None:
    pressure = Pressure(THRESHOLDS)
    pressure.on_reading(25.0, 0.0)
    pressure.on_reading(0.0, 1.0)
    pressure.on_reading(25.0, 9.0)
    assert pressure.on_reading(0.0, 12.0) is Grade.NO_LOADS


@given(st.lists(st.floats(0, 100), min_size=1, max_size=60))
def test_it_is_never_below_what_is_read(readings: list[float]) -> None:
    pressure = Pressure(THRESHOLDS)
    for second, psi in enumerate(readings):
        grade = pressure.on_reading(psi, float(second))
        assert grade >= sum(psi >= threshold for threshold in THRESHOLDS)
