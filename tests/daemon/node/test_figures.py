from __future__ import annotations

import time
from typing import Any

from inferd.backends.blob import Blob
from inferd.backends.messages import Call, SamplingParams, Tensor
from inferd.daemon.domain.inputs import Inputs
from inferd.daemon.domain.request import Job, Phase, Priority, Request
from inferd.daemon.domain.tensors import Tensors
from inferd.daemon.node.figures import MAX_SIZES, Duration, Statistics, n_rows


def job(phase: Phase = Phase.DONE, **fields: Any) -> Job:
    request = Request("r", "m", SamplingParams(max_tokens=0), Priority.NORMAL, "t", **fields)
    one = Job(request, time.monotonic() - 1.0, 0, phase)
    one.started_s = one.arrived_s + 0.25
    return one


def tensors(rows: int) -> Tensors:
    return Tensors([Tensor("x", "FP32", [rows, 4], 0)], Blob(0, data=b""))


def test_durations_grow() -> None:
    one = Duration()
    one.add(1.5)
    one.add(-1.0)
    assert (one.count, one.ns) == (2, 1_500_000)


def test_a_call_counts_once_and_for_each_that_had_a_part() -> None:
    statistics = Statistics()
    statistics.on_call("m", None)
    statistics.on_call("m", Call(2, True, 1.0, 10.0, 2.0))
    statistics.on_call("m", Call(2, False, 1.0, 10.0, 3.0))
    model = statistics.of("m")
    assert model.execution_count == 1
    assert (model.compute.infer.count, model.compute.infer.ns) == (2, 20_000_000)
    assert model.compute.output.ns == 5_000_000


def test_a_call_counts_also_when_who_counts_it_has_left() -> None:
    statistics = Statistics()
    statistics.on_call("m", Call(2, True, 1.0, 10.0, 2.0), wanted=False)
    statistics.on_call("m", Call(2, False, 1.0, 10.0, 3.0))
    model = statistics.of("m")
    assert (model.execution_count, model.compute.infer.count) == (1, 1)
    assert {rows: compute.infer.count for rows, compute in model.by_rows.items()} == {2: 1}


def test_sizes_of_calls_are_told_apart_up_to_a_number() -> None:
    statistics = Statistics()
    for n in range(2 * MAX_SIZES):
        statistics.on_call("m", Call(n, True, 1.0, 1.0, 1.0))
    assert len(statistics.of("m").by_rows) == MAX_SIZES
    assert statistics.of("m").execution_count == 2 * MAX_SIZES


def test_what_ends_is_counted_with_its_rows() -> None:
    statistics = Statistics()
    statistics.on_over(job(tensors=tensors(3)))
    statistics.on_over(job(inputs=Inputs(["a", "b"])))
    model = statistics.of("m")
    assert (model.inference_count, model.success.count, model.queue.count) == (5, 2, 2)
    assert 240e6 < model.queue.ns / 2 < 260e6
    assert model.execution_count == 0  # their calls are counted as they come
    assert abs(model.last_inference_ms - time.time() * 1e3) < 60_000


def test_a_text_is_one_call_of_its_own() -> None:
    statistics, one = Statistics(), job(prompt="a")
    one.prefill_ms, one.decode_ms = 5.0, 15.0
    statistics.on_over(one)
    model = statistics.of("m")
    assert (model.execution_count, model.inference_count, model.compute.infer.ns) == (1, 1, 20_000_000)


def test_what_fails_is_counted_apart() -> None:
    statistics = Statistics()
    for phase in (Phase.FAILED, Phase.CANCELLED):
        statistics.on_over(job(phase, prompt="a"))
    model = statistics.of("m")
    assert (model.fail.count, model.success.count, model.inference_count) == (2, 0, 0)


def test_a_model_that_was_never_used_has_zeros() -> None:
    assert Statistics().of("m").success.count == 0


def test_rows() -> None:
    assert [n_rows(job(tensors=tensors(4))), n_rows(job(inputs=Inputs(["a"]))), n_rows(job(prompt="a"))] == [4, 1, 1]
