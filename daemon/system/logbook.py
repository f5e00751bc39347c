"""The log, written by a thread of its own: whoever takes no lines, or is gone, holds nobody up."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from queue import Full, Queue
from threading import Thread

MOST_LINES = 4096  # that wait; what comes then is lost, and counted
FLUSH_S = 1.0  # for what waits when the daemon ends


class Logbook(logging.Handler):
    """Lines to a file that is open, as a rule stderr."""

    def __init__(self, fd: int = 2) -> None:
        super().__init__()
        self._fd = fd
        self._lines: Queue[bytes] = Queue(MOST_LINES)
        self._n_lost = 0
        Thread(target=self._write_all, name="log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._lines.put_nowait(f"{self.format(record)}\n".encode(errors="backslashreplace"))
        except Full:
            self._n_lost += 1
        except Exception:  # what somebody wanted to say cannot be made a line
            self.handleError(record)

    def flush(self) -> None:
        """Until all is written, or for a moment."""
        limit_s = time.monotonic() + FLUSH_S
        while self._lines.unfinished_tasks and time.monotonic() < limit_s:
            time.sleep(0.002)

    def _write_all(self) -> None:
        while True:
            line = self._lines.get()
            if self._n_lost:
                n_lost, self._n_lost = self._n_lost, 0
                line = f"{n_lost} lines were lost: nobody took them\n".encode() + line
            with contextlib.suppress(OSError):
                while line:
                    line = line[os.write(self._fd, line) :]
            self._lines.task_done()
