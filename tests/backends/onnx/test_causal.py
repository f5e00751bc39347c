from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest

from inferd.backends.messages import Delta, Finished, FinishReason, SamplingParams, Started, Stopped, Submit
from inferd.backends.onnx import causal
from inferd.backends.onnx.loading import load
from inferd.backends.onnx.session import Session
from inferd.tests.models.odd_decoders import counting, merged
from inferd.tests.models.random_onnx import decoder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def engine_of(onnx_models: Any, plan_of: Any) -> Callable[..., Any]:
    def make(**changes: Any) -> Any:
        return load(plan_of(onnx_models["decoder"], **changes), lambda _: None, None)

    return make


def submit(job: str, tokens: list[int], n_prompt: int | None = None, rank: int = 0, **params: Any) -> Submit:
    sampling = SamplingParams(**({"max_tokens": 12, "temperature": 0.0, "ignore_eos": True} | params))
    return Submit(job, 1, tokens, len(tokens) if n_prompt is None else n_prompt, sampling, rank)


def run(engine: Any) -> list[Any]:
    events = []
    while engine.busy():
        events += engine.step()
    return events


def tokens_of(events: list[Any]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for event in events:
        if isinstance(event, Delta):
            found.setdefault(event.job, []).extend(event.tokens)
    return found


def by_hand(path: Any, prompt: list[int], n: int) -> Any:
    """Greedy tokens, each from the whole text so far."""
    session = Session(str(path), [("CPUExecutionProvider", {})], 1)
    tokens = list(prompt)
    for _ in range(n):
        ids = np.array([tokens])
        feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids), "position_ids": np.arange(len(tokens))[None]}
        for port in session.inputs[3:]:
            shape: Any = (1, port.axes[1], 0, port.axes[3])
            feeds[port.name] = np.zeros(shape, np.float32)
        row = session.run(feeds, ["logits"])[0][0, -1]
        row[3] = -np.inf  # the end is not wanted
        tokens.append(int(row.argmax()))
    return tokens[len(prompt) :]


def prompt(seed: int, n: int) -> Any:
    return np.random.default_rng(seed).integers(4, 200, n).tolist()


def test_a_text_is_that_of_the_graph_by_hand(engine_of: Any, onnx_models: Any) -> None:
    engine = engine_of()
    engine.submit(submit("a", prompt(0, 20)))
    events = run(engine)
    assert tokens_of(events)["a"] == by_hand(onnx_models["decoder"], prompt(0, 20), 12)
    end = events[-1]
    assert isinstance(end, Finished)
    assert (end.reason, end.completion_tokens, end.n_computed) == (FinishReason.LENGTH, 12, 31)
    assert isinstance(events[0], Started)


def test_texts_beside_each_other_are_those_of_each_alone(engine_of: Any, onnx_models: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(causal, "CHUNK", 16)
    engine = engine_of()
    given = {f"j{i}": prompt(i, 5 + 13 * i) for i in range(5)}
    lengths = {job: 6 + 5 * i for i, job in enumerate(given)}
    for job, tokens in given.items():
        engine.submit(submit(job, tokens, max_tokens=lengths[job]))
    found = tokens_of(run(engine))
    for job, tokens in given.items():
        assert found[job] == by_hand(onnx_models["decoder"], tokens, lengths[job]), job


@pytest.mark.parametrize(("n_tokens", "n_calls"), [(60, 1), (4, 2)])
def test_one_that_begins_later_joins_those_of_about_its_length(
    engine_of: Any, onnx_models: Any, n_tokens: int, n_calls: int
) -> None:
    engine = engine_of()
    engine.submit(submit("a", prompt(0, 90), max_tokens=30))
    events = [event for _ in range(10) for event in engine.step()]
    engine.submit(submit("b", prompt(1, n_tokens), max_tokens=30))
    events += [event for _ in range(3) for event in engine.step()]
    assert len(engine._pasts) == n_calls
    found = tokens_of(events + run(engine))
    assert found["a"] == by_hand(onnx_models["decoder"], prompt(0, 90), 30)
    assert found["b"] == by_hand(onnx_models["decoder"], prompt(1, n_tokens), 30)


def test_a_replay_goes_on_where_it_was(engine_of: Any) -> None:
    engine = engine_of()
    engine.submit(submit("a", prompt(0, 20), temperature=1.0, seed=5))
    whole = tokens_of(run(engine))["a"]
    engine.submit(submit("b", prompt(0, 20) + whole[:7], n_prompt=20, temperature=1.0, seed=5))
    events = run(engine)
    assert tokens_of(events)["b"] == whole[7:]
    assert next(event for event in events if isinstance(event, Delta)).index == 7


def test_what_is_cancelled_makes_room(engine_of: Any) -> None:
    engine = engine_of(n_slots=2)
    for job in "abc":
        engine.submit(submit(job, prompt(0, 10), max_tokens=50))
    for _ in range(6):
        engine.step()
    for job in "abc":
        engine.cancel(job, 1)
    events = run(engine)
    assert [event.job for event in events if isinstance(event, Stopped)] == ["a", "b", "c"]
    assert not engine.busy()


def test_where_cells_are_short_the_lowest_rank_waits_again(engine_of: Any) -> None:
    engine = engine_of(kv_cells=64)
    engine.submit(submit("high", prompt(0, 20), rank=2, max_tokens=30))
    engine.submit(submit("low", prompt(1, 20), rank=0, max_tokens=30))
    events = run(engine)
    (stopped,) = [event for event in events if isinstance(event, Stopped)]
    assert (stopped.job, stopped.parked) == ("low", True)
    assert len(tokens_of(events)["high"]) == 30


def test_the_end_of_a_text_is_heard(engine_of: Any) -> None:
    engine = engine_of()
    engine.submit(submit("a", prompt(0, 10), ignore_eos=False, logit_bias={3: 100.0}))
    end = run(engine)[-1]
    assert (end.reason, end.completion_tokens) == (FinishReason.STOP, 0)


def test_logprobs_are_the_models_own(engine_of: Any) -> None:
    engine = engine_of()
    engine.submit(submit("a", prompt(0, 10), logprobs=3, max_tokens=2))
    deltas = [event for event in run(engine) if isinstance(event, Delta)]
    for delta in deltas:
        assert delta.logprobs is not None
        assert delta.logprobs[0].token == delta.tokens[0]
        assert len(delta.logprobs[0].top) == 3
        assert all(text for _, _, text in delta.logprobs[0].top)


def test_statistics_count_what_is_kept(engine_of: Any) -> None:
    engine = engine_of()
    engine.submit(submit("a", prompt(0, 10)))
    engine.step()
    stats = engine.stats()
    assert (stats.running, stats.kv_cells_used, stats.prefill_tokens) == (1, 10, 10)


def both(engine: Any) -> dict[str, list[int]]:
    for job, n in (("a", 40), ("b", 7)):
        engine.submit(submit(job, prompt(1, n)))
    return tokens_of(run(engine))


def test_where_the_graph_counts_places_itself_texts_stay_apart(tmp_path: Path, onnx_models: Any, plan_of: Any) -> None:
    found = both(load(plan_of(counting(decoder(tmp_path / "counts"))), lambda _: None, None))
    for job, n in (("a", 40), ("b", 7)):
        assert found[job] == by_hand(onnx_models["decoder"], prompt(1, n), 12)


def test_two_graphs_in_one_file_get_what_each_is_for(
    tmp_path: Path, onnx_models: Any, plan_of: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(causal, "CHUNK", 16)
    path = decoder(tmp_path / "merged")
    found = both(load(plan_of(merged(path, path)), lambda _: None, None))
    for job, n in (("a", 40), ("b", 7)):
        assert found[job] == by_hand(onnx_models["decoder"], prompt(1, n), 12)


def test_only_the_last_logits_are_asked_for_where_that_can_be_said(
    tmp_path: Path, onnx_models: Any, plan_of: Any
) -> None:
    path = decoder(tmp_path / "keeps")
    model = onnx.load(str(path))
    last = next(node for node in model.graph.node if node.output[0] == "logits")
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([2**31]), "end"))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1]), "axis"))
    made = onnx.helper.make_node
    model.graph.node.insert(len(model.graph.node) - 1, made("Neg", ["num_logits_to_keep"], ["minus"]))
    model.graph.node.insert(len(model.graph.node) - 1, made("Unsqueeze", ["minus", "zero_axis"], ["start"]))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([0]), "zero_axis"))
    model.graph.node.insert(len(model.graph.node) - 1, made("Slice", [last.input[0], "start", "end", "axis"], ["kept"]))
    last.input[0] = "kept"
    model.graph.input.append(onnx.helper.make_tensor_value_info("num_logits_to_keep", onnx.TensorProto.INT64, []))
    onnx.save(model, str(path))
    found = both(load(plan_of(path), lambda _: None, None))
    assert found["a"] == by_hand(onnx_models["decoder"], prompt(1, 40), 12)
