"""What is taken away from a child before it looks at a model: other files, the network, other processes.

A model file may be made by anybody, and what reads it is C++. It may become whatever that file wants: then it sees its
own model, the libraries and the devices that it was given, and has the one way out that it was born with.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import glob
import os
import stat
import struct
import sys
from typing import TYPE_CHECKING, NamedTuple

from . import landlock, seccomp
from .engine import LoadError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .facts import LoadPlan

_OPENAT2, _AT_FDCWD, _NO_LINKS = 437, -100, 6  # links of either kind, in no part of a path
ROOT = os.path.dirname(os.path.abspath(__file__))  # this package's own folder

# Folders of programs, which hold nothing of anybody. Nothing is executed there: to load a library is to read it.
LIBRARIES = ("/usr", "/lib", "/lib32", "/lib64", "/nix/store", "/gnu/store")
SETTINGS = ("/etc/ld.so.cache", "/etc/ld.so.preload", "/etc/localtime", "/etc/ssl/openssl.cnf")
KERNEL = (
    *("/proc/self", "/proc/sys/vm", "/proc/sys/kernel", "/proc/meminfo", "/proc/cpuinfo", "/proc/stat"),
    *("/proc/uptime", "/proc/version", "/proc/loadavg", "/proc/filesystems", "/sys", "/dev/urandom", "/dev/random"),
)
SINKS = ("/dev/null", "/dev/zero", "/dev/full")
DEVICES = ("/dev/nvidia*", "/dev/nvidia-caps", "/dev/dri", "/dev/kfd", "/dev/accel", "/dev/dxg")
DRIVERS = ("/proc/driver", "/proc/devices", "/proc/modules", "/etc/OpenCL", "/etc/vulkan")
# An engine that was built for a device needs its maker's libraries also where it computes without.
VENDORS = ("/opt/rocm*", "/opt/cuda*", "/opt/amdgpu*", "/opt/intel", "/opt/nvidia", "/run/opengl-driver")
OWN_THREADS = "/proc/self/task"  # their names are written there by drivers of NVIDIA, which fail where they may not


class Held(NamedTuple):
    """How far a cage goes, or would."""

    landlock: int  # what the kernel has of it, by its own count; 0: files are not guarded
    seccomp: bool  # the network, other programs and other processes are out of reach

    @property
    def whole(self) -> bool:
        return bool(self.landlock and self.seccomp)

    def __str__(self) -> str:
        parts = [f"landlock {self.landlock}" if self.landlock else "", "seccomp" if self.seccomp else ""]
        return ", ".join(part for part in parts if part) or "none"


def abilities() -> Held:
    """What this kernel has. Nothing is changed."""
    return Held(landlock.abi(), seccomp.available())


def close_in(plan: LoadPlan) -> str:
    """From here on this process reads the plan's files and libraries, and nothing else; says how far that holds.

    Call with one thread, and before a byte of the model is looked at. Raises LoadError where the plan asks for a whole
    cage and the kernel has none, and for a file that is another thing than a file.
    """
    if plan.sandbox == "off":
        return "off"
    held = Held(_guard_files(plan), _guard_calls(bool(plan.devices)))
    if plan.sandbox == "required" and not held.whole:
        message = f'`workers.sandbox` is "required", but this kernel gives no whole one (it has: {held})'
        raise LoadError("sandbox", message)
    return str(held)


def files_of(plan: LoadPlan) -> list[str]:
    """All that a load opens of the model and of what is loaded beside it."""
    if plan.backend == "fake" and not plan.files:
        return []
    draft = () if plan.draft is None else plan.draft.files or (os.path.realpath(plan.draft.path),)
    return [*(plan.files or (os.path.realpath(plan.path),)), *draft, *(adapter.path for adapter in plan.adapters)]


def _guard_files(plan: LoadPlan) -> int:
    version = landlock.abi()
    if not version or len(os.listdir("/proc/self/task")) > 1:  # it holds for one thread and what comes of it
        return 0
    with contextlib.ExitStack() as opened:
        rules = []
        for path, access in _rules(plan):
            with contextlib.suppress(OSError):
                fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
                opened.callback(os.close, fd)
                rules.append((fd, access))
        for path in files_of(plan):
            fd = _open_file(path)
            opened.callback(os.close, fd)
            rules.append((fd, landlock.READ_FILE))
        try:
            landlock.restrict(rules)
        except OSError as error:
            print(f"cage: Landlock: {error.strerror}", file=sys.stderr)
            return 0
    return version


def _guard_calls(listens: bool) -> bool:
    """`listens`: as NVIDIA's driver does, on a socket that nobody can connect to, or it says that there is no GPU."""
    try:
        seccomp.install(listens=listens)
    except OSError as error:
        print(f"cage: seccomp: {error.strerror}", file=sys.stderr)
        return False
    return True


def _rules(plan: LoadPlan) -> Iterator[tuple[str, int]]:
    """Paths, and what may be done beneath them."""
    vendors = [path for pattern in VENDORS for path in glob.glob(pattern)]
    for path in (*LIBRARIES, *SETTINGS, *KERNEL, *_python(), *vendors, *_linked()):
        yield path, landlock.READ
    for path in SINKS:
        yield path, landlock.READ | landlock.WRITE_FILE
    if plan.devices:
        for pattern in DEVICES:
            yield from ((path, landlock.USE) for path in glob.glob(pattern))
        yield from ((path, landlock.READ) for path in DRIVERS)
        yield OWN_THREADS, landlock.WRITE_ANEW


def _python() -> Iterator[str]:
    """Where modules come from. Of our own package only this folder: what lies beside it may be anything."""
    yield ROOT
    here = os.getcwd()
    for path in {sys.prefix, sys.base_prefix, sys.exec_prefix, *sys.path}:
        if os.path.isabs(path) and os.path.realpath(path) not in ("/", os.path.realpath(here)):
            yield path


def _linked() -> Iterator[str]:
    """Folders that the linker looks for libraries in."""
    yield from filter(os.path.isabs, os.environ.get("LD_LIBRARY_PATH", "").split(":"))
    for conf in glob.glob("/etc/ld.so.conf.d/*.conf"):
        with contextlib.suppress(OSError), open(conf, encoding="utf-8", errors="replace") as file:
            yield from (line.strip() for line in file if line.startswith("/"))


def _open_file(path: str) -> int:
    """A regular file by a path without links, as the daemon has resolved it; nothing is read. Raises LoadError."""
    try:
        fd = _open_without_links(path)
    except OSError as error:
        raise LoadError("corrupt", f"one of its files cannot be opened: {error.strerror}") from None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise LoadError("corrupt", "one of its files is no regular file")
    return fd


def _open_without_links(path: str) -> int:
    how = struct.pack("=QQQ", os.O_PATH | os.O_CLOEXEC, 0, _NO_LINKS)
    call = ctypes.CDLL(None, use_errno=True).syscall
    call.restype = ctypes.c_long
    told: int = call(*map(ctypes.c_long, (_OPENAT2, _AT_FDCWD)), os.fsencode(path), how, ctypes.c_long(len(how)))
    if told >= 0:
        return told
    if ctypes.get_errno() not in (errno.ENOSYS, errno.EPERM):  # as of kernels before 5.6, and of their containers
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return os.open(path, os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW)
