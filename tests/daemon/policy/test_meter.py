"""Rates are means over a window that slides with the ticks; percentiles are values that really occurred."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.daemon.policy.meter import SAMPLES, WINDOW_S, Meter, percentiles


def test_there_is_no_rate_before_two_ticks() -> None:
    meter = Meter()
    assert meter.rates_per_s() == (0.0, 0.0)
    meter.on_tokens("m", 5)
    meter.on_tick(1.0)
    assert meter.rates_per_s() == (0.0, 0.0)
    assert meter.place_rate_per_s("m") == 0.0


def test_a_rate_is_tokens_over_time() -> None:
    meter = Meter()
    meter.on_tick(0.0)
    meter.total.prompt_tokens += 100
    meter.on_tokens("m", 30)
    meter.on_tokens("other", 10)
    meter.on_tick(2.0)
    assert meter.rates_per_s() == (50.0, 20.0)
    assert meter.place_rate_per_s("m") == 15.0
    assert meter.place_rate_per_s("other") == 5.0
    assert meter.place_rate_per_s("unheard") == 0.0


def test_a_steady_stream_has_a_steady_rate_and_silence_brings_it_to_zero() -> None:
    meter = Meter()
    for second in range(30):
        meter.on_tick(float(second))
        meter.on_tokens("m", 7)
        if second:
            assert meter.rates_per_s()[1] == 7.0
    for second in range(30, 30 + int(WINDOW_S) + 2):
        meter.on_tick(float(second))
    assert meter.rates_per_s()[1] == 0.0
    assert meter.total.generation_tokens == 210


def test_the_window_forgets_what_is_older() -> None:
    meter = Meter()
    for second in range(1000):
        meter.on_tick(float(second))
    assert len(meter._marks) <= WINDOW_S + 2


def test_there_is_no_percentile_before_the_first_request() -> None:
    assert percentiles(Meter().ttft_ms, 0.5, 0.99) == (None, None)


@pytest.mark.parametrize(
    ("n", "q", "rank"), [(1, 0.5, 1), (1, 0.95, 1), (2, 0.5, 1), (4, 0.5, 2), (100, 0.5, 50), (20, 0.95, 19), (9, 1, 9)]
)
def test_a_percentile_is_the_nearest_rank(n: int, q: float, rank: int) -> None:
    assert percentiles([float(ms) for ms in range(n, 0, -1)], q) == (rank,)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50), st.floats(0.01, 1))
def test_at_least_that_share_of_the_samples_is_not_above_a_percentile(samples: list[float], q: float) -> None:
    value, most = percentiles(samples, q, 1.0)
    assert value in samples
    assert value is not None
    assert sum(sample <= value for sample in samples) >= math.floor(q * len(samples))
    assert most == max(samples)


@pytest.mark.parametrize("kind", ["ttft_ms", "queue_ms", "tpot_ms"])
def test_only_the_last_samples_count(kind: str) -> None:
    samples = getattr(Meter(), kind)
    samples.extend([1e9] + [1.0] * SAMPLES)
    assert percentiles(samples, 1.0) == (1.0,)
