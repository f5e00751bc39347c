"""Tensors that a request brings: every name, type, shape and byte is checked before a worker sees them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...backends.tensors import ELEMENT_BYTES, cost_tokens, unpack_strings
from .errors import Code, InferdError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ...backends.blob import Blob
    from ...backends.facts import ModelFacts, TensorFacts
    from ...backends.messages import Tensor

MAX_TENSORS = 1024  # of a request
MAX_DIMS = 16
MAX_NAME_CHARS = 256
MAX_BYTES = 63 * 2**20  # of all inputs: messages have at most 64 MiB


@dataclass(frozen=True, slots=True)
class Tensors:
    """The inputs of one request, whose values follow one another in `blob`; that belongs to who made the request."""

    inputs: Sequence[Tensor]
    blob: Blob
    outputs: Sequence[str] = ()  # that are wanted; empty: all
    batched: bool = True  # their first sizes are rows; else all of them are one

    @property
    def n_rows(self) -> int:
        return max((tensor.shape[0] for tensor in self.inputs if tensor.shape), default=1) if self.batched else 1

    @property
    def n_tokens(self) -> int:
        """What the request counts for in turns and shares: tokens of texts, else rows."""
        ids = next((math.prod(t.shape) for t in self.inputs if t.name == "input_ids"), 0)
        return ids or cost_tokens(self.n_rows, self.inputs)


@dataclass(frozen=True, slots=True)
class Outputs:
    """What tensors have become, as they were; its reader closes the blob."""

    tensors: Sequence[Tensor]
    blob: Blob


def check_n_tensors(field: str, n: int) -> None:
    """Raises InferdError naming the field."""
    if n > MAX_TENSORS:
        message = f"{field} takes at most {MAX_TENSORS:,} tensors, not {n:,}"
        raise InferdError(Code.INVALID, message, field=field, highest=MAX_TENSORS)


def check_shape(field: str, name: str, datatype: str, shape: Sequence[int]) -> int:
    """What can be said of one tensor without the model. Returns its elements. Raises InferdError naming the field."""
    if not name or len(name) > MAX_NAME_CHARS:
        raise InferdError(
            Code.INVALID, f"{field}.name must have 1 to {MAX_NAME_CHARS} characters", field=f"{field}.name"
        )
    if datatype not in ELEMENT_BYTES:
        known = ", ".join(ELEMENT_BYTES)
        message = f"{field}.datatype must be one of {known}, not {datatype[:32]!r}"
        raise InferdError(Code.INVALID, message, field=f"{field}.datatype")
    if len(shape) > MAX_DIMS or any(size < 0 for size in shape):
        message = f"{field}.shape must have at most {MAX_DIMS} sizes, none of them negative"
        raise InferdError(Code.INVALID, message, field=f"{field}.shape", highest=MAX_DIMS)
    # A size of none hides what the others claim, and rows are counted and charged for.
    if math.prod(max(1, size) for size in shape) * max(1, ELEMENT_BYTES[datatype]) > MAX_BYTES:
        message = f"{field}.shape {list(shape)} of {datatype} says more than the {MAX_BYTES:,} bytes that are allowed"
        raise InferdError(Code.INVALID, message, field=f"{field}.shape", highest=MAX_BYTES)
    return math.prod(shape)


def check_n_bytes(field: str, tensor: Tensor, data: bytes) -> None:
    """The bytes are as many as the shape says. Raises InferdError naming the field."""
    n = math.prod(tensor.shape)
    if tensor.datatype == "BYTES":
        return _check_strings(field, data, n)
    wanted = n * ELEMENT_BYTES[tensor.datatype]
    if len(data) != wanted:
        message = f"{field} has {len(data):,} bytes, but {tensor.datatype} of shape {list(tensor.shape)} has {wanted:,}"
        raise InferdError(Code.INVALID, message, field=field, wanted=wanted)
    return None


def _check_strings(field: str, data: bytes, wanted: int) -> None:
    """Each element is its length, in four bytes, and so many bytes of UTF-8."""
    try:
        n = sum(1 for _ in unpack_strings(data))
    except ValueError as error:
        raise InferdError(Code.INVALID, f"{field}: {error}", field=field) from None
    if n != wanted:
        raise InferdError(Code.INVALID, f"{field} has {n:,} elements, but its shape says {wanted:,}", field=field)


def check_total(n_bytes: int) -> None:
    """Of all inputs together. Raises InferdError."""
    if n_bytes > MAX_BYTES:
        message = f"inputs have {n_bytes:,} bytes together, at most {MAX_BYTES:,} are allowed"
        raise InferdError(Code.INVALID, message, field="inputs", highest=MAX_BYTES)


def check_ports(tensors: Tensors, name: str, facts: ModelFacts) -> None:
    """The tensors are those that the model takes. Raises InferdError naming the input and what is wanted."""
    wanted = {port.name: port for port in facts.inputs}
    given: dict[str, Tensor] = {}
    for i, tensor in enumerate(tensors.inputs):
        field = f"inputs[{i}]"
        if tensor.name in given:
            raise InferdError(Code.INVALID, f"{field}: {tensor.name!r} is given twice", field=f"{field}.name")
        if (port := wanted.get(tensor.name)) is None:
            message = f"{field}: {name} has no input {tensor.name!r}; its inputs are {_names(wanted)}"
            raise InferdError(Code.INVALID, message, field=f"{field}.name")
        _check_port(field, tensor, port)
        given[tensor.name] = tensor
    if missing := [port for port in wanted if port not in given]:
        message = f"inputs: {name} needs {_names(wanted)}; {_names(missing)} not given"
        raise InferdError(Code.INVALID, message, field="inputs")
    if facts.batched and len({tensor.shape[0] for tensor in tensors.inputs}) > 1:
        raise InferdError(Code.INVALID, "inputs: all of them must have the same first size", field="inputs")
    for i, output in enumerate(tensors.outputs):
        if output not in (known := [port.name for port in facts.outputs]):
            message = f"outputs[{i}]: {name} has no output {output[:64]!r}; its outputs are {_names(known)}"
            raise InferdError(Code.INVALID, message, field=f"outputs[{i}].name")


def _check_port(field: str, tensor: Tensor, port: TensorFacts) -> None:
    if tensor.datatype != port.datatype:
        message = f"{field}: {tensor.name!r} must be {port.datatype}, not {tensor.datatype}"
        raise InferdError(Code.INVALID, message, field=f"{field}.datatype")
    if port.shape is None:
        return
    fits = len(tensor.shape) == len(port.shape)
    if not fits or any(want not in (-1, got) for want, got in zip(port.shape, tensor.shape, strict=True)):
        message = f"{field}: {tensor.name!r} must have the shape {list(port.shape)} (-1: any), not {list(tensor.shape)}"
        raise InferdError(Code.INVALID, message, field=f"{field}.shape")


def _names(names: Iterable[str]) -> str:
    return ", ".join(repr(name[:64]) for name in list(names)[:16]) or "none"
