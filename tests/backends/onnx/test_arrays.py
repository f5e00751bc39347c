from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.backends.messages import Tensor
from inferd.backends.onnx.arrays import from_array, to_arrays
from inferd.backends.onnx.session import DTYPE_NAMES

SHAPES = st.lists(st.integers(0, 4), max_size=4)


@given(st.sampled_from(sorted(DTYPE_NAMES, key=str)), SHAPES)
def test_arrays_cross_as_they_are(dtype: Any, shape: list[int]) -> None:
    array = np.arange(int(np.prod(shape))).astype(dtype).reshape(shape)
    tensor, data = from_array("x", array)
    assert (tensor.shape, tensor.n_bytes) == (shape, len(data))
    again = to_arrays([tensor], bytes(data))["x"]
    np.testing.assert_array_equal(again, array)
    assert again.dtype == array.dtype


@given(st.lists(st.text(max_size=8), max_size=6))
def test_strings_cross_as_they_are(texts: list[str]) -> None:
    array = np.empty(len(texts), object)
    array[:] = texts
    tensor, data = from_array("s", array)
    assert tensor.datatype == "BYTES"
    assert list(to_arrays([tensor], bytes(data))["s"]) == texts


def test_tensors_follow_one_another() -> None:
    parts = [from_array("a", np.arange(3, dtype=np.int64)), from_array("b", np.ones((2, 2), np.float32))]
    data = b"".join(bytes(data) for _, data in parts)
    arrays = to_arrays([tensor for tensor, _ in parts], data)
    assert arrays["a"].tolist() == [0, 1, 2]
    assert arrays["b"].tolist() == [[1, 1], [1, 1]]


def test_a_transposed_array_crosses_in_its_own_order() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3).T
    tensor, data = from_array("x", array)
    np.testing.assert_array_equal(to_arrays([tensor], bytes(data))["x"], array)


@pytest.mark.parametrize("data", [b"\x05\0\0\0abc", b"\x01\0\0\0a", b"\x01\0\0\0a\x01\0\0\0b\x01\0\0\0c"])
def test_strings_that_are_none_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="element"):
        to_arrays([Tensor("s", "BYTES", [2], len(data))], data)


def test_a_type_without_a_name_is_refused() -> None:
    with pytest.raises(ValueError, match="no name"):
        from_array("x", np.ones(1, np.complex64))
