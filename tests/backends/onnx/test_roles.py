from __future__ import annotations

from typing import Any

import pytest

from inferd.backends.onnx.graph import Tensor
from inferd.backends.onnx.roles import roles_of


def tensors(**axes: Any) -> list[Tensor]:
    return [Tensor(name.replace("__", "."), "FP32", shape) for name, shape in axes.items()]


TEXT = tensors(input_ids=("batch", "seq"), attention_mask=("batch", "seq"))


def test_one_free_first_axis_is_the_batch() -> None:
    assert roles_of(tensors(x=("b", 4)), tensors(y=("b",))).batched
    assert not roles_of(tensors(x=("b", 4)), tensors(y=("c",))).batched
    assert not roles_of(tensors(x=(1, 4)), tensors(y=(1, 4))).batched
    assert not roles_of(tensors(x=("", 4)), tensors(y=("", 4))).batched
    assert not roles_of(tensors(x=("b", 4)), tensors(y=())).batched
    assert not roles_of(tensors(x=("b", 4)), tensors(y=None)).batched


@pytest.mark.parametrize(
    ("output", "padded"),
    [
        (("batch", "seq", 64), True),
        (("batch", 64), True),
        (("batch", "other", 64), False),
        (("batch", "", 64), False),
        (("batch",), True),
    ],
)
def test_texts_are_padded_where_every_output_can_be_cut_back(output: Any, padded: bool) -> None:
    assert roles_of(TEXT, tensors(out=output)).sequence == ("seq" if padded else "")


def test_nothing_is_padded_without_a_mask_or_beside_what_is_no_text() -> None:
    out = tensors(out=("batch", 64))
    assert roles_of(TEXT[:1], out).sequence == ""
    assert roles_of([*TEXT, *tensors(picture=("batch", "seq"))], out).sequence == ""
    assert roles_of([TEXT[0], *tensors(attention_mask=("batch", "seq", "seq"))], out).sequence == ""


def test_text_inputs_are_known_by_name() -> None:
    assert roles_of(TEXT, []).text
    assert not roles_of(tensors(input_ids=("b", "s"), pixel_values=("b", 3)), []).text


def test_the_past_is_in_the_order_of_the_layers() -> None:
    names = [f"{i}__{kind}" for i in (10, 2, 0) for kind in ("value", "key")]
    past = tensors(**{f"past_key_values__{name}": ("b", 2, "p", 8) for name in names})
    present = tensors(**{f"present__{name}": ("b", 2, "t", 8) for name in names})
    roles = roles_of([*TEXT, *past], present)
    assert roles.past == tuple(f"past_key_values.{i}.{kind}" for i in (0, 2, 10) for kind in ("key", "value"))
    assert roles.present == tuple(name.replace("past_key_values", "present") for name in roles.past)
    assert roles.text
