"""How long calls take here, as measured, and how many rows of prompts a step may have for it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

BLOCK = 64  # rows from which kernels for many rows are used
CHUNKS = (512, 256, 128, BLOCK)
ALONE_MS = 4000.0  # what one step of prompts may take: it bounds how late a new request joins
STALL = 2.1  # and beside answers that flow, in steps without a prompt: the gap between two of their tokens
UNKNOWN_FLOW_MS = 60.0  # such a step, before one was measured
FILL_ROWS, FILL_CELLS = 40, 512  # until it is measured, so many rows that look at so many cells each are filled up
LONG_MS = 100.0  # a call that takes longer can be broken off
DOUBT = 0.999  # a call that was not made lately may have become faster: a thousand calls later it is tried again
LEAST = 0.1
_OLD = 0.7  # the weight of what was measured before


class Pace:
    """Milliseconds of calls: of those with rows of prompts by their size, of those with none by their rows."""

    def __init__(self) -> None:
        self.call_ms: dict[int, float] = {}  # chunk -> a call of so many rows
        self.flow_ms: float | None = None  # a call with nothing but tokens of running answers, whatever its rows
        self._rows_ms: dict[int, tuple[float, int]] = {}  # such a call by its rows, and when it was made
        self._n_calls = 0
        self._look_ms: float | None = None  # that a row of a short call spends on each cell, beyond what one of 64 does

    def note(self, n_rows: int, n_prompt_rows: int, took_ms: float) -> None:
        """A call is over. A few rows of a prompt say nothing of long ones."""
        if not n_prompt_rows:
            self._n_calls += 1
            self.flow_ms = took_ms if self.flow_ms is None else _OLD * self.flow_ms + (1 - _OLD) * took_ms
            known_ms = self._rows_ms.get(n_rows, (took_ms, 0))[0]
            self._rows_ms[n_rows] = _OLD * known_ms + (1 - _OLD) * took_ms, self._n_calls
        elif n_rows >= BLOCK:
            chunk = _likest(n_rows, CHUNKS)
            took_ms *= chunk / n_rows
            self.call_ms[chunk] = _OLD * self.call_ms.get(chunk, took_ms) + (1 - _OLD) * took_ms

    def passed(self) -> None:
        """A step went by without a call: what was measured of calls without prompts is older now."""
        self._n_calls += 1

    def note_short(self, n_rows: int, n_attended: int, took_ms: float) -> None:
        """A call of fewer than 64 rows with prompts among them is over; one that looked at few cells says nothing."""
        whole_ms = self.predict_ms(BLOCK)
        if n_attended >= FILL_CELLS * n_rows and whole_ms is not None:
            look_ms = max(0.0, took_ms - whole_ms * n_rows / BLOCK) / n_attended
            self._look_ms = look_ms if self._look_ms is None else _OLD * self._look_ms + (1 - _OLD) * look_ms

    def pads(self, n_rows: int, n_attended: int) -> bool:
        """Whether a short call is done sooner when it is filled up to 64 rows."""
        whole_ms = self.predict_ms(BLOCK)
        if n_rows >= BLOCK or whole_ms is None:
            return False
        if self._look_ms is None:  # most models gain from here on
            return n_rows >= FILL_ROWS and n_attended >= FILL_CELLS * n_rows
        return whole_ms * n_rows / BLOCK + self._look_ms * n_attended > whole_ms

    def predict_ms(self, n_rows: int) -> float | None:
        """Of a call with prompts, from the size most like it; None before one was measured."""
        if not self.call_ms:
            return None
        chunk = _likest(n_rows, self.call_ms)
        return self.call_ms[chunk] * n_rows / chunk

    def flow_rows_ms(self, n_rows: int) -> float:
        """Of a call without prompts; where it was not measured, a tenth more for each row more than one that was.

        And no more than one of more rows took: a disturbance only ever adds.
        """
        nearest, took_ms, at_most_ms = 0, 1.0 + 0.1 * n_rows, math.inf
        for n, (its_ms, at) in self._rows_ms.items():
            if n >= n_rows and its_ms < at_most_ms:
                at_most_ms = its_ms
            if nearest < n <= n_rows:
                doubted_ms = its_ms * max(LEAST, DOUBT ** (self._n_calls - at))
                nearest, took_ms = n, doubted_ms * (1.0 + 0.1 * (n_rows - n))
        return min(took_ms, at_most_ms)

    def chunk(self, n_ubatch: int, budget_ms: float | None) -> int:
        """Rows for one step within a budget; None: beside nothing that flows. Never less than a block, if it fits."""
        for rows in CHUNKS[:-1]:
            took_ms = self.predict_ms(rows)
            limit_ms = ALONE_MS if budget_ms is None else budget_ms
            if rows <= n_ubatch and (budget_ms is None if took_ms is None else took_ms <= limit_ms):
                return rows
        return min(n_ubatch, BLOCK)

    def stall_ms(self) -> float:
        """How long the gap between two tokens of an answer may become for a prompt beside it."""
        return STALL * (self.flow_ms or UNKNOWN_FLOW_MS)

    def is_long(self, n_rows: int) -> bool:
        """Whether a call is worth the asking in between; tokens of running answers are not."""
        took_ms = self.predict_ms(n_rows)
        return n_rows >= BLOCK and (took_ms is None or took_ms >= LONG_MS)


def _likest(n_rows: int, chunks: Iterable[int]) -> int:
    return min(chunks, key=lambda chunk: max(chunk, n_rows) / min(chunk, n_rows))
