"""What model files were when they were imported, and whether they still are: by their SHA-256.

A file that nobody imported is what it was when it was first read. "stamp" believes that a file is the same as long as
its inode, size and times are; "always" reads it again with every load, which finds damage on the disk, too.
"""

from __future__ import annotations

import os
import re
import threading
from typing import TYPE_CHECKING

from .state import load_json, save_json

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from ..domain.config import Verify
    from .digests import Digests

NAME = "imports"

_SHA256 = re.compile(r"[0-9a-f]{64}")


class Imports:
    """By resolved path. Kept in `folder`, if there is one."""

    def __init__(self, digests: Digests, folder: Path | None = None) -> None:
        self._digests = digests
        self._folder = folder
        self._lock = threading.Lock()
        found = load_json(NAME, folder) if folder is not None else None
        rows = found.items() if isinstance(found, dict) else ()
        self._known = {path: said for path, said in rows if isinstance(said, str) and _SHA256.fullmatch(said)}

    def record(self, path: str, sha256: str) -> None:
        """The file was imported, and this is what it is. Waits for the disk. Raises ValueError for no such digest."""
        if not _SHA256.fullmatch(sha256.lower()):
            raise ValueError("a SHA-256 has 64 hexadecimal digits")
        path = os.path.realpath(path)
        with self._lock:
            self._known[path] = sha256.lower()
            self._save()

    def expected(self, path: str) -> str | None:
        """Of a file that was imported."""
        return self._known.get(os.path.realpath(path))

    def forget(self, path: str) -> None:
        """It was removed, or somebody else's file is meant to be there. Waits for the disk."""
        with self._lock:
            if self._known.pop(os.path.realpath(path), None) is not None:
                self._save()

    def promised(self, paths: Iterable[str], verify: Verify) -> list[str]:
        """Those that a worker may not have opened as anything else than `changed` has found them to be."""
        return [path for path in paths if verify == "always" or (verify == "stamp" and self.expected(path) is not None)]

    def doubtful(self, paths: Iterable[str], verify: Verify) -> list[str]:
        """Those that `changed` has to look at; nothing is read for it."""
        if verify == "never":
            return []
        return [path for path in paths if verify == "always" or self._differs(path)]

    def changed(self, paths: Iterable[str], verify: Verify) -> str | None:
        """The first that is another file than it should be. Waits for the disk: a second for each gigabyte or two."""
        for path in paths:
            wanted = self.expected(path) or (self._digests.kept(path) if verify == "always" else None)
            found = self._digests.of(path, again=verify == "always")
            if wanted is not None and found is not None and found != wanted:
                return path
        return None

    def _differs(self, path: str) -> bool:
        """From what was imported, or nobody knows."""
        wanted = self.expected(path)
        return wanted is not None and self._digests.kept(path) != wanted

    def _save(self) -> None:
        if self._folder is not None:
            save_json(NAME, self._known, self._folder)
