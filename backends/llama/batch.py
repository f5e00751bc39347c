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
ALONE_MS = 1000.0  # what one step of prompts may take: it bounds how late a cancel or a new request is heard
BESIDE_MS = 150.0  # and beside running requests: the gap between two of their tokens


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


def plan_fast(sequences: Many[Sequence], chunk: int, n_ubatch: int) -> list[Call]:
    """One call: every decoding row and up to `chunk` prompt rows, first come first served."""
    call = Call([Piece(s, 1) for s in sequences if s.decoding])
    room = n_ubatch - call.n_rows
    chunk = min(chunk, room)
    for s in sequences:
        if s.decoding:
            continue
        n_rows = _share(s.n_left, chunk, room)
        if not n_rows and all(piece.sequence.decoding for piece in call.pieces):
            n_rows = min(s.n_left, chunk)  # slow rows rather than none
        if n_rows:
            call.pieces.append(Piece(s, n_rows))
            chunk -= n_rows
            room -= n_rows
        if n_rows < s.n_left:
            break  # those behind wait for their turn
    return [call] if call.pieces else []


def _share(n_left: int, chunk: int, room: int) -> int:
    """Rows of a prompt with `n_left` to go: never a short piece of a long prompt, first or last."""
    if n_left <= chunk or (n_left < 2 * BLOCK and n_left <= min(room, chunk + BLOCK) and chunk >= BLOCK):
        return n_left
    n_rows = chunk if n_left - chunk >= BLOCK else n_left - BLOCK
    return n_rows if n_rows >= BLOCK else 0


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
