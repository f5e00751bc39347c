from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from onnx import TensorProto

from inferd.backends.onnx.session import Session
from inferd.backends.onnx.trial import shares_safely
from inferd.tests.models.random_onnx import Builder, Size, affine, encoder_graph, info, over_rows, quantized

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
