"""The audit log: one JSON line for each thing that an operator did, in files that are rotated by their size.

Written by a thread of its own. A line that cannot be written is lost rather than a call held up, and the log says so.
"""

from __future__ import annotations

import logging
import os
import queue
from logging.handlers import QueueHandler, QueueListener, RotatingFileHandler
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from .state import FOLDER_MODE, state_folder

if TYPE_CHECKING:
    import io
    from collections.abc import Mapping

log = logging.getLogger(__name__)

FILE = "audit.jsonl"
FILE_MODE = 0o600
MAX_FILE_BYTES = 8 * 2**20
N_OLD_FILES = 7
MAX_WAITING = 4096  # lines that the disk has not taken yet


def audit_file(environ: Mapping[str, str] = os.environ) -> Path:
    """In $LOGS_DIRECTORY, which systemd sets, else in the state folder."""
    given = environ.get("LOGS_DIRECTORY", "").partition(":")[0]
    return (Path(given) if given else state_folder(environ)) / FILE


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """Who did what. Never a secret, never a prompt."""

    unix_s: float
    who: str  # a token's id, else how the caller was known
    role: str
    tenant: str
    door: str
    peer: str
    method: str
    target: str  # what it was done to
    outcome: str  # ok, or the status it failed with


class Audit:
    """Its thread and its file begin with the first line."""

    def __init__(self, path: Path | None, max_file_bytes: int = MAX_FILE_BYTES) -> None:
        self._path = path  # None: nothing is written
        self._max_file_bytes = max_file_bytes
        self._handler: QueueHandler | None = None
        self._listener: QueueListener | None = None

    def note(self, line: Line) -> None:
        """Never waits, never raises."""
        if self._path is None:
            return
        if self._handler is None:
            self._handler = self._start(self._path)
        text = msgspec.json.encode(line).decode()
        self._handler.handle(logging.LogRecord("audit", logging.INFO, "", 0, text, None, None))

    def close(self) -> None:
        """Once everything is written."""
        if self._listener is not None:
            self._listener.stop()
            for handler in self._listener.handlers:
                handler.close()
            self._listener = self._handler = None

    def _start(self, path: Path) -> QueueHandler:
        waiting: queue.Queue[logging.LogRecord] = queue.Queue(MAX_WAITING)
        self._listener = QueueListener(waiting, _Files(path, self._max_file_bytes))
        self._listener.start()
        return _Waiting(waiting)


class _Waiting(QueueHandler):
    def handleError(self, record: logging.LogRecord) -> None:
        log.warning("the disk takes no audit records: one is lost")


class _Files(RotatingFileHandler):
    """Opened with the first line; whatever goes wrong is told once until it goes well again."""

    def __init__(self, path: Path, max_file_bytes: int) -> None:
        super().__init__(path, maxBytes=max_file_bytes, backupCount=N_OLD_FILES, encoding="utf-8", delay=True)
        self._failed = False

    def _open(self) -> io.TextIOWrapper:
        path = Path(self.baseFilename)
        path.parent.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)
        return os.fdopen(fd, "a", encoding=self.encoding)

    def emit(self, record: logging.LogRecord) -> None:
        failed, self._failed = self._failed, False
        super().emit(record)
        if failed and self._failed:
            return
        if self._failed:
            log.error("%s cannot be written: audit records are lost until it can", self.baseFilename)
        elif failed:
            log.warning("%s is written again", self.baseFilename)

    def handleError(self, record: logging.LogRecord) -> None:
        self._failed = True
