from __future__ import annotations

import numpy as np

from inferd.backends.messages import Infer, Tensor
from inferd.backends.onnx.session import Port
from inferd.backends.onnx.shape import Shape

X, Y = Port("x", "FP32", ("b", 4)), Port("y", "FP32", ("b", 4))
TEXT = [Port("input_ids", "INT64", ("b", "s")), Port("attention_mask", "INT64", ("b", "s"))]
HIDDEN, POOLED = Port("hidden", "FP32", ("b", "s", 3)), Port("pooled", "FP32", ("b", 3))


def order(*tensors: Tensor, outputs: list[str] | None = None, salt: str = "") -> Infer:
    return Infer("j", 1, list(tensors), outputs or [], b"", salt=salt)


def text(rows: int, length: int) -> list[Tensor]:
    return [Tensor(name, "INT64", [rows, length], 0) for name in ("input_ids", "attention_mask")]


def test_rows_count_where_they_may_share_a_call() -> None:
    tensor = Tensor("x", "FP32", [3, 4], 48)
    assert Shape([X], [Y], 32).n_rows([tensor]) == 3
    assert Shape([X], [Y], 0).n_rows([tensor]) == 1
    assert Shape([X], [Y], 32).n_tokens([tensor]) == 3
    assert Shape(TEXT, [HIDDEN], 32).n_tokens(text(3, 10)) == 30


def test_equals_are_those_that_differ_in_rows_only() -> None:
    shape = Shape([X], [Y], 32)
    two, three = order(Tensor("x", "FP32", [2, 4], 32)), order(Tensor("x", "FP32", [3, 4], 48))
    assert shape.kind(two) == shape.kind(three)
    assert shape.kind(two) != shape.kind(order(*two.inputs, outputs=["y"]))
    assert shape.kind(two) != shape.kind(order(*two.inputs, salt="tenant"))
    none = order(Tensor("x", "FP32", [0, 4], 0))
    assert shape.kind(none) != shape.kind(none)
    alone = Shape([X], [Y], 0)
    assert alone.kind(two) != alone.kind(two)


def test_lengths_do_not_part_texts_that_can_be_padded() -> None:
    shape = Shape(TEXT, [HIDDEN], 32)
    assert shape.kind(order(*text(1, 5))) == shape.kind(order(*text(1, 9)))
    assert (shape.length(text(1, 5)), shape.length(text(1, 9))) == (5, 9)
    strict = Shape(TEXT, [Port("odd", "FP32", ("b", "t"))], 32)
    assert strict.kind(order(*text(1, 5))) != strict.kind(order(*text(1, 9)))
    assert strict.length(text(1, 5)) == 0


def test_texts_are_joined_and_taken_apart_again() -> None:
    shape = Shape(TEXT, [HIDDEN, POOLED], 32)
    short = {name: np.full((2, 3), 1, np.int64) for name in ("input_ids", "attention_mask")}
    long = {name: np.full((1, 5), 1, np.int64) for name in ("input_ids", "attention_mask")}
    feeds = shape.join([short, long], pad=7)
    assert feeds["input_ids"].tolist() == [[1, 1, 1, 7, 7], [1, 1, 1, 7, 7], [1] * 5]
    assert feeds["attention_mask"].tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 0, 0], [1] * 5]
    hidden = np.arange(45, dtype=np.float32).reshape(3, 5, 3)
    np.testing.assert_array_equal(shape.part("hidden", hidden, 0, 2, 3), hidden[:2, :3])
    np.testing.assert_array_equal(shape.part("hidden", hidden, 2, 1, 5), hidden[2:])
    pooled = hidden[:, 0]
    np.testing.assert_array_equal(shape.part("pooled", pooled, 0, 2, 3), pooled[:2])


def test_one_request_alone_is_passed_on_as_it_is() -> None:
    array = np.ones((2, 4), np.float32)
    assert Shape([X], [Y], 32).join([{"x": array}], 0)["x"] is array


def test_what_does_not_go_together_is_left_to_the_graph() -> None:
    ids, mask = text(1, 6)[0], text(1, 8)[1]
    shape = Shape(TEXT, [HIDDEN], 32)
    assert shape.kind(order(ids, mask)) != shape.kind(order(ids, mask))
