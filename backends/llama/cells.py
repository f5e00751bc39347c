"""Which KV cells a request's rows get, and what happens to them when it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .binding import LAST_SEQ
from .pace import BLOCK

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    import numpy.typing as npt

    from .binding import Context

    Live = list[tuple[int, int]]  # (sequence id, cells), of those that stay

DEAD = LAST_SEQ  # owns cells that no request needs
TEMP = LAST_SEQ - 1
N_FILLER = BLOCK - 1
TIDY_CELLS = 512  # so many dead cells, if more than live ones, are worth a move


class Cells:
    """llama.cpp's own way: rows go wherever a cell is free."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def ready_for(self, n_rows: int) -> bool:
        """Called before a decode; False is as good as a decode without room."""
        return True

    def took(self, n_rows: int) -> None:
        """A decode went well; so many rows keep their cells."""

    def release(self, seq: int, n_cells: int, live: Live) -> None:
        """A request gives up its cells."""
        self._context.seq_rm(seq)

    def save(self, seq: int, pos: int) -> npt.NDArray[np.uint8]:
        """The block of a sequence that begins at `pos`."""
        scratch = self._context.n_seqs - 1  # of sequences above those that are decoded the state is not complete
        self._context.seq_cp(seq, scratch, pos, pos + BLOCK)
        state = self._context.state_get(scratch)
        self._context.seq_rm(scratch)
        return state

    def restore(self, seq: int, state: npt.NDArray[np.uint8], pos: int) -> bool:
        """Give a sequence what it has not of a saved block: the tokens from `pos` on. False without room."""
        if not self._context.state_set(TEMP, state):
            return False
        self._context.seq_cp(TEMP, seq, pos)
        self._context.seq_rm(TEMP)
        return True

    def cut(self, seq: int, pos: int, n_cells: int) -> None:
        """A request gives up its last cells, those from `pos` on."""
        self._context.seq_rm(seq, pos)

    def tidy(self, live: Live) -> bool:
        """Try to win room when there is none; False when nothing was won."""
        return False


class ExactCells(Cells):
    """Cells in an order that makes sums come out the same whoever runs beside; needs a unified, empty context.

    Attention sums over cells in the order of their index, and for blocks of 64 rows over tiles of 64 cells. So a
    request's cells must ascend with its positions and its prompt blocks must fill whole tiles. llama.cpp puts rows
    into the first free cells behind the last ones; hence there is never a hole: cells of ended requests pass to a dead
    sequence, gaps before a block are filled, and now and then what lives is moved to the front.
    """

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.end = 0  # cells below are occupied, cells from here on are free
        self.n_dead = 0
        context.batch.clear()
        context.batch.add(0, 0, [0] * N_FILLER, n_wanted=1)
        context.decode()
        self._filler = context.state_get(0)
        context.clear()

    def ready_for(self, n_rows: int) -> bool:
        return n_rows != BLOCK or self._align()

    def took(self, n_rows: int) -> None:
        self.end += n_rows

    def release(self, seq: int, n_cells: int, live: Live) -> None:
        if not live:
            self._context.clear()
            self.end = self.n_dead = 0
            return
        self._bury(seq, n_cells)
        if self.n_dead > max(TIDY_CELLS, self.end - self.n_dead):
            self.tidy(live)

    def restore(self, seq: int, state: npt.NDArray[np.uint8], pos: int) -> bool:
        if self.end + BLOCK + N_FILLER > self._context.n_cells:
            return False
        restored = self._align() and super().restore(seq, state, pos)
        self.end += BLOCK * restored
        return restored

    def cut(self, seq: int, pos: int, n_cells: int) -> None:
        self._bury(seq, n_cells, pos)  # a hole here might be filled by others' rows

    def tidy(self, live: Live) -> bool:
        live = [(seq, n_cells) for seq, n_cells in live if n_cells]
        end = _packed_end((n for _, n in live), self._context.n_cells)
        if end is None or end >= self.end:
            return False
        kept = [self._context.state_get(seq) for seq, _ in live]
        self._context.clear()
        self.end = self.n_dead = 0
        for (seq, n_cells), state in zip(live, kept, strict=True):
            moved = self._align() and self._context.state_set(seq, state)
            assert moved, "what fitted must fit again"
            self.end += n_cells
        return True

    def _align(self) -> bool:
        """Fill up to a whole tile."""
        n_gap = -self.end % BLOCK
        if n_gap:
            if self.end + N_FILLER > self._context.n_cells or not self._context.state_set(TEMP, self._filler):
                return False
            self._context.seq_rm(TEMP, n_gap)
            self._bury(TEMP, n_gap)
            self.end += n_gap
        return True

    def _bury(self, seq: int, n_cells: int, pos: int = 0) -> None:
        self._context.seq_cp(seq, DEAD, pos)
        self._context.seq_rm(seq, pos)
        self.n_dead += n_cells


def _packed_end(lengths: Iterable[int], n_cells: int) -> int | None:
    """Where runs of cells end when each begins a whole tile; None when they or the filler do not fit."""
    end = 0
    for length in lengths:
        if end % BLOCK and end + N_FILLER > n_cells:
            return None
        end += -end % BLOCK + length
    return end if end <= n_cells else None
