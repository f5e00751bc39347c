from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from inferd.backends.engine import LoadError
from inferd.backends.facts import Batching
from inferd.backends.messages import Embed, Embedded, Finished, SamplingParams, Submit
from inferd.backends.onnx.causal import CausalEngine
from inferd.backends.onnx.engine import OnnxEngine
from inferd.backends.onnx.header import read_facts
from inferd.backends.onnx.loading import load
from inferd.tests.models.random_onnx import Builder, affine, decoder, encoder, info

if TYPE_CHECKING:
    from pathlib import Path


def test_each_task_has_its_engine(onnx_models: Any, plan_of: Any) -> None:
    for name, kind in (("affine", OnnxEngine), ("encoder", OnnxEngine), ("decoder", CausalEngine)):
        told: list[float] = []
        engine = load(plan_of(onnx_models[name]), told.append, None)
        assert isinstance(engine, kind)
        assert told[-1] >= 0.9
        engine.close()


def refused(plan_of: Any, path: Path, **changes: Any) -> LoadError:
    with pytest.raises(LoadError) as caught:
        load(plan_of(path, **changes), lambda _: None, None)
    assert str(path.parent) not in str(caught.value)
    return caught.value


def test_an_operator_set_that_is_too_new(tmp_path: Path, plan_of: Any) -> None:
    b = Builder()
    b.op("Identity", "x", out="y")
    x, y = info("x", TensorProto.FLOAT, 2), info("y", TensorProto.FLOAT, 2)
    path = b.save(tmp_path / "m.onnx", [x], [y], opset=99)
    error = refused(plan_of, path)
    assert (error.code, "newer" in str(error)) == ("unsupported", True)


def test_a_format_that_is_too_new(tmp_path: Path, plan_of: Any) -> None:
    b = Builder()
    b.op("Identity", "x", out="y")
    x, y = info("x", TensorProto.FLOAT, 2), info("y", TensorProto.FLOAT, 2)
    path = b.save(tmp_path / "m.onnx", [x], [y], ir_version=99)
    error = refused(plan_of, path)
    assert (error.code, "newer" in str(error)) == ("unsupported", True)


def test_an_operator_that_does_not_exist(tmp_path: Path, plan_of: Any) -> None:
    b = Builder()
    b.op("NoSuchThing", "x", out="y")
    x, y = info("x", TensorProto.FLOAT, 2), info("y", TensorProto.FLOAT, 2)
    error = refused(plan_of, b.save(tmp_path / "m.onnx", [x], [y]))
    assert (error.code, "operator" in str(error)) == ("unsupported", True)


def test_a_graph_that_is_not_valid(tmp_path: Path, plan_of: Any) -> None:
    b = Builder()
    b.op("Add", "x", "nowhere", out="y")
    x, y = info("x", TensorProto.FLOAT, 2), info("y", TensorProto.FLOAT, 2)
    error = refused(plan_of, b.save(tmp_path / "m.onnx", [x], [y]))
    assert error.code == "corrupt"


def test_a_file_that_has_changed_since_it_was_planned(tmp_path: Path, plan_of: Any) -> None:
    path = affine(tmp_path / "m.onnx")
    plan = plan_of(path)
    path.write_bytes(b"something else")
    with pytest.raises(LoadError) as caught:
        load(plan, lambda _: None, None)
    assert caught.value.code == "corrupt"


def test_a_decoder_without_its_tokenizer(tmp_path: Path, plan_of: Any) -> None:
    path = decoder(tmp_path / "d")
    plan = plan_of(path)
    (tmp_path / "d" / "tokenizer.json").write_text("{}")
    with pytest.raises(LoadError, match="no tokenizer"):
        load(plan, lambda _: None, None)


def test_texts_of_a_graph_that_mixes_rows_never_meet(tmp_path: Path, plan_of: Any) -> None:
    path = encoder(tmp_path / "mixed")
    graph = onnx.load(str(path))
    last = next(node for node in graph.graph.node if node.output[0] == "last_hidden_state")
    last.output[0] = "hidden"
    mean = onnx.helper.make_node("ReduceMean", ["hidden"], ["mean"], axes=[0, 1])
    graph.graph.node.extend([mean, onnx.helper.make_node("Sub", ["hidden", "mean"], ["last_hidden_state"])])
    onnx.save(graph, str(path))
    engine: Any = load(plan_of(path), lambda _: None, None)
    assert engine._texts.kind("", 5) != engine._texts.kind("", 5)


def embedded(engine: Any, *inputs: list[int]) -> Any:
    engine.embed(Embed("a", 1, list(inputs)))
    events = []
    while engine.busy() or engine._lanes.running:
        events += engine.step()
    assert [event.error for event in events if isinstance(event, Finished)] == [""]
    told = b"".join(event.vectors for event in events if isinstance(event, Embedded))
    return np.frombuffer(told, np.float32).reshape(len(inputs), -1)


@pytest.mark.parametrize("rows", [0, 1])
def test_a_graph_of_one_length_is_filled_up_to_it(tmp_path: Path, plan_of: Any, rows: int) -> None:
    texts = [2, 5, 3], [2, 6, 7, 3]
    free = encoder(tmp_path / "free")
    expected = embedded(load(plan_of(free), lambda _: None, None), *texts)
    graph = onnx.load(str(free))
    for port in [*graph.graph.input, *graph.graph.output]:
        dims = port.type.tensor_type.shape.dim
        dims[1].dim_value = 24
        if rows:
            dims[0].dim_value = rows
    onnx.save(graph, str(fixed := encoder(tmp_path / "fixed")))
    assert read_facts(str(fixed)).n_ctx_train == 24
    np.testing.assert_allclose(embedded(load(plan_of(fixed), lambda _: None, None), *texts), expected, atol=1e-5)


def test_a_decoder_may_embed_without_its_past(tmp_path: Path, plan_of: Any) -> None:
    path = decoder(tmp_path / "embeds")
    graph = onnx.load(str(path))
    last = next(node for node in graph.graph.node if node.output[0] == "logits")
    graph.graph.node.append(onnx.helper.make_node("Identity", [last.input[0]], ["last_hidden_state"]))
    graph.graph.output[0].name = "last_hidden_state"
    graph.graph.output[0].type.tensor_type.shape.dim[2].dim_value = 64
    onnx.save(graph, str(path))
    texts = [4, 5, 6], [7, 8, 9], [4, 5]
    engine = load(plan_of(path, batching=Batching(4, (4,))), lambda _: None, None)
    together = embedded(engine, *texts)
    alone = [embedded(load(plan_of(path), lambda _: None, None), text)[0] for text in texts]
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_a_decoder_that_gives_no_states_embeds_nothing(plan_of: Any, onnx_models: Any) -> None:
    error = refused(plan_of, onnx_models["decoder"], task="embed", pooling="mean")
    assert (error.code, "last_hidden_state" in str(error)) == ("unsupported", True)


@pytest.mark.parametrize("token", [10**30, 5000, -1])
def test_tokens_that_do_not_exist_end_and_fill_nothing(tmp_path: Path, plan_of: Any, token: int) -> None:
    config = tmp_path / "reads" / "config.json"
    path = encoder(config.parent)
    config.write_text(json.dumps(json.loads(config.read_text()) | {"pad_token_id": token}))
    embedded(load(plan_of(path, batching=Batching(4, (2,))), lambda _: None, None), [4, 5, 6], [7])
    config = tmp_path / "writes" / "config.json"
    path = decoder(config.parent)
    config.write_text(json.dumps(json.loads(config.read_text()) | {"eos_token_id": token}))
    engine: Any = load(plan_of(path), lambda _: None, None)
    engine.submit(Submit("a", 1, [4, 5], 2, SamplingParams(max_tokens=3, temperature=0.0, ignore_eos=True)))
    while engine.busy():
        engine.step()
