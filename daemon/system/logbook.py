"""The log, written by a thread of its own: whoever takes no lines, or is gone, holds nobody up."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from queue import Full, Queue
from threading import Thread
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

LINE = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
JOURNAL_LINE = "%(name)s: %(message)s"  # the journal has its own time, and the level as a field
MOST_LINES = 4096  # that wait; what comes then is lost, and counted
FLUSH_S = 1.0  # for what waits when the daemon ends


class Logbook(logging.Handler):
    """Lines to a file that is open, as a rule stderr."""

    def __init__(self, fd: int = 2) -> None:
        super().__init__()
        self._fd = fd
        self._lines: Queue[bytes] = Queue(MOST_LINES)
        self._n_lost = 0
        self.setFormatter(_Prefixed() if is_journal(fd) else logging.Formatter(LINE))
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
                text = f"{n_lost} lines were lost: nobody took them"
                lost = logging.LogRecord(__name__, logging.WARNING, "", 0, text, (), None)
                line = f"{self.format(lost)}\n".encode() + line
            with contextlib.suppress(OSError):
                while line:
                    line = line[os.write(self._fd, line) :]
            self._lines.task_done()


class _Prefixed(logging.Formatter):
    """As sd-daemon(3) has it: the syslog level in front of each line, also of those of a traceback."""

    def __init__(self) -> None:
        super().__init__(JOURNAL_LINE)

    def format(self, record: logging.LogRecord) -> str:
        prefix = f"<{_syslog_level(record.levelno)}>"
        return prefix + super().format(record).replace("\n", f"\n{prefix}")


def is_journal(fd: int, environ: Mapping[str, str] = os.environ) -> bool:
    """What is written there goes to systemd's journal, which says in the environment what file that is."""
    try:
        stat = os.fstat(fd)
    except OSError:
        return False
    return environ.get("JOURNAL_STREAM") == f"{stat.st_dev}:{stat.st_ino}"


def _syslog_level(level: int) -> int:
    if level >= logging.CRITICAL:
        return 2
    if level >= logging.ERROR:
        return 3
    if level >= logging.WARNING:
        return 4
    return 6 if level >= logging.INFO else 7
