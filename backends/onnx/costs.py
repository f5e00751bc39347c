"""What calls of so many rows take, measured as they come, and which number of rows is worth waiting in one call.

On a GPU a call of 32 rows takes hardly longer than one of a single row. On a CPU the gain is 1.6 times for texts of 16
tokens and none for those of 128, so it is measured, for each length apart.
"""

from __future__ import annotations

WEIGHT = 0.25  # of the newest measurement
GAIN = 1.05  # by which larger calls must be better than smaller ones, as those at the end of a call wait for all of it
GIVE_UP = 0.90  # of the best throughput: below, still larger calls are not tried
AGAIN_EVERY = 256  # calls of a kind, after which a neighbour is tried again: others may use the cores now


class Costs:
    """By bucket: calls whose rows are about as long, and so cost about the same."""

    def __init__(self, max_rows: int) -> None:
        self.sizes = [1]
        while self.sizes[-1] < max_rows:
            self.sizes.append(min(max_rows, self.sizes[-1] * 2))
        self._row_ms: dict[tuple[int, int], float] = {}  # (bucket, rows of a call) -> time of a row
        self._tried: set[tuple[int, int]] = set()  # of those, measured more than once
        self._calls: dict[int, int] = {}  # by bucket

    def note(self, bucket: int, n_rows: int, ms: float) -> None:
        """A call took so long. Those that are between two sizes count for the smaller one."""
        size = max(size for size in self.sizes if size <= max(1, n_rows))
        key, row_ms = (bucket, size), ms / n_rows
        known = self._row_ms.get(key)
        if known is None:
            self._row_ms[key] = row_ms
        elif key not in self._tried:  # the first of a kind makes its buffers, too
            self._tried.add(key)
            self._row_ms[key] = min(known, row_ms)
        else:
            self._row_ms[key] = known + WEIGHT * (row_ms - known)
        self._calls[bucket] = self._calls.get(bucket, 0) + 1

    def expected_ms(self, bucket: int, n_rows: int) -> float | None:
        """Of a call; None while nothing is known."""
        known = [(abs(size - n_rows), row_ms) for (b, size), row_ms in self._row_ms.items() if b == bucket]
        return min(known)[1] * n_rows if known else None

    def best_rows(self, bucket: int, n_waiting: int) -> int:
        """How many of those that wait are to share the next call."""
        sizes = [size for size in self.sizes if size <= n_waiting] or [1]
        best, untried = self._best(bucket, sizes)
        return untried or self._neighbour(bucket, best, sizes)

    def worth_waiting(self, bucket: int, most: int) -> int:
        """How many rows it would be good to have, as far as anybody knows."""
        best, untried = self._best(bucket, [size for size in self.sizes if size <= most] or [1])
        return most if untried else best

    def _best(self, bucket: int, sizes: list[int]) -> tuple[int, int]:
        """(the best of these so far, the one to try next or 0): all smaller ones are known then, and speak for it."""
        best = sizes[0]
        for size in sizes:
            if (bucket, size) not in self._tried:
                return best, size
            row_ms = self._row_ms[bucket, size]
            if row_ms * GAIN <= self._row_ms[bucket, best] or size == best:
                best = size
            elif row_ms * GIVE_UP > self._row_ms[bucket, best]:
                break
        return best, 0

    def _neighbour(self, bucket: int, best: int, sizes: list[int]) -> int:
        """Now and then one that was not the best is measured again."""
        n_calls = self._calls.get(bucket, 0)
        if n_calls % AGAIN_EVERY != AGAIN_EVERY - 1:
            return best
        turn, at = n_calls // AGAIN_EVERY, sizes.index(best)
        return sizes[max(0, at - 1) if turn % 2 else min(len(sizes) - 1, at + 1)]


def bucket_of(length: int) -> int:
    """Lengths that may share a call, where the shorter are padded: by at most a quarter beyond 64, or up to 16."""
    if length <= 0:
        return 0
    step = 16
    while step * 8 <= length:
        step *= 2
    return -(-length // step) * step
