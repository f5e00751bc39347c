"""Paces, waits and intervals."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.daemon.policy.forecast import FEW, FLOW_S, GUESS, LEAST_S, OUTPUT_TOKENS, Flow, Interval, Pace, wait_ms

times = st.floats(0, 1e5, allow_nan=False)


def test_a_pace_is_unknown_until_something_finished() -> None:
    pace = Pace()
    assert (pace.known, pace.slot_ms(100, 100)) == (False, 0.0)
    pace.on_finished(100, 11, prefill_ms=50.0, decode_ms=100.0, max_tokens=11)
    assert pace.known
    assert pace.slot_ms(100, 10) == pytest.approx(150.0)


def test_an_answer_without_a_limit_is_expected_to_be_as_long_as_others_were() -> None:
    pace = Pace()
    assert pace.expected_output(None, room=10_000) == OUTPUT_TOKENS
    pace.on_finished(1, 40, 1.0, 1.0, max_tokens=None)
    assert pace.expected_output(None, room=10_000) == 40
    assert pace.expected_output(None, room=7) == 7


def test_an_answer_with_a_limit_is_expected_to_take_the_usual_share_of_it() -> None:
    pace = Pace()
    assert pace.expected_output(64, room=10_000) == 64
    pace.on_finished(1, 50, 1.0, 1.0, max_tokens=100)
    assert pace.expected_output(64, room=10_000) == 32


def test_a_prompt_is_estimated_from_its_bytes_with_the_measured_ratio() -> None:
    pace = Pace()
    assert pace.expected_prompt(1000) == 300
    pace.on_prompt(1000, 500)
    assert pace.expected_prompt(100) == 50
    assert pace.expected_prompt(0) == 1


def test_the_wait_is_until_the_first_slot_is_free_when_nobody_is_before() -> None:
    assert wait_ms([30.0, 10.0, 20.0], 0.0) == 10.0
    assert wait_ms([0.0, 10.0], 0.0) == 0.0
    assert wait_ms([], 5.0) == 0.0


def test_work_flows_into_the_slots_as_they_become_free() -> None:
    assert wait_ms([10.0, 20.0], 10.0) == 20.0
    assert wait_ms([10.0, 20.0], 30.0) == 30.0
    assert wait_ms([0.0] * 4, 100.0) == 25.0


@given(st.lists(times, min_size=1, max_size=8), times)
def test_the_level_takes_up_exactly_the_work(residuals: list[float], work: float) -> None:
    level = wait_ms(residuals, work)
    assert level >= min(residuals)
    poured = sum(max(0.0, level - residual) for residual in residuals)
    assert poured == pytest.approx(work, rel=1e-6, abs=1e-3)


def test_an_interval_is_a_guess_until_it_has_seen_some() -> None:
    interval = Interval()
    for _ in range(FEW - 1):
        interval.add(100.0, 1000.0)
    assert interval.around(100.0) == (100.0 * GUESS[0], 100.0 * GUESS[1])
    interval.add(100.0, 1000.0)
    assert interval.around(100.0) == (1000.0, 1000.0)


def test_an_interval_that_was_asked_before_hears_of_what_came_since() -> None:
    interval = Interval()
    for _ in range(FEW):
        interval.add(100.0, 100.0)
    assert interval.around(100.0) == (100.0, 100.0)
    for _ in range(1000):
        interval.add(100.0, 300.0)
    assert interval.around(100.0) == pytest.approx((300.0, 300.0))


@pytest.mark.parametrize("seed", range(5))
def test_four_of_five_outcomes_fall_into_the_interval(seed: int) -> None:
    draw = random.Random(seed)
    interval, inside = Interval(), 0
    for i in range(600):
        forecast = draw.uniform(10, 1000)
        outcome = forecast * draw.lognormvariate(0.3, 0.7)
        if i >= 300:
            low, high = interval.around(forecast)
            inside += low <= outcome <= high
        interval.add(forecast, outcome)
    assert 0.7 <= inside / 300 <= 0.9


def test_a_steady_flow_is_seen_as_it_is_from_the_beginning_on() -> None:
    flow = Flow(0.0)
    assert flow.rate(0.0) == 0.0
    for second in range(100):
        flow.add(200.0, float(second))
        if second > LEAST_S:
            assert flow.rate(float(second)) == pytest.approx(200.0, rel=0.35)
    assert flow.rate(99.0) == pytest.approx(200.0, rel=0.05)


def test_a_flow_that_ended_is_forgotten() -> None:
    flow = Flow(0.0)
    flow.add(1000.0, 0.0)
    assert flow.rate(1.0) <= 1000.0 / LEAST_S  # one request is not a flow
    assert flow.rate(5 * FLOW_S) < 1.0


def test_vectors_are_forecast_by_their_prompts_alone() -> None:
    pace = Pace()
    pace.on_finished(100, 0, 50.0, 0.0, 0)
    assert pace.known
    assert pace.slot_ms(200, 1) == 100.0
    assert pace.expected_output(0, 1000) == 1


def test_what_is_withdrawn_was_never_asked_for() -> None:
    flow, without = Flow(0.0), Flow(0.0)
    for it in (flow, without):
        it.add(500.0, 1.0)
    flow.add(3000.0, 2.0)
    flow.withdraw(3000.0, 2.0, 20.0)
    assert flow.rate(30.0) == pytest.approx(without.rate(30.0))
    flow.withdraw(1e9, 20.0, 30.0)
    assert flow.rate(30.0) == 0.0
