"""One call of a session: at once when it is short, else in a thread beside, so that a cancel is heard meanwhile."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from typing import TYPE_CHECKING, Any

from .session import InputRefused

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy.typing as npt

    from .session import Session

    Array = npt.NDArray[Any]

LONG_MS = 100.0  # a call of at least this, or of unknown length, is watched
LISTEN_S = 0.02


class BrokenOff(Exception):
    """Nobody wants the outputs any more."""


class Caller:
    def __init__(self, session: Session) -> None:
        self._session = session
        self._threads: ThreadPoolExecutor | None = None

    def call(
        self,
        feeds: Mapping[str, Array],
        outputs: Sequence[str],
        unwanted: Callable[[], bool] | None,
        expected_ms: float | None,
    ) -> list[Array]:
        """`unwanted` is asked now and then during a long one. Raises InputRefused, and BrokenOff."""
        if unwanted is None or (expected_ms is not None and expected_ms < LONG_MS):
            return self._session.run(feeds, outputs)
        if self._threads is None:
            self._threads = ThreadPoolExecutor(1, "call")
        running = self._threads.submit(self._session.run, feeds, outputs)
        broken_off = False
        while True:
            try:
                return running.result(LISTEN_S)
            except NotYet:
                if not broken_off and unwanted():
                    broken_off = True
                    self._session.break_off()
            except InputRefused:
                if broken_off:
                    raise BrokenOff from None
                raise

    def close(self) -> None:
        if self._threads is not None:
            self._threads.shutdown()
