"""Fetches the files of one pull, in a process of its own: python -m inferd.daemon.system.fetch.

Two lines of JSON come in (`Look`, `Fetch`), a line goes out for each step. It can be killed at any moment: what is on
disk is gone on with by the next one. Nothing is believed until all bytes were read back and have the digest that was
announced.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import hashlib
import os
import resource
import signal
import sys
import time
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from ..domain.errors import Code
from ..domain.pull import Checking, Failed, Fetch, Fetched, Look, Verified
from .hub import Busy, Hub, HubError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..domain.pull import FromFetcher, HubFile, Listing

REPORT_S = 0.25
RETRIES = 5  # without a new byte in between
MAX_PAUSE_S = 8.0
MEMORY_BYTES = 4 * 2**30  # of addresses; a listing may be as long as it likes
POLITE = 10  # answers come before downloads
PIECE_BYTES = 4 * 2**20
MAX_LINE_BYTES = 4 * 2**20
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_PR_SET_PDEATHSIG = 1


class Fetching:
    """The work, apart from the process."""

    def __init__(
        self, hub: Hub, look: Look, send: Callable[[FromFetcher], None], pause: Callable[[float], None]
    ) -> None:
        self._hub = hub
        self._look = look
        self._send = send
        self._pause = pause
        self._told_s = 0.0
        self._n_done = 0  # bytes of files that are whole

    def list(self) -> Listing:
        """Raises HubError when it fails often enough."""
        n_failed = 0
        while True:
            try:
                return self._hub.list(self._look.repo, self._look.revision)
            except Busy as busy:
                n_failed += 1
                self._rest(busy, n_failed)

    def fetch(self, commit: str, wanted: Fetch) -> Verified:
        """Raises HubError; what is here by then stays, unless it is wrong."""
        folder_fd = os.open(wanted.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        with contextlib.ExitStack() as stack:
            stack.callback(os.close, folder_fd)
            opened = [(file, stack.enter_context(_open(folder_fd, file))) for file in wanted.files]
            for file, part in opened:
                self._fetch(commit, file, part, wanted.min_free_bytes)
                self._n_done += file.n_bytes
            self._send(Checking())
            return Verified(tuple(_verify(file, part, folder_fd) for file, part in opened))

    def _fetch(self, commit: str, file: HubFile, part: BinaryIO, min_free_bytes: int) -> None:
        if part.seek(0, os.SEEK_END) > file.n_bytes:
            part.truncate(part.seek(0))
        n_failed, n_most = 0, part.tell()
        self._tell(part.tell(), now=True)
        while part.tell() < file.n_bytes:
            busy = Busy(Code.PULL_FAILED, f"{file.name}: the hub sent less than it announced")
            try:
                self._read(commit, file, part, min_free_bytes)
            except Busy as error:
                busy = error
            n_failed = 0 if part.tell() > n_most else n_failed + 1
            n_most = max(n_most, part.tell())
            if part.tell() < file.n_bytes:
                self._rest(busy, n_failed)
        os.fsync(part.fileno())
        self._tell(file.n_bytes, now=True)

    def _read(self, commit: str, file: HubFile, part: BinaryIO, min_free_bytes: int) -> None:
        with self._hub.open(self._look.repo, commit, file.name, part.tell()) as (start, pieces):
            part.truncate(part.seek(start))
            _check_disk(part.fileno(), min_free_bytes)
            for piece in pieces:
                n_bytes = part.tell() + len(piece)
                if n_bytes > file.n_bytes:
                    part.truncate(part.seek(0))
                    raise HubError(Code.MODEL_CORRUPT, f"{file.name}: the hub sends more bytes than it announced")
                while piece:  # a disk that is nearly full takes the first part of it
                    piece = piece[part.write(piece) :]
                if self._tell(n_bytes):
                    _check_disk(part.fileno(), min_free_bytes)

    def _rest(self, busy: Busy, n_failed: int) -> None:
        """Before the next try. Raises the error that led here when there is none."""
        if n_failed > RETRIES:
            raise busy
        self._pause(min(MAX_PAUSE_S, 0.5 * 2**n_failed) if busy.retry_after_s is None else busy.retry_after_s)

    def _tell(self, n_bytes: int, now: bool = False) -> bool:
        """True when it was time to."""
        if due := now or time.monotonic() - self._told_s >= REPORT_S:
            self._told_s = time.monotonic()
            self._send(Fetched(self._n_done + n_bytes))
        return due


@contextlib.contextmanager
def _open(folder_fd: int, file: HubFile) -> Iterator[BinaryIO]:
    """What is here of it, named by its digest; nobody else writes to it meanwhile."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with open(os.open(file.digest, flags, 0o640, dir_fd=folder_fd), "r+b", buffering=0) as part:
        try:
            fcntl.flock(part, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise HubError(Code.PULL_FAILED, f"{file.name} is being fetched by somebody else", 5.0) from None
        yield part


def _verify(file: HubFile, part: BinaryIO, folder_fd: int) -> str:
    """The SHA-256 of what is on disk. Raises HubError, and removes it, when it is not what was announced."""
    sha256, git = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % file.n_bytes, usedforsecurity=False)
    is_git = len(file.digest) == 40
    part.seek(0)
    while piece := part.read(PIECE_BYTES):
        sha256.update(piece)
        if is_git:
            git.update(piece)
    if (git if is_git else sha256).hexdigest() != file.digest:
        os.unlink(file.digest, dir_fd=folder_fd)
        text = (
            f"{file.name}: its bytes do not have the digest {file.digest[:12]}… that was announced; they were removed"
        )
        raise HubError(Code.MODEL_CORRUPT, text)
    return sha256.hexdigest()


def _check_disk(fd: int, min_free_bytes: int) -> None:
    status = os.fstatvfs(fd)
    if (free_bytes := status.f_bavail * status.f_frsize) < min_free_bytes:
        text = f"only {free_bytes:,} bytes of the disk are free, and {min_free_bytes:,} are to stay so"
        raise HubError(Code.NO_ROOM, f"{text}; what was fetched is kept, and the next pull goes on from there")


def _settle() -> BinaryIO:
    """Signals are meant for the daemon, with which this dies; the real output is ours alone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # the daemon died before the line above took hold
        raise SystemExit(1)
    os.nice(POLITE)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    answer = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    return answer


def main() -> None:
    answer = _settle()

    def send(message: FromFetcher) -> None:
        answer.write(msgspec.json.encode(message) + b"\n")

    try:
        look = msgspec.json.decode(sys.stdin.buffer.readline(MAX_LINE_BYTES), type=Look)
        work = Fetching(Hub(look.endpoint, look.token), look, send, time.sleep)
        listing = work.list()
        send(listing)
        if line := sys.stdin.buffer.readline(MAX_LINE_BYTES):
            send(work.fetch(listing.commit, msgspec.json.decode(line, type=Fetch)))
    except HubError as error:
        send(Failed(error.code, error.message, None if error.retry_after_s is None else int(error.retry_after_s * 1e3)))
    except BrokenPipeError:
        raise SystemExit(1) from None  # the daemon is gone
    except OSError as error:
        send(_disk_failed(error))


def _disk_failed(error: OSError) -> Failed:
    if error.errno in FULL:
        return Failed(Code.NO_ROOM, "the disk is full; what was fetched is kept, and the next pull goes on from there")
    return Failed(Code.PULL_FAILED, f"the folder for models cannot be used: {error.strerror or 'the log says why'}")


if __name__ == "__main__":
    main()
