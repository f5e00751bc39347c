"""Files that grow by a line: arrivals that can be replayed, decisions that can be made again.

A line is lost rather than a request held up: what cannot be written is said once, and tried again after a while.
"""

from __future__ import annotations

import csv
import errno
import io
import logging
import os
import time
from typing import TYPE_CHECKING

import msgspec

from ..domain.request import RECORDING

if TYPE_CHECKING:
    from pathlib import Path

    from ..domain.request import Job

log = logging.getLogger(__name__)

PAUSE_S = 5.0
FILE_MODE = 0o600  # tenants and models are nobody else's business


class Recorder:
    """Appends lines to one file, which is opened with the first of them."""

    def __init__(self, path: Path, header: str = "") -> None:
        self._path = path
        self._header = header
        self._file: io.FileIO | None = None
        self._again_s = 0.0  # not to be tried before
        self._failed = False

    def write(self, line: str) -> None:
        """Never raises, and waits for no disk beyond the kernel's own cache."""
        if self._failed and time.monotonic() < self._again_s:
            return
        try:
            if self._file is None:
                self._path.touch(FILE_MODE)
                self._file = self._path.open("ab", buffering=0)
                line = line if self._file.tell() else self._header + line
            raw = line.encode()
            if (n_written := self._file.write(raw)) != len(raw):  # no half lines
                self._file.truncate(self._file.tell() - n_written)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._failed = False
        except OSError as error:
            self.close()
            if not self._failed:
                log.warning("%s is not written (%s); it is tried again every %g s", self._path, error.strerror, PAUSE_S)
            self._failed, self._again_s = True, time.monotonic() + PAUSE_S

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


class Arrivals(Recorder):
    """One row for each request that is over, with the columns of RECORDING; `inferd bench --trace` reads it."""

    def __init__(self, path: Path, epoch_s: float) -> None:
        """`epoch_s`: what the clock of arrivals is behind the time of day, so that recordings of two daemons join."""
        super().__init__(path, _row(RECORDING))
        self._epoch_s = epoch_s

    def on_over(self, job: Job) -> None:
        request = job.request
        at_s = round(job.arrived_s + self._epoch_s, 4)
        deadline_ms = "" if request.deadline_ms is None else request.deadline_ms
        counts = len(job.prompt or ()), len(job.generated)
        if all(counts):  # what was refused or cancelled before its first token has no length to repeat
            self.write(_row((at_s, request.tenant, request.priority.value, request.model, *counts, deadline_ms)))


class Decisions(Recorder):
    """One JSON object for each decision, with the question that it answered."""

    def note(self, record: msgspec.Struct) -> None:
        self.write(msgspec.json.encode(record).decode() + "\n")


def _row(cells: tuple[object, ...]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text).writerow(cells)
    return text.getvalue()
