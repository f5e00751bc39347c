"""Bytes on their way between processes: short ones go with their frame, long ones in a file without a name."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    Part = bytes | memoryview

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # of mallopt(3)
KEPT_BYTES = 256 * 2**20
INLINE_BYTES = 64 * 2**10  # up to here a copy is cheaper than a file


class Blob:
    """Some bytes, wherever they are. With `fd` it owns a file, until `close`."""

    __slots__ = ("data", "fd", "n_bytes")
    n_files = 0  # that were made here so far

    def __init__(self, n_bytes: int, *, data: bytes | None = None, fd: int | None = None) -> None:
        assert (data is None) != (fd is None)
        self.n_bytes, self.data, self.fd = n_bytes, data, fd

    @classmethod
    def of(cls, parts: Sequence[Part]) -> Blob:
        """These, one after the other. Raises OSError when there is no memory for a file."""
        n_bytes = sum(map(len, parts))
        if n_bytes <= INLINE_BYTES:
            return cls(n_bytes, data=parts[0] if len(parts) == 1 and type(parts[0]) is bytes else b"".join(parts))
        fd = os.memfd_create("inferd-tensors", os.MFD_CLOEXEC)
        cls.n_files += 1
        try:
            for part in parts:
                _write(fd, part)
        except BaseException:
            os.close(fd)
            raise
        return cls(n_bytes, fd=fd)

    def read(self) -> bytes:
        """A copy of what is in a file. Raises OSError when there is less than there should be: others may cut it."""
        if self.data is not None:
            data = self.data
        else:
            assert self.fd is not None, "it is closed"
            data = os.pread(self.fd, self.n_bytes, 0)
        if len(data) != self.n_bytes:
            raise OSError(f"the file has {len(data)} bytes, not {self.n_bytes}")
        return data

    def view(self) -> memoryview:
        """Without a copy, and only of files that nobody else can cut short: that would end this process."""
        if self.data is not None:
            return memoryview(self.data)
        assert self.fd is not None, "it is closed"
        flags = mmap.MAP_SHARED | mmap.MAP_POPULATE
        return memoryview(mmap.mmap(self.fd, self.n_bytes, flags, mmap.PROT_READ))

    def close(self) -> None:
        if self.fd is not None:
            os.close(self.fd)
            self.fd = None


def keep_freed_memory() -> None:
    """Have glibc keep what large tensors leave, up to KEPT_BYTES, for the next ones. Nothing happens without glibc.

    It would give such memory back at once, and most of a copy's time goes into new pages: 16 MB there and back through
    gRPC take 114 ms, and 33 when they are kept.
    """
    with contextlib.suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, KEPT_BYTES)
        mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)
        mallopt(_M_ARENA_MAX, 1)  # the end of every other arena would be kept for good, 64 MB a thread


def give_back_freed_memory() -> None:
    """What was kept goes back to the machine, for as long as nobody needs it."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


def _write(fd: int, part: Part) -> None:
    view = memoryview(part)
    while len(view):
        view = view[os.write(fd, view) :]
