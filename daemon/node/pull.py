"""One pull while it runs: how far it is, who watches it, and how it ended."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec

from ..domain.pull import NEXT, PullProgress, PullState
from .changes import Changes

if TYPE_CHECKING:
    import asyncio

    from ..domain.errors import InferdError
    from ..domain.pull import PullOrder
    from ..policy.offer import Choice

REMEMBERED = 0.7  # of the rate before, each time it is measured


class Pull:
    """Plain methods on the event loop."""

    def __init__(self, order: PullOrder) -> None:
        self.order = order
        self.progress = PullProgress()
        self.changes = Changes()
        self.error: InferdError | None = None
        self.over = False
        self.watchers = 0
        self.held: frozenset[str] = frozenset()  # names in the folder of what is unfinished, that are its own for now
        self.task: asyncio.Task[None] | None = None
        self._seen: tuple[float, int] | None = None  # when, and bytes

    @property
    def missing_bytes(self) -> int:
        """That it will still write."""
        return max(0, self.progress.total_bytes - self.progress.n_bytes)

    def chose(self, choice: Choice) -> None:
        self._set(total_bytes=choice.n_bytes, file=choice.main, why=choice.why)

    def move(self, to: PullState, **fields: object) -> None:
        if to not in NEXT[self.progress.state]:
            raise AssertionError(f"{self.order.repo}: {self.progress.state.value} -> {to.value}")
        self._set(state=to, **fields)

    def fetched(self, n_bytes: int) -> None:
        """So many bytes are here now."""
        now_s, rate = time.monotonic(), self.progress.bytes_per_s
        if self._seen is not None and now_s > self._seen[0]:
            measured = max(0, n_bytes - self._seen[1]) / (now_s - self._seen[0])
            rate = REMEMBERED * rate + (1 - REMEMBERED) * measured if rate else measured
        self._seen = now_s, n_bytes
        self._set(n_bytes=n_bytes, bytes_per_s=rate)

    def end(self, error: InferdError | None = None) -> None:
        self.error, self.over = error, True
        self.changes.notify()

    def _set(self, **fields: object) -> None:
        self.progress = msgspec.structs.replace(self.progress, **fields)
        self.changes.notify()
