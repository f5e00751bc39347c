"""One call with all threads, or several side by side with a thread each: whichever is expected to end sooner.

Learned from what calls of either kind take, for each length apart: a lone request gets all threads; where several wait,
calls of one thread finish more rows, as they never wait for each other.
"""

from __future__ import annotations

from .costs import Costs


class Choice:
    def __init__(self, max_rows: int, *, has_narrow: bool) -> None:
        self._has_narrow = has_narrow
        self._wide, self._narrow = Costs(max_rows), Costs(max_rows)

    def costs(self, *, wide: bool) -> Costs:
        """Of calls of that kind."""
        return self._wide if wide else self._narrow

    def goes_wide(self, bucket: int, n_rows: int, n_lanes: int) -> bool:
        """Whether so many rows, with nothing beside them, are done sooner by calls with all threads."""
        if not self._has_narrow or n_lanes < 2 or n_rows < 2:
            return True
        rows = min(self._narrow.worth_waiting(bucket, n_rows), -(-n_rows // n_lanes))
        narrow_ms = self._narrow.expected_ms(bucket, rows)
        at_once = self._wide.worth_waiting(bucket, n_rows)
        wide_ms = self._wide.expected_ms(bucket, at_once)
        if narrow_ms is None or wide_ms is None:
            return False  # to find out
        return wide_ms * -(-n_rows // at_once) < narrow_ms * -(-n_rows // (rows * n_lanes))
