"""The folder that models are pulled into: what it holds, what is on its way into it, and how that gets its place.

Each model has a folder of its own, named like the model. What is being fetched lies in a hidden folder beside them,
each file under its digest, so that whoever wants the same bytes later goes on with them.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ...backends.facts import CorruptModel
from ...backends.kinds import read_facts
from ..domain.errors import Code, InferdError
from .digests import stamps_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from ..domain.pull import HubFile
    from .digests import Digests

    Wanted = Sequence[tuple[HubFile, str]]  # with its path in the model's folder, the model's main file first

UNFINISHED = ".pulls"
FOLDER_MODE, FILE_MODE = 0o750, 0o640
MAX_SMALL_BYTES = 64 * 2**20  # of a file that git keeps, as a rule text


class Landing:
    """Everything here waits for the disk. Raises InferdError."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.unfinished = folder / UNFINISHED

    def open(self, ttl_s: float, in_use: Iterable[str] = ()) -> None:
        """Make the folders, and forget what nobody has gone on with for so long."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.unfinished.mkdir(mode=0o700, exist_ok=True)
            kept, before_s = set(in_use), time.time() - ttl_s
            for path in self.unfinished.iterdir():
                if path.name not in kept and path.lstat().st_mtime < before_s:
                    _remove(path)
        except OSError as error:
            raise _unusable(error) from None

    def n_bytes(self) -> int:
        """Of all that lies in the folder, finished or not."""
        return sum(status.st_size for status in _statuses(self.folder))

    def free_bytes(self) -> int:
        """Of its disk, for this user."""
        with _told():
            status = os.statvfs(self.folder)
        return status.f_bavail * status.f_frsize

    def here_bytes(self, digests: Iterable[str]) -> int:
        """What was fetched of these before."""
        n_bytes = 0
        for digest in digests:
            with contextlib.suppress(OSError):
                n_bytes += os.lstat(self.unfinished / digest).st_size
        return n_bytes

    def drop(self, digests: Iterable[str]) -> None:
        """Nobody is to go on with these."""
        for digest in digests:
            with contextlib.suppress(OSError):
                (self.unfinished / digest).unlink()

    def holds(self, name: str, wanted: Wanted, digests: Digests) -> list[str] | None:
        """The SHA-256 of each file where all of the model is in its place already; None where something else is."""
        found = []
        for file, target in wanted:
            sha256 = _sha256_of(self._path(name, target), file, digests)
            if sha256 is None:
                return None
            found.append(sha256)
        return found

    def place(self, name: str, wanted: Wanted, sha256s: Sequence[str], record: Callable[[str, str], None]) -> None:
        """Give the files that are verified their place, all at once; each path and its SHA-256 are recorded."""
        ready = self.unfinished / f"{name}.new"
        with _told():
            _remove(ready)
            for i, (file, target) in enumerate(wanted):
                path = ready / target
                path.parent.mkdir(parents=True, exist_ok=True)
                again = any(other.digest == file.digest for other, _ in wanted[i + 1 :])
                if again:
                    shutil.copyfile(self.unfinished / file.digest, path)
                else:
                    os.rename(self.unfinished / file.digest, path)
            self._check(ready, ready / wanted[0][1])
            self._open_to_group(ready)
            for folder, _, _ in os.walk(ready):
                _sync(folder)
            try:
                os.rename(ready, self.folder / name)
            except OSError:
                if not (self.folder / name).exists():
                    raise
                _remove(ready)
                text = f"there is something called {name!r} in the folder for models already; give another name"
                raise InferdError(Code.INVALID, text, field="name") from None
            _sync(self.folder)
        for (_, target), sha256 in zip(wanted, sha256s, strict=True):
            record(self._path(name, target), sha256)

    def _open_to_group(self, ready: Path) -> None:
        """Who may put models into the folder, or read them there, may do so with this one, whatever the umask."""
        write = stat.S_IMODE(self.folder.stat().st_mode) & stat.S_IWGRP
        for folder, _, files in os.walk(ready):
            os.chmod(folder, FOLDER_MODE | write)
            for file in files:
                os.chmod(os.path.join(folder, file), FILE_MODE | write)

    def _path(self, name: str, target: str) -> str:
        """As the catalog calls it."""
        return os.path.join(os.path.realpath(self.folder), name, target)

    def _check(self, ready: Path, main: Path) -> None:
        """What the hub has under that name may be anything."""
        try:
            read_facts(main)
        except CorruptModel as error:
            _remove(ready)
            raise InferdError(Code.MODEL_CORRUPT, f"{main.name}: {error}; it was removed") from None


def _sha256_of(path: str, file: HubFile, digests: Digests) -> str | None:
    """Of a file in its place, if it is the one that the hub has; large ones are read only when they have changed."""
    try:
        status = os.lstat(path)
        if not stat.S_ISREG(status.st_mode) or status.st_size != file.n_bytes:
            return None
        if len(file.digest) == 64:
            stamps = stamps_of([path])
            same = digests.read([path], stamps) == hashlib.sha256(file.digest.encode()).hexdigest()
            return file.digest if same else None
        if file.n_bytes > MAX_SMALL_BYTES:
            return None
        raw = Path(path).read_bytes()
    except OSError:
        return None
    blob = hashlib.sha1(b"blob %d\0" % len(raw) + raw, usedforsecurity=False).hexdigest()
    return hashlib.sha256(raw).hexdigest() if blob == file.digest else None


def _statuses(folder: Path) -> Iterator[os.stat_result]:
    """Of all files below it; no link is followed."""
    pending = [str(folder)]
    while pending:
        with contextlib.suppress(OSError), os.scandir(pending.pop()) as listing:
            for item in listing:
                if item.is_dir(follow_symlinks=False):
                    pending.append(item.path)
                elif item.is_file(follow_symlinks=False):
                    yield item.stat(follow_symlinks=False)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _sync(folder: str | Path) -> None:
    """What was renamed in it stays so when the power fails."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _unusable(error) from None


def _unusable(error: OSError) -> InferdError:
    return InferdError(Code.PULL_FAILED, f"the folder for models cannot be used: {error.strerror or 'unknown reason'}")
