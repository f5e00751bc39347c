"""What is in the files of a model, as SHA-256: read once, and again only when one of them has changed."""

from __future__ import annotations

import hashlib
import os
import threading
from typing import TYPE_CHECKING, Any

from .state import load_json, save_json

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

NAME = "digests"
PIECE_BYTES = 16 * 2**20
Stamp = tuple[int, ...]  # of a file: its inode, bytes, and when it and its inode were changed, in nanoseconds
N_STAMP = 4


class Digests:
    """By path. What a file's stamp says is believed, as `make` does; a file that is replaced gets another one.

    They are kept in `folder`, if there is one.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._stopped = False
        self._known = dict(_rows(load_json(NAME, folder))) if folder is not None else {}

    def known(self, paths: Sequence[str], stamps: Sequence[Stamp]) -> str | None:
        """Of all files together, if they are still what they were and none has to be read for it."""
        if stamps_of(paths) != list(stamps):
            return None
        rows = [self._known.get(path) for path in paths]
        parts = [row[1] for row, stamp in zip(rows, stamps, strict=True) if row is not None and row[0] == stamp]
        return hashlib.sha256("".join(parts).encode()).hexdigest() if len(parts) == len(paths) else None

    def read(self, paths: Sequence[str], stamps: Sequence[Stamp]) -> str | None:
        """Waits for the disk: some seconds for a large file. None when a file is another one by now."""
        with self._lock:
            for path, stamp in zip(paths, stamps, strict=True):
                row = self._known.get(path)
                if (row is None or row[0] != stamp) and (digest := self._read(path)) is not None:
                    self._known[path] = stamp, digest
            known = self.known(paths, stamps)
            if known is not None:
                self._save()
            return known

    def record(self, path: str, sha256: str) -> None:
        """Somebody else has read this file to its end; as it is now it has this SHA-256."""
        with self._lock:
            for stamp in stamps_of([path]):
                self._known[path] = stamp, sha256
            self._save()

    def kept(self, path: str) -> str | None:
        """Of one file, if it is still what it was when it was read."""
        row, stamps = self._known.get(path), stamps_of([path])
        return row[1] if row is not None and [row[0]] == stamps else None

    def of(self, path: str, *, again: bool = False) -> str | None:
        """Of one file, which is read unless its digest is kept, or `again`. None when it changes meanwhile."""
        if not again and (kept := self.kept(path)) is not None:
            return kept
        with self._lock:
            stamps = stamps_of([path])
            digest = self._read(path) if stamps else None
            if digest is None or stamps_of([path]) != stamps:
                return None
            row = self._known.get(path)
            if row is None or row[0] != stamps[0]:  # by one stamp the digest that was taken first is the file's
                self._known[path] = stamps[0], digest
                self._save()
            return digest

    def stop(self) -> None:
        """Whatever is being read is not read to its end."""
        self._stopped = True

    def _save(self) -> None:
        if self._folder is not None:
            rows = {path: [*stamp, digest] for path, (stamp, digest) in self._known.items()}
            save_json(NAME, rows, self._folder)

    def _read(self, path: str) -> str | None:
        digest = hashlib.sha256()
        try:
            with open(path, "rb", buffering=0) as file:
                while piece := file.read(PIECE_BYTES):
                    if self._stopped:
                        return None
                    digest.update(piece)
        except OSError:
            return None
        return digest.hexdigest()


def stamps_of(paths: Sequence[str]) -> list[Stamp]:
    """None of them when one file is not there."""
    try:
        found = [os.stat(path) for path in paths]
    except OSError:
        return []
    return [(status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns) for status in found]


def _rows(given: Any) -> list[tuple[str, tuple[Stamp, str]]]:
    """Of what was kept; anything else is forgotten."""
    rows: list[tuple[str, tuple[Stamp, str]]] = []
    for path, row in given.items() if isinstance(given, dict) else ():
        match row:
            case [*stamp, str(digest)] if len(stamp) == N_STAMP and all(type(n) is int for n in stamp):
                rows.append((path, (tuple(stamp), digest)))
    return rows
