"""Requests and jobs: the life of a job is its table, and every limit is refused by name."""

from __future__ import annotations

import math
from itertools import product
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.backends.blob import Blob
from inferd.backends.messages import SamplingParams
from inferd.daemon.domain.errors import Code, InferdError
from inferd.daemon.domain.inputs import Inputs
from inferd.daemon.domain.request import (
    MAX_BIAS,
    MAX_BIASES,
    MAX_STOP_BYTES,
    MAX_STOPS,
    NEXT,
    RANGES,
    TERMINAL,
    Job,
    Phase,
    Priority,
    Request,
    check_logit_bias,
    check_range,
    check_stop,
    check_tokens,
)
from inferd.daemon.domain.tensors import Tensors

if TYPE_CHECKING:
    from collections.abc import Callable

PARAMS = SamplingParams(max_tokens=8)


def job(phase: Phase = Phase.QUEUED) -> Job:
    request = Request("r1", "demo", PARAMS, Priority.NORMAL, "default", prompt="hi")
    return Job(request, arrived_s=1.0, arrival=1, phase=phase)


def refusal(check: Callable[[], None]) -> InferdError:
    with pytest.raises(InferdError) as caught:
        check()
    assert caught.value.code is Code.INVALID
    return caught.value


# lives


@pytest.mark.parametrize(("start", "to"), list(product(Phase, Phase)))
def test_a_job_takes_the_steps_of_the_table_and_no_other(start: Phase, to: Phase) -> None:
    it = job(start)
    if to in NEXT[start]:
        it.move(to)
        assert it.phase is to
    else:
        with pytest.raises(AssertionError, match=f"r1: {start.value} -> {to.value}"):
            it.move(to)
        assert it.phase is start


def test_three_ends_and_nothing_after_them() -> None:
    assert {Phase.DONE, Phase.CANCELLED, Phase.FAILED} == TERMINAL
    assert [phase for phase in Phase if job(phase).live] == [Phase.QUEUED, Phase.RUNNING, Phase.PARKING]


def test_every_live_phase_can_be_cancelled_and_can_fail() -> None:
    for phase in set(Phase) - TERMINAL:
        assert {Phase.CANCELLED, Phase.FAILED} <= NEXT[phase]


def test_a_parked_job_waits_again() -> None:
    it = job()
    for phase in (Phase.RUNNING, Phase.PARKING, Phase.QUEUED, Phase.RUNNING, Phase.DONE):
        it.move(phase)
    assert not it.live


@pytest.mark.parametrize(
    ("fields", "task"),
    [
        ({"prompt": "hi"}, "generate"),
        ({"tokens": [1]}, "generate"),
        ({"inputs": Inputs(["a"])}, "embed"),
        ({"inputs": Inputs(["a"], query="b")}, "rank"),
        ({"inputs": Inputs(["a"], labels="tag")}, "tag"),
        ({"tensors": Tensors([], Blob.of([]))}, "infer"),
    ],
)
def test_what_a_request_wants_of_its_model(fields: dict[str, Any], task: str) -> None:
    assert Request("r", "demo", PARAMS, Priority.NORMAL, "t", **fields).task == task


# ranges


def beyond(name: str) -> list[float]:
    lowest, highest, lowest_is_out = RANGES[name]
    below = lowest if lowest_is_out else math.nextafter(lowest, -math.inf)
    return [below, math.nextafter(highest, math.inf), lowest - 1, highest + 1, math.nan, math.inf, -math.inf]


@pytest.mark.parametrize("name", RANGES)
def test_the_ends_of_a_range_are_allowed(name: str) -> None:
    lowest, highest, lowest_is_out = RANGES[name]
    check_range(name, math.nextafter(lowest, highest) if lowest_is_out else lowest)
    check_range(name, highest)


@pytest.mark.parametrize(("name", "value"), [(name, value) for name in RANGES for value in beyond(name)])
def test_what_lies_outside_is_refused_by_name_with_both_limits(name: str, value: float) -> None:
    lowest, highest, _ = RANGES[name]
    error = refusal(lambda: check_range(name, value))
    assert error.field == name
    assert error.details == {"lowest": lowest, "highest": highest}
    assert error.message.startswith(f"{name} must be in ")


@given(st.sampled_from(sorted(RANGES)), st.floats() | st.integers())
def test_a_value_passes_exactly_when_it_is_inside(name: str, value: float) -> None:
    lowest, highest, lowest_is_out = RANGES[name]
    inside = (lowest < value if lowest_is_out else lowest <= value) and value <= highest
    if inside:
        check_range(name, value)
    else:
        assert refusal(lambda: check_range(name, value)).field == name


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("temperature", 5.5, "temperature must be in [0, 5], not 5.5"),
        ("temperature", 5.0000001, "temperature must be in [0, 5], not 5.0000001"),
        ("top_p", 0.0, "top_p must be in (0, 1], not 0"),
        ("max_tokens", 2**31, "max_tokens must be in [1, 2147483647], not 2147483648"),
        ("n", 9, "n must be in [1, 8], not 9"),
    ],
)
def test_figures_in_a_refusal_are_not_rounded(name: str, value: float, message: str) -> None:
    assert refusal(lambda: check_range(name, value)).message == message


# stop strings, biases, token ids


def test_stop_strings_within_the_limits_pass() -> None:
    check_stop([])
    check_stop(["x"] * MAX_STOPS)
    check_stop(["§" * (MAX_STOP_BYTES // 2)])


@pytest.mark.parametrize(
    ("stop", "field"),
    [
        (["x"] * (MAX_STOPS + 1), "stop"),
        (["ok", ""], "stop[1]"),
        (["ok", "§" * (MAX_STOP_BYTES // 2) + "x"], "stop[1]"),
    ],
)
def test_a_stop_string_beyond_the_limits_is_refused_by_name(stop: list[str], field: str) -> None:
    error = refusal(lambda: check_stop(stop))
    assert error.field == field
    assert str(error.details["highest"]) in error.message


def test_biases_within_the_limits_pass() -> None:
    check_logit_bias({})
    check_logit_bias({token: MAX_BIAS for token in range(MAX_BIASES)})
    check_logit_bias({0: -MAX_BIAS})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, MAX_BIAS + 0.001, -MAX_BIAS - 0.001])
def test_a_bias_beyond_the_limit_is_refused_by_its_token(value: float) -> None:
    assert refusal(lambda: check_logit_bias({1: 0.0, 7: value})).field == "logit_bias[7]"


def test_too_many_biases_are_refused() -> None:
    error = refusal(lambda: check_logit_bias(dict.fromkeys(range(MAX_BIASES + 1), 0.0)))
    assert error.field == "logit_bias"


@given(st.lists(st.integers()), st.integers(1, 2**31))
def test_token_ids_pass_exactly_when_the_model_has_them(tokens: list[int], n_vocab: int) -> None:
    strange = [i for i, token in enumerate(tokens) if token not in range(n_vocab)]
    if not strange:
        check_tokens("tokens", tokens, n_vocab)
    else:
        error = refusal(lambda: check_tokens("tokens", tokens, n_vocab))
        assert error.field == f"tokens[{strange[0]}]"
        assert error.details["highest"] == n_vocab - 1
