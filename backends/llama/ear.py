"""What comes while a long call is computed: cancels, and whether they break it off."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    Name = tuple[str, int]  # job, attempt

LISTEN_S = 0.02  # how often a long call looks for cancels


class Ear:
    """Open during one call; what it hears is for after that call."""

    def __init__(self) -> None:
        self._late: list[Name] | None = None

    def takes(self, job: str, attempt: int) -> bool:
        """Whether a cancel that came now has to wait for the end of the call."""
        if self._late is not None:
            self._late.append((job, attempt))
        return self._late is not None

    def open(self, listen: Callable[[], bool], names: Collection[Name]) -> Callable[[], bool]:
        """Says, whenever it is asked, whether nobody wants the call of these any more: the worker is to end, or one of
        them was cancelled."""
        late = self._late = []
        wanted = set(names)
        listen_s = 0.0

        def unwanted() -> bool:
            nonlocal listen_s
            now_s = time.perf_counter()
            if now_s < listen_s:
                return False
            listen_s = now_s + LISTEN_S
            return listen() or not wanted.isdisjoint(late)

        return unwanted

    def close(self) -> list[Name]:
        """The call is over; what was cancelled meanwhile."""
        late, self._late = self._late, None
        return late or []
