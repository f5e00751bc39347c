"""Which files a process may still open: the kernel's Landlock, as far as the one that runs here has it."""

from __future__ import annotations

import ctypes
import os
import stat
import struct
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

WRITE_FILE, READ_FILE, READ_DIR = 1 << 1, 1 << 2, 1 << 3
TRUNCATE, IOCTL_DEV = 1 << 14, 1 << 15
READ = READ_FILE | READ_DIR
USE = READ | WRITE_FILE | IOCTL_DEV  # of a device
WRITE_ANEW = READ | WRITE_FILE | TRUNCATE  # as programs write that know nothing of what is there
_OF_FILES = 1 << 0 | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV  # what can be said of one that is no folder

_CREATE, _ADD, _RESTRICT = 444, 445, 446  # of the calls, on every machine
_ASK_VERSION, _PATH_BENEATH = 1, 1
_NO_NEW_PRIVS = 38  # of prctl(2)


def abi() -> int:
    """What the kernel has of it, by its own count; 0: nothing, or it is switched off."""
    return max(0, _call(_CREATE, None, 0, _ASK_VERSION))


def files(version: int) -> int:
    """All that can be forbidden of files and folders."""
    return (1 << 13) - 1 | (version >= 2) << 13 | (TRUNCATE if version >= 3 else 0) | (IOCTL_DEV if version >= 5 else 0)


def restrict(rules: Iterable[tuple[int, int]]) -> None:
    """From here on this thread, and all that it begins, opens nothing but what the rules allow, each a file or folder
    (opened, however it is) with what may be done beneath it. TCP, signals and sockets without a file go, too, where
    the kernel can. Raises OSError."""
    version = abi()
    handled = files(version)
    # Newer kernels know more: TCP from 4 on, from 6 on abstract sockets and signals to those outside.
    attributes = struct.pack("=QQQ", handled, 3, 3)[: 24 if version >= 6 else 16 if version >= 4 else 8]
    fd = _done(_call(_CREATE, attributes, len(attributes), 0))
    try:
        for at, access in rules:
            if not stat.S_ISDIR(os.fstat(at).st_mode):
                access &= _OF_FILES
            _done(_call(_ADD, fd, _PATH_BENEATH, struct.pack("=Qi", access & handled, at), 0))
        ctypes.CDLL(None, use_errno=True).prctl(_NO_NEW_PRIVS, 1, 0, 0, 0)
        _done(_call(_RESTRICT, fd, 0))
    finally:
        os.close(fd)


def _call(number: int, *arguments: Any) -> int:
    call = ctypes.CDLL(None, use_errno=True).syscall
    call.restype = ctypes.c_long
    told: int = call(ctypes.c_long(number), *(ctypes.c_long(a) if isinstance(a, int) else a for a in arguments))
    return told


def _done(told: int) -> int:
    if told < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return told
