"""Calls of a session beside the engine's own thread: several at once with one thread each, or one with all of them.

A session gives up Python's lock while it computes, so its calls run side by side, and several calls of one thread
finish more rows than one call of several threads, which wait for each other at every operator (figures: DESIGN.md).
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .refusal import InputRefused

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from .session import Session
    from .window import Item

    Array = npt.NDArray[Any]


@dataclass(slots=True, eq=False)
class Call:
    """One call, and what came of it."""

    items: Sequence[Item]
    session: Session
    feeds: Mapping[str, Array]
    names: Sequence[str]
    wide: bool  # it has all threads, so nothing runs beside it
    input_ms: float
    outputs: list[Array] = field(default_factory=list)
    refusal: str = ""
    infer_ms: float = 0.0
    options: Any = None
    broken_off: bool = False

    @property
    def n_rows(self) -> int:
        return sum(item.n_rows for item in self.items)

    @property
    def n_bytes(self) -> int:
        """Of its inputs."""
        return sum(array.nbytes for array in self.feeds.values())

    def compute(self) -> None:
        start_s = time.perf_counter()
        try:
            self.outputs = self.session.run(self.feeds, self.names, self.options)
        except InputRefused as error:
            self.refusal = str(error)
        self.infer_ms = (time.perf_counter() - start_s) * 1e3

    def break_off(self) -> None:
        """Nobody wants it any more: it ends before its next operator."""
        if not self.broken_off:
            self.broken_off = True
            self.session.break_off(self.options)


class Lanes:
    """So many calls at a time. `wake_fd` can be read when one of them is done."""

    def __init__(self, n: int) -> None:
        self.n = n
        self.running: list[Call] = []
        self.wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._asked: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
        self._done: deque[Call] = deque()
        self._threads: list[threading.Thread] = []

    @property
    def n_free(self) -> int:
        if any(call.wide for call in self.running):
            return 0
        return max(0, self.n - len(self.running))

    def start(self, call: Call) -> None:
        """Beside us."""
        call.options = call.session.new_options()
        self.running.append(call)
        if len(self._threads) < len(self.running):
            thread = threading.Thread(target=self._work, name="lane", daemon=True)
            self._threads.append(thread)
            thread.start()
        self._asked.put(call)

    def run(self, call: Call) -> Call:
        """Here and now: a hand-over would cost more than a short call."""
        call.options = call.session.new_options()
        call.compute()
        return call

    def done(self) -> list[Call]:
        """Those that have ended since the last look."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.wake_fd)  # before the look: what ends after it wakes us once more
        ended: list[Call] = []
        while self._done:
            ended.append(self._done.popleft())
        if ended:
            self.running = [call for call in self.running if call not in ended]
        return ended

    @property
    def has_done(self) -> bool:
        return bool(self._done)

    def close(self) -> None:
        for call in self.running:
            call.break_off()
        for _ in self._threads:
            self._asked.put(None)
        for thread in self._threads:
            thread.join()
        os.close(self.wake_fd)

    def _work(self) -> None:
        while (call := self._asked.get()) is not None:
            call.compute()
            self._done.append(call)
            del call  # until the next one comes it would keep the tensors of this one
            os.eventfd_write(self.wake_fd, 1)
