"""Decoders as other exports have them: they count places themselves, or are two graphs in one file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from .random_onnx import Builder, info

if TYPE_CHECKING:
    from pathlib import Path


def counting(path: Path) -> Path:
    """It is not told the positions, and counts those of its past."""
    model, b = onnx.load(str(path)), Builder()
    b._n = 1_000_000  # names beyond those that are there
    graph = model.graph
    graph.input.remove(next(port for port in graph.input if port.name == "position_ids"))
    past = b.op("Gather", b.op("Shape", "past_key_values.0.key"), b.constant(np.int64(2)), axis=0)
    n_new = b.op("Gather", b.op("Shape", "input_ids"), b.constant(np.int64(1)), axis=0)
    places = b.op("Range", past, b.op("Add", past, n_new), b.constant(np.int64(1)))
    b.op("Unsqueeze", places, b.ints(0), out="position_ids")
    for i, node in enumerate(b.nodes):
        graph.node.insert(i, node)
    graph.initializer.extend(b.weights)
    onnx.save(model, str(path))
    return path


def merged(path: Path, to: Path) -> Path:
    """Two graphs in one: one that knows no past, and one that takes a single token after it."""
    model = onnx.load(str(path))
    first = onnx.compose.add_prefix_graph(model.graph, "first/", rename_inputs=False)
    after = onnx.compose.add_prefix_graph(model.graph, "after/", rename_inputs=False)
    for port in model.graph.input:
        if port.name.startswith("past_key_values"):
            heads, values = (port.type.tensor_type.shape.dim[i].dim_value for i in (1, 3))
            first.initializer.append(
                numpy_helper.from_array(np.zeros((1, heads, 0, values), np.float32), f"no_{port.name}")
            )
    for node in first.node:
        node.input[:] = [f"no_{name}" if name.startswith("past_key_values") else name for name in node.input]
    for node in after.node:
        node.input[:] = ["one" if name == "input_ids" else name for name in node.input]
    after.initializer.append(numpy_helper.from_array(np.array([0, 1]), "one_column"))
    after.node.insert(0, helper.make_node("Reshape", ["input_ids", "one_column"], ["one"]))
    for branch in (first, after):
        del branch.input[:]
    outputs = [port.name for port in model.graph.output]
    either = helper.make_node("If", ["use_cache_branch"], outputs, then_branch=after, else_branch=first)
    inputs = [*model.graph.input, info("use_cache_branch", TensorProto.BOOL, 1)]
    graph = helper.make_graph([either], "merged", inputs, model.graph.output)
    to.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(helper.make_model(graph, opset_imports=model.opset_import, ir_version=8), str(to))
    return to
