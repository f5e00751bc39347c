"""A worker's signs of life: a page that it writes and the daemon reads, so that neither ever waits for the other.

The worker maps it; the daemon reads the file, as a page that a worker could cut short must not be mapped.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from typing import NamedTuple

BEAT_EVERY_S = 0.5
_BEATS, _STEP, _LONGEST = range(3)
_PAGE = struct.Struct("ddd")


class Signs(NamedTuple):
    beats: float  # of its heartbeat thread since the start
    step_s: float  # when the step that it is at began, on the monotonic clock; 0: it is at none
    longest_s: float  # of the steps that are over


def create() -> int:
    """A page without a sign on it. Raises OSError."""
    fd = os.memfd_create("inferd-pulse", os.MFD_CLOEXEC)
    os.truncate(fd, mmap.PAGESIZE)
    return fd


def read(fd: int) -> Signs:
    """What is on the page now; nothing on one that is damaged."""
    raw = os.pread(fd, _PAGE.size, 0)
    return Signs(*_PAGE.unpack(raw)) if len(raw) == _PAGE.size else Signs(0.0, 0.0, 0.0)


class Pulse:
    """The worker's side. Takes the file over."""

    def __init__(self, fd: int) -> None:
        self._at = memoryview(mmap.mmap(fd, mmap.PAGESIZE)).cast("d")
        os.close(fd)

    def begin(self) -> None:
        """A step begins, or gets on."""
        self._at[_STEP] = time.monotonic()

    def end(self) -> None:
        """It is over."""
        took_s = time.monotonic() - self._at[_STEP]
        self._at[_STEP] = 0.0
        if took_s > self._at[_LONGEST]:
            self._at[_LONGEST] = took_s

    def beat(self) -> None:
        """For ever, in a thread of its own: it is silent when the process as a whole makes no progress."""
        while True:
            self._at[_BEATS] += 1
            time.sleep(BEAT_EVERY_S)
