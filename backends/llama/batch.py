"""Which rows are computed next: a token of every running request first, then a piece of the prompts.

Rows of one call share its kernels, and on a CPU those change at 64 rows: fewer rows of a long prompt are several
times dearer per row. With exact numerics a row must always meet the same kernel, so prompts are cut at multiples of
64 counted from their start, and whatever is shorter goes into calls of 2..63 rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from .pace import BLOCK

if TYPE_CHECKING:
    from collections.abc import Sequence as Many

    from .pace import Pace
    from .sequence import Sequence

APART_CELLS = 768
FLOWS_FROM = 4  # tokens; an answer that has just begun belongs to the burst it came with, and waits for the rest of it


class Piece(NamedTuple):
    """The next `n_rows` tokens of a sequence; its draft comes on top."""

    sequence: Sequence
    n_rows: int


@dataclass(slots=True)
class Call:
    """One llama_decode."""

    pieces: list[Piece] = field(default_factory=list)
    n_padding: int = 0  # rows of the scratch sequence that join for the sake of the kernels

    @property
    def n_rows(self) -> int:
        return sum(piece.n_rows + len(piece.sequence.draft) for piece in self.pieces) + self.n_padding

    @property
    def n_attended(self) -> int:
        """Cells that its rows look at, in sum."""
        return sum(piece.n_rows * piece.sequence.n_computed for piece in self.pieces)

    def shed(self) -> bool:
        """Compute no guesses and no padding, but for a row that exact numerics need; False when there are none."""
        drafts = [piece.sequence.draft for piece in self.pieces if piece.sequence.draft]
        for draft in drafts:
            draft.clear()
        padded = self.n_padding > 1
        self.n_padding = 0 if padded else self.n_padding
        return bool(drafts) or padded


def flowing(sequences: Many[Sequence]) -> list[Sequence]:
    """Those whose answers somebody is reading, and a long step would interrupt."""
    return [s for s in sequences if s.decoding and s.n_completion >= FLOWS_FROM]


def apart(sequences: Many[Sequence]) -> bool:
    """Rows of one call look at each other's cells, if only to find them masked: whether prompts stay out of it."""
    return sum(s.n_computed for s in sequences if s.decoding) > APART_CELLS


def budget_ms(running: Many[Sequence], pace: Pace) -> float | None:
    """What a step may take for the sake of the answers that flow; None when none does."""
    limits_ms = [s.submit.itl_target_ms for s in flowing(running)]
    if not limits_ms:
        return None
    apart_ms = pace.flow_ms if apart(running) else None
    return min(limit_ms or pace.stall_ms() for limit_ms in limits_ms) - (apart_ms or 0.0)


def in_turn(running: Many[Sequence]) -> list[Sequence]:
    """Those that do not wait for another, the highest rank first, of equals the oldest.

    Who computes what others wait for has the rank of the highest of them.
    """
    if not any(s.leader for s in running):
        return sorted(running, key=lambda s: -s.submit.rank) if len(running) > 1 else list(running)
    ranks = {s: s.submit.rank for s in running}
    for s in reversed(running):  # who waits came after whom it waits for
        if s.leader is not None:
            ranks[s.leader] = max(ranks[s.leader], ranks[s])
    return sorted((s for s in running if s.leader is None), key=lambda s: -ranks[s])


def plan_fast(sequences: Many[Sequence], chunk: int, n_ubatch: int) -> list[Call]:
    """Every decoding row, then prompts, first come first served, up to `chunk` rows in all.

    Attention takes 64 rows at a time and rows left over cost as much as 64, so a call is filled to the row. Where
    prompts are cut does not matter.
    """
    call = Call([Piece(s, 1) for s in sequences if s.decoding])
    if len(call.pieces) == len(sequences):
        return [call] if call.pieces else []
    calls = [call] if call.pieces else []
    if not calls or apart(sequences):
        call = Call()
        calls.append(call)
    if call.n_rows > chunk // 2:
        chunk += BLOCK
    n_rows = min(chunk, n_ubatch) - call.n_rows
    for s in (s for s in sequences if not s.decoding):
        if n_rows:
            piece = Piece(s, min(s.n_left, n_rows))
            call.pieces.append(piece)
            n_rows -= piece.n_rows
    return calls


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
        call.n_padding = int(call.n_rows == 1)
    return calls + blocks


def _join(calls: list[Call], s: Sequence) -> None:
    """Put as much of the end of a prompt as fits into the last small call."""
    if not calls or calls[-1].n_rows >= BLOCK - 1:
        calls.append(Call())
    n_rows = min(s.n_left, BLOCK - 1 - calls[-1].n_rows)
    if n_rows > 0:
        calls[-1].pieces.append(Piece(s, n_rows))
