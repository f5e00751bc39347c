"""Which rows are computed next: a token of every running request first, then a piece of the prompts.

Rows of one call share its kernels, and on a CPU those change at 64 rows: fewer rows of a long prompt are several
times dearer per row. With exact numerics a row must always meet the same kernel, so prompts are cut at multiples of
64 counted from their start, and whatever is shorter goes into calls of 2..63 rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence as Many

    from .sequence import Sequence

BLOCK = 64  # rows from which kernels for many rows are used
CHUNKS = (512, 256, 128, BLOCK)
ALONE_MS = 4000.0  # what one step of prompts may take: it bounds how late a new request joins
BESIDE_MS = 150.0  # and beside answers that flow: the gap between two of their tokens
LONG_MS = 100.0  # a call that takes longer can be broken off
FLOWS_FROM = 4  # tokens; an answer that has just begun belongs to the burst it came with, and waits for the rest of it


@dataclass(frozen=True, slots=True)
class Piece:
    """The next `n_rows` tokens of a sequence."""

    sequence: Sequence
    n_rows: int


@dataclass(slots=True)
class Call:
    """One llama_decode."""

    pieces: list[Piece] = field(default_factory=list)
    padded: bool = False  # a scratch row joins, so that there are two

    @property
    def n_rows(self) -> int:
        return sum(piece.n_rows for piece in self.pieces) + self.padded


def chunk_rows(n_ubatch: int, row_ms: float | None, *, beside: bool) -> int:
    """Prompt rows for one step, by the measured time of a row (None: not measured yet)."""
    largest = min(n_ubatch, 128 if beside else CHUNKS[0])
    budget_ms = BESIDE_MS if beside else ALONE_MS
    for rows in CHUNKS:
        if rows <= largest and (row_ms is None or rows * row_ms <= budget_ms):
            return rows
    return min(largest, BLOCK)


def is_long(n_rows: int, row_ms: float | None) -> bool:
    """Whether a call is worth the asking in between; tokens of running answers are not."""
    return n_rows >= BLOCK and (row_ms is None or n_rows * row_ms >= LONG_MS)


def anything_flows(sequences: Many[Sequence]) -> bool:
    """Somebody is reading an answer that a long step would interrupt."""
    return any(s.decoding and s.n_completion >= FLOWS_FROM for s in sequences)


def plan_fast(sequences: Many[Sequence], chunk: int, n_ubatch: int) -> list[Call]:
    """One call: every decoding row, then prompts, first come first served, up to `chunk` rows in all.

    Kernels take rows by four and a row left over costs as much as four, so the call is filled to the row. Where prompts
    are cut does not matter: the rows of the whole call decide its kernels.
    """
    call = Call([Piece(s, 1) for s in sequences if s.decoding])
    prompts = [s for s in sequences if not s.decoding]
    n_left = sum(s.n_left for s in prompts)
    if call.n_rows > chunk // 2:
        chunk += BLOCK
    n_rows = min(n_left, min(chunk, n_ubatch) - call.n_rows)
    if n_left - n_rows < BLOCK and call.n_rows + n_left <= n_ubatch:
        n_rows = n_left  # what would be left is a short call, and those are dear
    for s in prompts:
        if n_rows:
            piece = Piece(s, min(s.n_left, n_rows))
            call.pieces.append(piece)
            n_rows -= piece.n_rows
    return [call] if call.pieces else []


def plan_exact(sequences: Many[Sequence], chunk: int) -> list[Call]:
    """Small calls with the decoding rows and the ends of prompts, then whole blocks, each in a call of its own."""
    small = [Piece(s, 1) for s in sequences if s.decoding]
    calls = [Call(small[i : i + BLOCK - 1]) for i in range(0, len(small), BLOCK - 1)]
    blocks: list[Call] = []
    for s in sequences:
        if s.decoding:
            continue
        n_whole = s.n_prompt // BLOCK * BLOCK - s.n_computed
        if n_whole > 0:
            n_calls = min(n_whole, chunk) // BLOCK
            blocks += [Call([Piece(s, BLOCK)]) for _ in range(n_calls)]
            chunk -= n_calls * BLOCK
        else:
            _join(calls, s)
    for call in calls:
        call.padded = call.n_rows == 1
    return calls + blocks


def _join(calls: list[Call], s: Sequence) -> None:
    """Put as much of the end of a prompt as fits into the last small call."""
    if not calls:
        calls.append(Call())
    n_rows = min(s.n_left, BLOCK - 1 - calls[-1].n_rows)
    if n_rows > 0:
        calls[-1].pieces.append(Piece(s, n_rows))
