"""Computed prompts on disk: one file for each run of blocks, for the model and the tenant that it was computed for.

A file is a magic line, the length of a header, the header (msgpack), the blocks, and an HMAC-SHA256 over all before it,
with a key of its own for each tenant. Nothing of a file is used before that is checked, so a byte that changed, a file
from elsewhere and one that was half written are all the same: not there. Files are replaced as a whole and can be lost
at any time; they are not forced to the disk.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import hmac
import logging
import mmap
import os
import re
import stat
import struct
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from ...backends.messages import Run

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

log = logging.getLogger(__name__)

MAGIC = b"inferd kv 1\n"
SUFFIX, UNFINISHED = ".kv", ".inferd-kv-"
FOLDER_MODE = 0o700
KEY_BYTES = MAC_BYTES = 32
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
MAX_HEADER_BYTES = 64 * 1024
_LENGTH = struct.Struct("<I")
_OURS = re.compile(rf"[0-9a-f]{{32}}{re.escape(SUFFIX)}|{re.escape(UNFINISHED)}.*")


class _Header(msgspec.Struct, frozen=True, array_like=True):
    fingerprint: str  # of the model and of how it computes
    run: Run


@dataclass(frozen=True, slots=True)
class Filed:
    """A file of which only the header was read."""

    path: Path
    fingerprint: str
    run: Run
    n_bytes: int
    used_s: float  # seconds since 1970


def cache_folder(given: str = "", environ: Mapping[str, str] = os.environ) -> Path:
    """The config's; else `kv` in $CACHE_DIRECTORY, which systemd sets, $XDG_CACHE_HOME/inferd or ~/.cache/inferd."""
    if given:
        return Path(given).expanduser()
    if folder := environ.get("CACHE_DIRECTORY", "").partition(":")[0]:
        return Path(folder) / "kv"
    home = environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(home):
        home = os.path.join(environ.get("HOME") or "/", ".cache")
    return Path(home) / "inferd" / "kv"


def secret(path: Path) -> bytes:
    """The key in this file; made when there is none, mode 0600. Raises OSError, or ValueError for a damaged one."""
    if not path.exists():
        _make_secret(path)
    key = path.read_bytes()
    if len(key) != KEY_BYTES:
        raise ValueError(f"{path.name} has {len(key)} bytes, not {KEY_BYTES}")
    return key


def _make_secret(path: Path) -> None:
    path.parent.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        fd, unfinished = tempfile.mkstemp(dir=path.parent)
        try:
            with open(fd, "wb") as file:
                file.write(os.urandom(KEY_BYTES))
                file.flush()
                os.fsync(file.fileno())
            os.link(unfinished, path)  # never over one that is there
        finally:
            os.unlink(unfinished)


class Vault:
    """A folder of such files. Every method but `cache_folder` waits for the disk; only one thread at a time calls."""

    def __init__(self, folder: Path, key: bytes) -> None:
        self._folder = folder
        self._key = key

    def lock(self) -> None:
        """Nobody else uses the folder as long as this process lives. Raises OSError when somebody does."""
        self._folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        self._lock = os.open(self._folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise OSError("another daemon uses the folder") from None

    def close(self) -> None:
        """Let others use the folder."""
        os.close(self._lock)

    def scan(self, oldest_s: float) -> list[Filed]:
        """All files, by their last use; those that were last used before `oldest_s` go, and those that are damaged.

        What does not have a name of ours is left alone.
        """
        found = []
        with contextlib.suppress(FileNotFoundError), os.scandir(self._folder) as entries:
            for entry in entries:
                if not _OURS.fullmatch(entry.name):
                    continue
                filed = self._look(Path(entry.path)) if entry.name.endswith(SUFFIX) else None
                if filed is None or filed.used_s < oldest_s:
                    with contextlib.suppress(OSError):
                        os.unlink(entry.path)
                else:
                    found.append(filed)
        return sorted(found, key=lambda filed: filed.used_s)

    def write(self, fingerprint: str, run: Run, fd: int) -> Filed:
        """Keep a run whose blocks are in a sealed file. Raises OSError."""
        self._folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        header = msgspec.msgpack.encode(_Header(fingerprint, run))
        path = self._folder / f"{self._name(fingerprint, run)}{SUFFIX}"
        unfinished_fd, unfinished = tempfile.mkstemp(prefix=UNFINISHED, dir=self._folder)
        try:
            with (
                open(unfinished_fd, "wb", buffering=0) as file,
                mmap.mmap(fd, run.n_bytes, prot=mmap.PROT_READ) as body,
            ):
                mac = self._mac(run.salt)
                for part in (MAGIC, _LENGTH.pack(len(header)), header, body):
                    mac.update(part)
                    _write(file.fileno(), part)
                _write(file.fileno(), mac.digest())
                n_bytes = file.tell()
            os.replace(unfinished, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(unfinished)
            raise
        return Filed(path, fingerprint, run, n_bytes, time.time())

    def read(self, filed: Filed) -> int | None:
        """The blocks in a new sealed file, which the caller closes; None when they are not what was written."""
        try:
            with open(os.open(filed.path, _READ), "rb") as file:
                fd = self._checked(file.fileno(), filed)
                with contextlib.suppress(OSError):
                    os.utime(file.fileno())
        except (OSError, ValueError) as error:
            log.warning("a file of computed prompts is not used: %s", error)
            self.remove([filed])
            return None
        return fd

    def remove(self, files: Iterable[Filed]) -> None:
        for filed in files:
            with contextlib.suppress(OSError):
                os.unlink(filed.path)

    def _checked(self, source: int, filed: Filed) -> int:
        """Raises ValueError when anything is not as it was written."""
        run = filed.run
        header = msgspec.msgpack.encode(_Header(filed.fingerprint, run))
        head = MAGIC + _LENGTH.pack(len(header)) + header
        if os.fstat(source).st_size != len(head) + run.n_bytes + MAC_BYTES or _read(source, len(head)) != head:
            raise ValueError("it is not what it was")
        fd = os.memfd_create("inferd", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(fd, run.n_bytes)
            mac = self._mac(run.salt)
            mac.update(head)
            with mmap.mmap(fd, run.n_bytes) as body:
                n = 0
                while n < run.n_bytes and (got := os.readv(source, [memoryview(body)[n:]])):
                    n += got
                mac.update(body)
            if not hmac.compare_digest(mac.digest(), _read(source, MAC_BYTES)):
                raise ValueError("its bytes have changed")
            fcntl.fcntl(
                fd,
                fcntl.F_ADD_SEALS,
                fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE,
            )
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _look(self, path: Path) -> Filed | None:
        """What a file says of itself; whether that is true is seen when it is read."""
        try:
            fd = os.open(path, _READ)
        except OSError:
            return None
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode) or _read(fd, len(MAGIC)) != MAGIC:
                return None
            (n_header,) = _LENGTH.unpack(_read(fd, _LENGTH.size))
            header = _HEADER.decode(_read(fd, min(n_header, MAX_HEADER_BYTES)))
            status = os.fstat(fd)
            if not header.run.names or header.run.block_bytes <= 0 or status.st_size <= header.run.n_bytes:
                return None
            return Filed(path, header.fingerprint, header.run, status.st_size, status.st_mtime)
        except (OSError, struct.error, msgspec.DecodeError, UnicodeDecodeError):
            return None
        finally:
            os.close(fd)

    def _mac(self, salt: str) -> hmac.HMAC:
        tenant_key = hmac.digest(self._key, b"tenant " + salt.encode(), "sha256")
        return hmac.new(tenant_key, digestmod="sha256")

    def _name(self, fingerprint: str, run: Run) -> str:
        return hashlib.blake2b(fingerprint.encode() + run.names[0], digest_size=16).hexdigest()


_HEADER = msgspec.msgpack.Decoder(_Header)


def _read(fd: int, n: int) -> bytes:
    return os.read(fd, n)


def _write(fd: int, part: bytes | mmap.mmap) -> None:
    with memoryview(part) as view:
        n = 0
        while n < len(view):
            n += os.write(fd, view[n:])
