"""What is in a model file, as SHA-256: read once, and again only when the file has changed."""

from __future__ import annotations

import hashlib
import os
import threading
from typing import TYPE_CHECKING, Any

from .state import load_json, save_json

if TYPE_CHECKING:
    from pathlib import Path

NAME = "digests"
Stamp = tuple[int, int, int, int]  # device, inode, bytes, when it was changed in nanoseconds


class Digests:
    """By path. What a file's stamp says is believed, as `make` does; a file that is replaced gets another one.

    They are kept in `folder`, if there is one.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._known = dict(_rows(load_json(NAME, folder))) if folder is not None else {}

    def known(self, path: str) -> str | None:
        """Without reading the file; None when that would be needed, or it is not there."""
        try:
            stamp = _stamp(path)
        except OSError:
            return None
        row = self._known.get(path)
        return row[1] if row is not None and row[0] == stamp else None

    def read(self, path: str) -> str | None:
        """Waits for the disk: some seconds for a large file. None when it cannot be read, or changes meanwhile."""
        with self._lock:
            if (digest := self.known(path)) is not None:
                return digest
            try:
                with open(path, "rb") as file:
                    stamp = _stamp(path)
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
                if _stamp(path) != stamp:
                    return None
            except OSError:
                return None
            self._known[path] = stamp, digest
            if self._folder is not None:
                rows = {path: [*stamp, digest] for path, (stamp, digest) in self._known.items()}
                save_json(NAME, rows, self._folder)
            return digest


def _stamp(path: str) -> Stamp:
    status = os.stat(path)
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _rows(given: Any) -> list[tuple[str, tuple[Stamp, str]]]:
    """Of what was kept; anything else is forgotten."""
    rows: list[tuple[str, tuple[Stamp, str]]] = []
    for path, row in given.items() if isinstance(given, dict) else ():
        match row:
            case [int(device), int(inode), int(size), int(changed), str(digest)]:
                rows.append((path, ((device, inode, size, changed), digest)))
    return rows
