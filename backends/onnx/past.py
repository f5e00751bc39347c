"""Keys and values of several answers in one tensor each: `past` of the next call, `present` of the last.

A graph with a past takes it as (batch, heads, positions, values) and gives it back one position longer. Answers of
unequal length stand flush right: what is before the shorter ones is masked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from .session import Held, Session

    Array = npt.NDArray[Any]

SLACK = 64  # masked positions that all answers have are cut off when there are so many


class Past:
    """Rows in the order of their answers. `lengths`: positions of each that count."""

    def __init__(self, session: Session, values: Sequence[Held], lengths: Sequence[int]) -> None:
        self._session = session
        self.values = list(values)
        self.lengths = list(lengths)

    @property
    def n_positions(self) -> int:
        return int(self.values[0].shape()[2])

    def mask(self, n_new: int) -> Array:
        """Of what is there and of the next `n_new` positions of each row."""
        columns = np.arange(self.n_positions + n_new)
        firsts = self.n_positions - np.asarray(self.lengths)
        return (columns[None, :] >= firsts[:, None]).astype(np.int64)

    def grown(self, values: Sequence[Held], n_new: int) -> None:
        """What a call gave back."""
        self.values = list(values)
        self.lengths = [length + n_new for length in self.lengths]

    def suits(self, other: Past) -> bool:
        """At most a third would be masked of the two together: masked positions are copied in each step as well."""
        lengths = self.lengths + other.lengths
        return 2 * len(lengths) * max(lengths) <= 3 * sum(lengths)

    def join(self, other: Past) -> None:
        """Its rows after ours; the shorter ones are moved to the right."""
        n = max(self.n_positions, other.n_positions)
        pairs = zip(self.values, other.values, strict=True)
        joined = [np.concatenate([_flush_right(a.numpy(), n), _flush_right(b.numpy(), n)]) for a, b in pairs]
        self.values = [self._session.hold(array) for array in joined]
        self.lengths += other.lengths

    def keep(self, rows: Sequence[int]) -> None:
        """Only these are left."""
        self.lengths = [self.lengths[row] for row in rows]
        first = self.n_positions - max(self.lengths, default=0)
        self.values = [self._session.hold(value.numpy()[list(rows), :, first:]) for value in self.values]

    def trim(self) -> None:
        """Positions that are masked in all rows cost time in each call."""
        if self.n_positions - max(self.lengths, default=0) >= SLACK:
            self.keep(range(len(self.lengths)))


def _flush_right(array: Array, n_positions: int) -> Array:
    missing = n_positions - array.shape[2]
    return array if not missing else np.pad(array, ((0, 0), (0, 0), (missing, 0), (0, 0)))
