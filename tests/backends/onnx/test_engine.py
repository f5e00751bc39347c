from __future__ import annotations

import select
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from onnx import helper

from inferd.backends.blob import Blob
from inferd.backends.engine import Embedder, Inferrer
from inferd.backends.facts import Batching
from inferd.backends.messages import (
    Call,
    Embed,
    Embedded,
    Finished,
    FinishReason,
    Infer,
    Inferred,
    Started,
    Stopped,
    Tensor,
)
from inferd.backends.onnx.arrays import from_array, to_arrays
from inferd.backends.onnx.loading import load
from inferd.backends.onnx.session import Session
from inferd.tests.models.random_onnx import Builder, info

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from inferd.backends.onnx.engine import OnnxEngine


@pytest.fixture
def engine_of(onnx_models: Any, plan_of: Any) -> Callable[..., OnnxEngine]:
    def make(name: str, **changes: Any) -> Any:
        return load(plan_of(onnx_models[name], **changes), lambda _: None, None)

    return make


@pytest.fixture
def bare(onnx_models: Any) -> Callable[..., list[Any]]:
    """What the runtime itself makes of inputs."""

    def run(name: str, feeds: Any, outputs: list[str]) -> list[Any]:
        return Session(str(onnx_models[name]), [("CPUExecutionProvider", {})], 1).run(feeds, outputs)

    return run


def ask(engine: Any, job: str, arrays: dict[str, Any], outputs: tuple[str, ...] = (), **how: Any) -> None:
    packed = [from_array(name, array) for name, array in arrays.items()]
    blob = Blob.of([bytes(data) for _, data in packed])
    engine.infer(Infer(job, 1, [tensor for tensor, _ in packed], list(outputs), blob.data, **how), blob)


def run(engine: Any, listen: Any = None) -> list[Any]:
    """As a worker does: it sleeps until a call wakes it."""
    events: list[Any] = []
    while engine.busy() or engine._lanes.running:
        if not engine.busy():
            assert select.select([engine.wake_fd], [], [], 30)[0]
        events += engine.step(listen)
    return events


def answers(events: list[Any]) -> dict[str, dict[str, Any]]:
    return {event.job: to_arrays(event.outputs, event.data or b"") for event in events if isinstance(event, Inferred)}


def calls(events: list[Any]) -> list[Call]:
    """The parts that requests had in calls."""
    return [event.call for event in events if isinstance(event, Inferred) and event.call is not None]


def x(seed: int, rows: int = 1) -> Any:
    return np.random.default_rng(seed).standard_normal((rows, 4)).astype(np.float32)


def texts(seed: int, length: int, rows: int = 1) -> dict[str, Any]:
    ids = np.random.default_rng(seed).integers(4, 200, (rows, length))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}


def test_it_keeps_both_promises(engine_of: Any) -> None:
    engine = engine_of("affine")
    assert isinstance(engine, Inferrer)
    assert isinstance(engine, Embedder)
    assert (engine.ready.device, engine.ready.n_slots) == ("CPU", 16)


def test_tensors_become_tensors(engine_of: Any) -> None:
    engine, given = engine_of("affine"), x(0, 2)
    ask(engine, "a", {"x": given})
    started, inferred, finished = run(engine)
    assert (type(started), type(inferred), type(finished)) == (Started, Inferred, Finished)
    assert inferred.outputs == [Tensor("y", "FP32", [2, 4], 32), Tensor("total", "FP32", [2], 8)]
    np.testing.assert_array_equal(answers([inferred])["a"]["y"], given * 2 + 1)
    assert (finished.reason, finished.n_computed) == (FinishReason.STOP, 2)
    ask(engine, "b", {"x": given}, outputs=("total",))
    assert list(answers(run(engine))["b"]) == ["total"]


def test_requests_share_calls_and_get_their_own_rows(engine_of: Any) -> None:
    engine = engine_of("affine", batching=Batching(8, (8,)))
    given = {f"j{i}": x(i, 1 + i % 3) for i in range(5)}
    for job, array in given.items():
        ask(engine, job, {"x": array})
    events = run(engine)
    for job, answer in answers(events).items():
        np.testing.assert_array_equal(answer["y"], given[job] * 2 + 1)
    assert max(call.n_rows for call in calls(events)) > 3
    assert sum(call.n_rows for call in calls(events) if call.counts) == sum(len(array) for array in given.values())


def test_a_call_of_one_is_the_runtimes_own_to_the_bit(engine_of: Any, bare: Any) -> None:
    given = texts(1, 20, rows=3)
    for name in ("encoder", "int8"):
        engine = engine_of(name)
        ask(engine, "a", given)
        (expected,) = bare(name, given, ["last_hidden_state"])
        np.testing.assert_array_equal(answers(run(engine))["a"]["last_hidden_state"], expected)


def test_company_and_padding_move_only_the_last_bits(engine_of: Any, bare: Any) -> None:
    engine = engine_of("encoder", batching=Batching(8, (8,)))
    given = {f"j{i}": texts(i, 17 + i) for i in range(8)}
    for job, arrays in given.items():
        ask(engine, job, arrays)
    events = run(engine)
    assert max(call.n_rows for call in calls(events)) == 8
    for job, answer in answers(events).items():
        (expected,) = bare("encoder", given[job], ["last_hidden_state"])
        assert answer["last_hidden_state"].shape == expected.shape
        np.testing.assert_allclose(answer["last_hidden_state"], expected, atol=1e-5)


def test_dynamic_scales_keep_the_direction_and_the_tenant(engine_of: Any, bare: Any) -> None:
    engine = engine_of("int8", batching=Batching(8, (4,)))
    given = {f"j{i}": texts(i, 16) for i in range(8)}
    for i, (job, arrays) in enumerate(given.items()):
        ask(engine, job, arrays, salt="ab"[i % 2])
    events = run(engine)
    assert [call.n_rows for call in calls(events) if call.counts] == [4, 4]
    for job, answer in answers(events).items():
        ours = answer["last_hidden_state"].ravel()
        theirs = bare("int8", given[job], ["last_hidden_state"])[0].ravel()
        assert ours @ theirs / np.linalg.norm(ours) / np.linalg.norm(theirs) >= 0.999
    first = {event.job for event in events[:12] if isinstance(event, Started)}
    assert first in ({"j0", "j2", "j4", "j6"}, set(given))


def test_rows_that_look_at_each_other_never_share_a_call(engine_of: Any) -> None:
    engine = engine_of("rows", batching=Batching(8, (8,)))
    for i in range(4):
        ask(engine, f"j{i}", {"x": x(i)})
    events = run(engine)
    assert {call.n_rows for call in calls(events)} == {1}


def test_calls_side_by_side_give_the_same(engine_of: Any, bare: Any) -> None:
    engine = engine_of("encoder", n_threads=2, n_lanes=2, batching=Batching(4, (2,)))
    given = {f"j{i}": texts(i, 20) for i in range(12)}
    for job, arrays in given.items():
        ask(engine, job, arrays)
    engine.step()
    assert len(engine._lanes.running) == 2
    for job, answer in answers(run(engine)).items():
        (expected,) = bare("encoder", given[job], ["last_hidden_state"])
        np.testing.assert_allclose(answer["last_hidden_state"], expected, atol=1e-5)


def test_others_may_want_the_cores(engine_of: Any) -> None:
    engine = engine_of("encoder", n_threads=2, n_lanes=2, batching=Batching(4, (2,)))
    engine.use_threads(1)
    for i in range(6):
        ask(engine, f"j{i}", texts(i, 20))
    engine.step()
    assert len(engine._lanes.running) == 1
    assert len(answers(run(engine))) == 6


def test_the_urgent_come_first(engine_of: Any) -> None:
    engine = engine_of("affine", batching=Batching(1))
    ask(engine, "late", {"x": x(0)})
    ask(engine, "due", {"x": x(0)}, due_s=1.0)
    ask(engine, "urgent", {"x": x(0)}, rank=2)
    assert list(answers(run(engine))) == ["urgent", "due", "late"]


def test_what_is_cancelled_is_not_computed(engine_of: Any) -> None:
    engine = engine_of("affine", batching=Batching(1))
    ask(engine, "a", {"x": x(0)})
    ask(engine, "b", {"x": x(0)})
    engine.cancel("b", 1)
    engine.cancel("nobody", 1)
    events = run(engine)
    assert [event.job for event in events if isinstance(event, Stopped)] == ["b"]
    assert list(answers(events)) == ["a"]


def test_a_call_that_nobody_wants_ends(engine_of: Any) -> None:
    engine = engine_of("encoder")
    ask(engine, "a", texts(0, 500, rows=64))
    engine.step()
    (call,) = engine._lanes.running
    engine.cancel("a", 1)
    assert call.broken_off
    events = run(engine)
    assert [type(event) for event in events] == [Stopped]
    assert not engine.busy()


def test_one_bad_request_does_not_take_its_company_along(engine_of: Any) -> None:
    engine = engine_of("encoder", batching=Batching(8, (2,)))
    bad = texts(1, 8)
    bad["input_ids"] = bad["input_ids"] + 10_000
    ask(engine, "good", texts(2, 8))
    ask(engine, "bad", bad)
    events = run(engine)
    ends = {event.job: event for event in events if isinstance(event, Finished)}
    assert ends["good"].reason is FinishReason.STOP
    assert (ends["bad"].reason, ends["bad"].error_field) == (FinishReason.ERROR, "inputs")
    assert "cannot be computed with these inputs" in ends["bad"].error
    assert "/" not in ends["bad"].error


def test_outputs_beyond_a_message_are_refused(engine_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inferd.backends.onnx.engine.MAX_OUTPUT_BYTES", 20)
    engine = engine_of("affine")
    ask(engine, "a", {"x": x(0, 2)})
    (end,) = [event for event in run(engine) if isinstance(event, Finished)]
    assert "at most 20 are allowed" in end.error


def test_company_is_waited_for_as_long_as_the_plan_says(engine_of: Any) -> None:
    engine = engine_of("affine", batching=Batching(4, (4,), 2_000_000))
    ask(engine, "first", {"x": x(0)})
    heard = 0

    def listen() -> bool:
        nonlocal heard
        if heard < 3:
            heard += 1
            ask(engine, f"more{heard}", {"x": x(0)})
        return False

    assert [call.n_rows for call in calls(run(engine, listen))] == [4] * 4


def test_texts_become_vectors_in_order(engine_of: Any, bare: Any) -> None:
    engine = engine_of("encoder", batching=Batching(4, (4,)))
    rng = np.random.default_rng(3)
    inputs = [rng.integers(4, 200, n).tolist() for n in (40, 5, 41, 6, 42, 7)]
    engine.embed(Embed("a", 1, inputs, normalize=False))
    events = run(engine)
    told = [event for event in events if isinstance(event, Embedded)]
    assert sum(event.n for event in told) == 6
    vectors = np.frombuffer(b"".join(event.vectors for event in told), np.float32).reshape(6, -1)
    for tokens, vector in zip(inputs, vectors, strict=True):
        ids = np.array([tokens])
        feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        (hidden,) = bare("encoder", feeds, ["last_hidden_state"])
        np.testing.assert_allclose(vector, hidden[0].mean(axis=0), atol=1e-5)
    (end,) = [event for event in events if isinstance(event, Finished)]
    assert end.n_computed == sum(map(len, inputs))


def test_pairs_are_scored_with_their_second_part_marked(engine_of: Any, bare: Any) -> None:
    engine = engine_of("ranker")
    tokens = [2, 10, 11, 3, 20, 21, 3]
    engine.embed(Embed("a", 1, [tokens, tokens], seconds=[4, 0]))
    vectors = b"".join(event.vectors for event in run(engine) if isinstance(event, Embedded))
    marked, unmarked = np.frombuffer(vectors, np.float32)
    ids, kinds = np.array([tokens]), np.array([[0, 0, 0, 0, 1, 1, 1]])
    feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": kinds}
    assert marked == pytest.approx(bare("ranker", feeds, ["logits"])[0][0, 0], abs=1e-5)
    assert marked != unmarked


def test_labels_get_a_logit_each(engine_of: Any) -> None:
    engine = engine_of("moods")
    engine.embed(Embed("a", 1, [[2, 10, 3]]))
    (told,) = [event for event in run(engine) if isinstance(event, Embedded)]
    assert len(told.vectors) == 3 * 4


def test_nothing_to_embed_is_done_at_once(engine_of: Any) -> None:
    engine = engine_of("encoder")
    engine.embed(Embed("a", 1, []))
    assert [type(event) for event in run(engine)] == [Started, Finished]


def test_a_closed_engine_holds_no_files(engine_of: Any) -> None:
    engine = engine_of("echo")
    ask(engine, "a", {"x": np.ones(1 << 20, np.float32)})
    blobs = [run.blob for run in engine._runs.values()]
    assert blobs[0].fd is not None
    engine.close()
    assert blobs[0].fd is None


def short_of_memory(*_: Any) -> Any:
    raise MemoryError


def errors(events: list[Any]) -> dict[str, str]:
    return {event.job: event.error for event in events if isinstance(event, Finished)}


@pytest.mark.parametrize("where", ["to_arrays", "from_array", "OnnxEngine._feeds"])
def test_what_there_is_no_memory_for_is_refused_and_no_more(
    engine_of: Any, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    engine = engine_of("affine")
    with monkeypatch.context() as patch:
        patch.setattr(f"inferd.backends.onnx.engine.{where}", short_of_memory)
        ask(engine, "a", {"x": x(0)})
        ask(engine, "b", {"x": x(0)})
        found = errors(run(engine))
    assert len(found) == 2
    assert all("memory" in error for error in found.values())
    ask(engine, "c", {"x": x(0)})
    assert errors(run(engine)) == {"c": ""}


def test_strings_count_as_long_as_they_are(tmp_path: Path, plan_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inferd.backends.onnx.engine.MAX_OUTPUT_BYTES", 1000)
    b = Builder()
    b.op("Identity", "x", out="y")
    path = b.save(tmp_path / "m.onnx", [info("x", 8, "n")], [info("y", 8, "n")])
    engine = load(plan_of(path), lambda _: None, None)
    ask(engine, "a", {"x": np.array(["a" * 2000], object)})
    ask(engine, "b", {"x": np.array(["a" * 900], object)})
    found = errors(run(engine))
    assert "2,004 bytes" in found["a"]
    assert found["b"] == ""


def test_only_calls_that_are_known_to_be_short_are_waited_for(
    engine_of: Any, onnx_models: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inferd.backends.onnx.engine.SHORT_MS", 1e6)
    engine = engine_of("echo")
    for i, (n, beside) in enumerate(((10, True), (10, False), (9, False), (11, True), (11, False))):
        ask(engine, f"j{i}", {"x": np.zeros(n, np.float32)})
        engine.step()
        assert bool(engine._lanes.running) is beside
        run(engine)


def test_a_loop_is_never_known_to_be_short(tmp_path: Path, plan_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inferd.backends.onnx.engine.SHORT_MS", 1e6)
    ports = info("i", 7), info("go", 9), info("y", 1), info("goes", 9), info("z", 1)
    nodes = [helper.make_node("Identity", ["go"], ["goes"]), helper.make_node("Add", ["y", "y"], ["z"])]
    b = Builder()
    b.op("Loop", "n", "", "x", out="y", body=helper.make_graph(nodes, "b", list(ports[:3]), list(ports[3:])))
    path = b.save(tmp_path / "m.onnx", [info("x", 1), info("n", 7)], [info("y", 1)])
    engine: Any = load(plan_of(path), lambda _: None, None)
    for i, n in enumerate((2, 2, 10**9)):
        ask(engine, f"j{i}", {"x": np.array(1, np.float32), "n": np.array(n)})
        engine.step()
        assert engine._lanes.running
        engine.cancel("j2", 1)
        run(engine)


def test_who_tries_again_alone_keeps_its_place(engine_of: Any) -> None:
    engine = engine_of("encoder", batching=Batching(8, (2,), 0, True))
    bad = texts(1, 8)
    bad["input_ids"] = bad["input_ids"] + 10_000
    ask(engine, "bad", bad)
    ask(engine, "good", texts(2, 8))
    engine.step()
    ask(engine, "later", texts(3, 8))
    assert list(errors(run(engine))) == ["bad", "good", "later"]
