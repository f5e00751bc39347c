"""Tensors as they cross the process wall, to arrays and back."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ..messages import Tensor
from ..tensors import pack_strings, unpack_strings
from .session import DTYPE_NAMES, dtype_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    Array = npt.NDArray[Any]


def to_arrays(tensors: Sequence[Tensor], data: bytes | memoryview) -> dict[str, Array]:
    """Views of `data`; strings are taken out of it. Raises ValueError for bytes that are no such tensor."""
    arrays, at = {}, 0
    for tensor in tensors:
        part = memoryview(data)[at : at + tensor.n_bytes]
        at += tensor.n_bytes
        if tensor.datatype == "BYTES":
            arrays[tensor.name] = _strings(part, tensor.shape)
        else:
            arrays[tensor.name] = np.frombuffer(part, dtype_of(tensor.datatype)).reshape(tensor.shape)
    return arrays


def from_array(name: str, array: Array) -> tuple[Tensor, bytes | memoryview]:
    """What crosses the wall of one array. Raises ValueError for a type that the protocol has no name for."""
    datatype = "BYTES" if array.dtype == object else DTYPE_NAMES.get(array.dtype)
    if datatype is None:
        raise ValueError(f"{array.dtype} has no name")
    if datatype == "BYTES":
        data: bytes | memoryview = pack_strings(map(_raw, array.flat))
    else:
        whole = np.ascontiguousarray(array)
        data = whole.reshape(-1).view(np.uint8).data if whole.size else b""
    return Tensor(name, datatype, list(array.shape), len(data)), data


def _strings(data: memoryview, shape: Sequence[int]) -> Array:
    elements = list(unpack_strings(data))
    if len(elements) != math.prod(shape):
        raise ValueError("the elements are not as many as the shape says")
    array = np.empty(len(elements), object)
    array[:] = elements
    return array.reshape(shape)


def _raw(element: object) -> bytes:
    return element if isinstance(element, bytes) else str(element).encode()
