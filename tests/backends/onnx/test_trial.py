from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from onnx import TensorProto

from inferd.backends.onnx.session import Session
from inferd.backends.onnx.shape import Shape
from inferd.backends.onnx.texts import Texts
from inferd.backends.onnx.trial import pads_safely, reads_apart, shares_safely
from inferd.tests.models.random_onnx import (
    TEXT_INPUTS,
    Builder,
    Size,
    affine,
    encoder_graph,
    info,
    over_rows,
    quantized,
)

if TYPE_CHECKING:
    from pathlib import Path


def session(path: Path) -> Session:
    return Session(str(path), [("CPUExecutionProvider", {})], 1)


def test_rows_that_are_apart_may_share_a_call(tmp_path: Path) -> None:
    assert shares_safely(session(affine(tmp_path / "a.onnx")), False)
    assert shares_safely(session(encoder_graph(tmp_path / "e.onnx", Size())), False)


def test_rows_that_look_at_each_other_may_not(tmp_path: Path) -> None:
    assert not shares_safely(session(over_rows(tmp_path / "m.onnx")), False)


def test_dynamic_scales_move_a_row_but_little(tmp_path: Path) -> None:
    path = quantized(encoder_graph(tmp_path / "e.onnx", Size()), tmp_path / "q.onnx")
    assert shares_safely(session(path), True)
    assert not shares_safely(session(over_rows(tmp_path / "m.onnx")), True)


@pytest.mark.parametrize("size", [16, 224, 300])
def test_a_graph_that_takes_nothing_we_make_is_left_alone(tmp_path: Path, size: int) -> None:
    b = Builder()
    b.op("Reshape", "x", b.ints(0, size), out="y")
    path = b.save(
        tmp_path / "m.onnx", [info("x", TensorProto.FLOAT, "b", "n")], [info("y", TensorProto.FLOAT, "b", size)]
    )
    assert shares_safely(session(path), False) is (size != 300)


def test_each_row_is_looked_at(tmp_path: Path) -> None:
    sums = Builder()
    sums.op("CumSum", "x", sums.constant(np.int64(0)), out="y")
    first = Builder()
    first.op("Sub", "x", first.op("Gather", "x", first.ints(0)), out="y")
    texts = Builder()
    texts.op("Gather", "x", texts.op("Mul", texts.op("Range", *_whole(texts, "x")), texts.ints(0)), out="y")
    for b, kind in ((sums, TensorProto.FLOAT), (first, TensorProto.FLOAT), (texts, TensorProto.STRING)):
        path = b.save(tmp_path / "m.onnx", [info("x", kind, "b", 4)], [info("y", kind, "b", 4)])
        assert not shares_safely(session(path), False)


def _whole(b: Builder, name: str) -> tuple[str, str, str]:
    """A range over the rows."""
    rows = b.op("Gather", b.op("Shape", name), b.constant(np.int64(0)))
    return b.constant(np.int64(0)), rows, b.constant(np.int64(1))


def last_column(path: Path) -> Path:
    """A text's vector is what is in the last column, mask or not."""
    b = Builder()
    words = b.op("Gather", b.weight(200, 8, scale=1.0), "input_ids")
    b.op("Mul", words, b.op("Cast", b.op("Unsqueeze", "attention_mask", b.ints(2)), to=TensorProto.FLOAT), out="h")
    b.op("Gather", "h", b.constant(np.int64(-1)), axis=1, out="sentence_embedding")
    return b.save(path, TEXT_INPUTS[:2], [info("sentence_embedding", TensorProto.FLOAT, "batch", 8)])


def test_a_mask_may_be_there_for_nothing(tmp_path: Path) -> None:
    for path, pads in ((last_column(tmp_path / "l.onnx"), False), (encoder_graph(tmp_path / "e.onnx"), True)):
        made = session(path)
        shape = Shape(made.inputs, made.outputs, 8)
        texts = Texts("embed", "mean", made.inputs, made.outputs, 0)
        assert shares_safely(made, False)
        assert reads_apart(made, texts, [16, 16], False)
        assert pads_safely(made, shape, 0, False) is pads
        assert reads_apart(made, texts, [16, 11], False) is pads
