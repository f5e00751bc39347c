from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnx
import pytest
from onnx import TensorProto

from inferd.backends.engine import LoadError
from inferd.backends.onnx.causal import CausalEngine
from inferd.backends.onnx.engine import OnnxEngine
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
