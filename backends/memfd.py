"""Memory that outlives the process that filled it: files without a name, sealed, and their way over a socket."""

from __future__ import annotations

import array
import fcntl
import mmap
import os
import socket
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MAX_FDS = 64  # in one message; Linux takes 253
SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def create(n_bytes: int) -> int:
    """A file of so many zeros. The caller fills it (`writable`), seals it, and closes it. Raises OSError."""
    fd = os.memfd_create("inferd", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, n_bytes)
    except OSError:
        os.close(fd)
        raise
    return fd


@contextmanager
def writable(fd: int) -> Iterator[memoryview]:
    """Its bytes, until the end of the block; no view of them may be left then."""
    with mmap.mmap(fd, 0) as mapping, memoryview(mapping) as view:
        yield view


def seal(fd: int) -> None:
    """From here on nobody can change it, who ever has it."""
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)


def readable(fd: int, n_bytes: int) -> mmap.mmap:
    """Its bytes, which will never change. Raises ValueError unless it is sealed, whole, and of just this size."""
    try:
        seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    except OSError:
        raise ValueError("not a file that can be sealed") from None
    if seals & SEALS != SEALS:
        raise ValueError("the file is not sealed")
    if n_bytes <= 0 or not is_whole(fd, n_bytes):
        raise ValueError(f"the file has {os.fstat(fd).st_size} bytes, not {n_bytes}, or holes")
    return mmap.mmap(fd, n_bytes, mmap.MAP_SHARED, mmap.PROT_READ)


def is_whole(fd: int, n_bytes: int) -> bool:
    """It is a file of just this size without holes: what it says it takes would be believed."""
    status = os.fstat(fd)
    return stat.S_ISREG(status.st_mode) and status.st_size == n_bytes and status.st_blocks * 512 >= n_bytes


def send(sock: socket.socket, fds: Sequence[int]) -> None:
    """At most MAX_FDS files in one message; they stay open here. Raises OSError."""
    sock.sendmsg([b"f"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))])


def receive(sock: socket.socket, n: int) -> list[int]:
    """The files of one message. Raises OSError when there is none, or when they are not so many."""
    fds = array.array("i")
    _, ancillary, _, _ = sock.recvmsg(1, socket.CMSG_LEN(MAX_FDS * fds.itemsize), socket.MSG_CMSG_CLOEXEC)
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(data[: len(data) // fds.itemsize * fds.itemsize])
    if len(fds) != n:
        for fd in fds:
            os.close(fd)
        raise OSError(f"{len(fds)} files came, not {n}")
    return list(fds)
