"""Tensors on their way between the daemon and a worker, and what a call of a graph took."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

# The Open Inference Protocol's names, with the bytes of an element; strings have none of their own.
ELEMENT_BYTES: Mapping[str, int] = {
    "BOOL": 1,
    "UINT8": 1,
    "INT8": 1,
    "UINT16": 2,
    "INT16": 2,
    "FP16": 2,
    "UINT32": 4,
    "INT32": 4,
    "FP32": 4,
    "UINT64": 8,
    "INT64": 8,
    "FP64": 8,
    "BYTES": 0,
}
_LENGTH = struct.Struct("<I")


def pack_strings(values: Iterable[bytes]) -> bytes:
    """The elements of a tensor of BYTES: each with its length before it."""
    return b"".join(_LENGTH.pack(len(value)) + value for value in values)


def unpack_strings(data: bytes | memoryview) -> Iterator[str]:
    """The elements that were packed. Raises ValueError naming the first that is cut short or no UTF-8."""
    at = n = 0
    while at < len(data):
        first = at + _LENGTH.size
        end = first + int.from_bytes(data[at:first], "little")
        if end > len(data):
            raise ValueError(f"element {n} is longer than the tensor")
        try:
            yield str(data[first:end], "utf-8")
        except UnicodeDecodeError:
            raise ValueError(f"element {n} is not valid UTF-8") from None
        at, n = end, n + 1


MANY_ROWS = 1024  # more of them are the values of something long, such as a sound


class Call(msgspec.Struct, frozen=True, array_like=True):
    """A request's part in one call of a graph, where several may have one."""

    n_rows: int  # of all of them
    counts: bool  # it is the one of them by which the call is counted
    input_ms: float  # putting the inputs together
    infer_ms: float
    output_ms: float  # taking the outputs apart


class Tensor(msgspec.Struct, frozen=True, array_like=True):
    """What is known of a tensor; its values come beside it, in the machine's order, row by row.

    BYTES: each element is its length, as a little-endian 32-bit number, and so many bytes.
    """

    name: str
    datatype: str
    shape: list[int]
    n_bytes: int


def cost_tokens(n_rows: int, tensors: Sequence[Tensor]) -> int:
    """What a request without texts counts for in turns and shares: its rows, of very many small ones the KiB."""
    return max(1, min(n_rows, max(MANY_ROWS, sum(tensor.n_bytes for tensor in tensors) >> 10)))


class Infer(msgspec.Struct, frozen=True, array_like=True, tag="infer"):
    """Compute the outputs of that name from these tensors. Their values follow one another in `data`, or in a file that
    was sent just before on the shelf's socket."""

    job: str
    attempt: int
    inputs: list[Tensor]
    outputs: list[str]  # empty: all
    data: bytes | None
    rank: int = 0  # the highest is computed first
    due_s: float = 0.0  # of the monotonic clock; of equal ranks the earliest is computed first. 0: no deadline
    salt: str = ""  # where company moves a result, only requests of the same one share a call


class Inferred(msgspec.Struct, frozen=True, array_like=True, tag="inferred"):
    """The outputs of a job; where they are see Infer. Its Finished follows."""

    job: str
    attempt: int
    outputs: list[Tensor]
    data: bytes | None
    call: Call | None = None
