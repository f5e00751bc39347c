from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from inferd.backends import fake
from inferd.backends.blob import Blob
from inferd.backends.engine import Inferrer
from inferd.backends.facts import LoadPlan
from inferd.backends.messages import Finished, Infer, Inferred, Started, Stopped, Tensor
from inferd.tests.models.random_onnx import affine

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def engine(tmp_path: Path) -> Any:
    path = str(affine(tmp_path / "m.onnx"))
    plan = LoadPlan(backend="fake", path=path, n_ctx=256, n_slots=2, kv_cells=256, n_threads=1, task="infer")
    return fake.load(plan, lambda _: None)


def ask(engine: Any, job: str, rows: int = 2, data: bytes = b"", outputs: list[str] | None = None) -> None:
    tensor = Tensor("x", "FP32", [rows, 4], len(data))
    engine.infer(Infer(job, 1, [tensor], outputs or [], data), Blob.of([data]))


def test_outputs_are_zeros_of_the_models_shapes(engine: Any) -> None:
    assert isinstance(engine, Inferrer)
    ask(engine, "a")
    started, inferred, finished = engine.step()
    assert isinstance(started, Started)
    assert isinstance(finished, Finished)
    assert isinstance(inferred, Inferred)
    assert inferred.outputs == [Tensor("y", "FP32", [2, 4], 32), Tensor("total", "FP32", [2], 8)]
    assert inferred.data == bytes(40)
    assert not engine.busy()


def slow(tmp_path: Path) -> Any:
    plan = LoadPlan(
        backend="fake",
        path=str(affine(tmp_path / "m.onnx")),
        n_ctx=256,
        n_slots=2,
        kv_cells=256,
        n_threads=1,
        task="infer",
        fake_prefill_tokens_per_s=100.0,
    )
    return fake.load(plan, lambda _: None)


def test_who_is_cancelled_while_it_waits_delays_nobody(tmp_path: Path) -> None:
    engine = slow(tmp_path)
    ask(engine, "a")
    events = engine.step()
    due_s = engine.due_s
    ask(engine, "b")
    engine.cancel("b", 1)
    assert engine.due_s == due_s
    while engine.busy():
        events += engine.step()
    assert [type(event) for event in events] == [Started, Stopped, Inferred, Finished]


def test_rows_cost_time(tmp_path: Path) -> None:
    engine = slow(tmp_path)
    ask(engine, "a", rows=3)
    events = []
    while engine.busy():
        events += engine.step()
    assert events[-1].prefill_ms == pytest.approx(30.0)
    assert engine.stats().steps == 1


def test_what_is_cancelled_is_forgotten(engine: Any) -> None:
    ask(engine, "a")
    ask(engine, "b")
    engine.cancel("a", 1)
    engine.cancel("nobody", 1)
    events = engine.step()
    assert [type(event) for event in events] == [Stopped, Started, Inferred, Finished]
    assert {event.job for event in events[1:]} == {"b"}
