from __future__ import annotations

import contextlib
import io
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from inferd.backends.onnx.graph import MAX_DEPTH, Tensor, parse, read
from inferd.backends.onnx.proto import BadProto
from inferd.tests.models.random_onnx import Builder, Size, affine, encoder_graph, info

if TYPE_CHECKING:
    from pathlib import Path

X, Y = info("x", TensorProto.FLOAT, "n"), info("y", TensorProto.FLOAT, "n")


def model(nodes: list[Any], weights: list[Any] = [], **changes: Any) -> onnx.ModelProto:  # noqa: B006 -- read only
    graph = helper.make_graph(nodes, "g", changes.pop("inputs", [X]), changes.pop("outputs", [Y]), weights)
    return helper.make_model(graph, **changes)


def parsed(proto: onnx.ModelProto) -> Any:
    return parse(io.BytesIO(proto.SerializeToString()))


IDENTITY = helper.make_node("Identity", ["x"], ["y"])


def test_a_graph_tells_what_it_takes_and_gives(tmp_path: Path) -> None:
    graph = read(str(affine(tmp_path / "m.onnx")))
    assert graph.inputs == [Tensor("x", "FP32", ("batch", 4))]
    assert graph.outputs == [Tensor("y", "FP32", ("batch", 4)), Tensor("total", "FP32", ("batch",))]
    assert graph.ops == {("", "Mul"), ("", "Add"), ("", "ReduceSum")}
    assert (graph.opsets[""], graph.n_nodes) == (17, 3)


def test_weights_are_counted_as_the_library_counts_them(tmp_path: Path) -> None:
    path = encoder_graph(tmp_path / "m.onnx", Size())
    initializers = onnx.load(str(path)).graph.initializer
    graph = read(str(path))
    assert graph.n_params == sum(int(np.prod(w.dims)) for w in initializers)
    assert graph.weights_bytes == sum(numpy_helper.to_array(w).nbytes for w in initializers)


def test_an_input_with_a_value_need_not_be_given() -> None:
    weight = numpy_helper.from_array(np.ones(3, np.float32), "w")
    proto = model([helper.make_node("Add", ["x", "w"], ["y"])], [weight], inputs=[X, info("w", TensorProto.FLOAT, 3)])
    assert [tensor.name for tensor in parsed(proto).inputs] == ["x"]


def test_operators_and_weights_in_subgraphs_and_functions_are_seen() -> None:
    constant = helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.ones(5, np.float32)))
    inner = helper.make_graph([constant, helper.make_node("Odd", ["c"], ["o"], domain="com.odd")], "b", [], [Y])
    condition = numpy_helper.from_array(np.array(True), "if")
    branch = helper.make_node("If", ["if"], ["y"], then_branch=inner, else_branch=inner)
    function = helper.make_function("my.own", "Twice", ["a"], ["b"], [helper.make_node("Neg", ["a"], ["b"])], [])
    graph = parsed(model([branch], [condition], functions=[function]))
    assert {("com.odd", "Odd"), ("", "Constant"), ("", "Neg")} < graph.ops
    assert graph.functions == {("my.own", "Twice")}
    assert graph.weights_bytes == 2 * 20 + 1


def test_weights_elsewhere_are_listed(tmp_path: Path) -> None:
    b = Builder()
    b.op("Add", "x", b.weight(3000), out="y")
    path = b.save(
        tmp_path / "m.onnx",
        [X],
        [Y],
        save_as_external_data=True,
        location="w.bin",
        size_threshold=0,
        convert_attribute=True,
    )
    (external,) = read(str(path)).external
    assert (external.location, external.offset, external.n_bytes) == ("w.bin", 0, 12_000)


def test_types_without_a_name_and_unknown_shapes() -> None:
    sequence = helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, None)
    loose = helper.make_value_info("y", helper.make_tensor_type_proto(TensorProto.FLOAT, None))
    graph = parsed(model([IDENTITY], inputs=[X, sequence, info("b", TensorProto.BFLOAT16, 2)], outputs=[loose]))
    assert graph.inputs[1:] == [Tensor("s", "", None), Tensor("b", "", (2,))]
    assert graph.outputs == [Tensor("y", "FP32", None)]


def nested(depth: int) -> onnx.ModelProto:
    graph = helper.make_graph([IDENTITY], "b", [], [Y])
    for _ in range(depth):
        graph = helper.make_graph(
            [helper.make_node("If", ["x"], ["y"], then_branch=graph, else_branch=graph)], "b", [], [Y]
        )
    return model([helper.make_node("If", ["x"], ["y"], then_branch=graph)])


def short_weights() -> onnx.ModelProto:
    weight = numpy_helper.from_array(np.ones(3, np.float32), "w")
    weight.dims[0] = 10**9
    return model([IDENTITY], [weight])


def many_axes() -> onnx.ModelProto:
    """Their product alone would take minutes."""
    weight = numpy_helper.from_array(np.ones(3, np.float32), "w")
    weight.dims.extend([2**62] * 200_000)
    return model([IDENTITY], [weight])


def misplaced(**entries: str) -> onnx.ModelProto:
    weight = numpy_helper.from_array(np.ones(3, np.float32), "w")
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        weight.external_data.add(key=key, value=value)
    return model([IDENTITY], [weight])


@pytest.mark.parametrize(
    ("proto", "why"),
    [
        (onnx.ModelProto(), "no graph"),
        (onnx.ModelProto(ir_version=8), "no graph"),
        (model([IDENTITY], outputs=[]), "no outputs"),
        (nested(5), ""),
        (short_weights(), "shorter than they say"),
        (many_axes(), "more than 64 axes"),
        (model([IDENTITY], outputs=[helper.make_tensor_value_info("y", 1, [1] * 65)]), "more than 64 axes"),
        (model([helper.make_node("I" * 2**17, ["x"], ["y"])]), "a text in it"),
        (misplaced(), "no valid place"),
        (misplaced(location="w", offset="-1"), "no valid place"),
        (misplaced(location="w", offset="x"), "no valid place"),
        (misplaced(location="w", length="99"), "no valid place"),
    ],
)
def test_what_is_no_model_is_refused(proto: onnx.ModelProto, why: str) -> None:
    if not why:
        parsed(proto)
        return
    with pytest.raises(BadProto, match=why):
        parsed(proto)


def test_depth_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inferd.backends.onnx.graph.MAX_DEPTH", 4)
    with pytest.raises(BadProto, match="4 deep"):
        parsed(nested(5))
    assert MAX_DEPTH >= 32


def test_an_empty_file_and_text_are_refused(tmp_path: Path) -> None:
    for data in (b"", b"not a model at all", b"\x08\x07"):
        (tmp_path / "m.onnx").write_bytes(data)
        with pytest.raises(BadProto):
            read(str(tmp_path / "m.onnx"))


WHOLE = model([IDENTITY], [numpy_helper.from_array(np.arange(40, dtype=np.float32), "w")]).SerializeToString()


@settings(max_examples=300)
@given(st.integers(0, len(WHOLE) - 1), st.integers(0, 255), st.integers(0, len(WHOLE)))
def test_a_damaged_file_is_read_or_refused(at: int, byte: int, end: int) -> None:
    damaged = bytearray(WHOLE)
    damaged[at] = byte
    for data in (bytes(damaged), WHOLE[:end]):
        with contextlib.suppress(BadProto):
            parse(io.BytesIO(data))
