"""Tensors on their way between the daemon and a worker, and what a call of a graph took."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

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
