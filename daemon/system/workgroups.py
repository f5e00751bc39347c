"""A cgroup for each worker, where the daemon's own group is its to divide: a service with Delegate=, or a container.

The daemon itself moves into `supervisor`, as a group that is divided may hold no process. Elsewhere there are none, and
nothing is touched.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import logging
import os
import posixpath
from typing import TYPE_CHECKING

from .cgroup import unified
from .sysfs import Root, parse_int, parse_table

if TYPE_CHECKING:
    from collections.abc import Iterable

log = logging.getLogger(__name__)

OURS = "supervisor"
PREFIX = "w-"
CONTROLLERS = ("memory", "pids")
MAX_NAME_BYTES = 200
SPARE_PIDS = 64  # threads of libraries beside those that compute
NO_TREE = "there is no cgroup v2 here"


class Group:
    """One worker's, or none: then every word to it is lost."""

    def __init__(self, path: str = "", limit_bytes: int = 0) -> None:
        self.path = path
        self.limit_bytes = limit_bytes  # of memory; 0: none
        self.starved = False  # the kernel has ended it for its memory
        self.ended = False  # nobody is born in it any more

    def add(self, pid: int) -> None:
        """What the process takes from now on is the group's."""
        if self.path:
            try:
                _write(self.path, "cgroup.procs", f"{pid}")
            except OSError as error:
                log.warning("%s: process %d stays outside: %s", self.path, pid, error.strerror)

    def ran_out(self) -> bool:
        """Of the memory that it may have, so that the kernel ended it."""
        if self.path and not self.starved:
            events = parse_table(Root("/").text(f"{self.path.lstrip('/')}/memory.events"))
            self.starved = bool(parse_int(events.get("oom_kill")))
        return self.starved

    def end(self) -> None:
        """After its process is reaped; one that another process hides in is emptied, and goes with the next."""
        self.ended = True
        if self.path:
            self.ran_out()
            _remove(self.path)


class Groups:
    """`why` they are not to be had; "" where they are."""

    def __init__(self, folder: str = "", why: str = "nobody has looked") -> None:
        self._folder = folder
        self._serial = itertools.count(1)
        self._out: dict[str, Group] = {}  # by path, until they are ended
        self.why = why

    @classmethod
    def divide(cls, root: Root) -> Groups:
        """Take the daemon's own group in hand, before it has any child."""
        folder, why = find(root)
        if why:
            log.info("workers share the daemon's cgroup: %s", why)
            return cls(why=why)
        path = root.at(folder)
        try:
            _settle_in(path)
        except OSError as error:
            log.warning("workers share the daemon's cgroup, which cannot be divided: %s", error.strerror)
            return cls(why=f"it cannot be divided: {error.strerror}")
        log.info("each worker has a cgroup of its own below %s", path)
        return cls(path, "")

    def begin(self, name: str, limit_bytes: int, n_pids: int) -> Group:
        """An empty one. Where it cannot be made, the worker goes without."""
        if not self._folder:
            return Group()
        self._sweep()
        path = os.path.join(self._folder, f"{PREFIX}{name[:MAX_NAME_BYTES].replace('/', '-')}-{next(self._serial)}")
        try:
            os.mkdir(path)
            _write(path, "memory.max", f"{limit_bytes}")
            _write(path, "memory.oom.group", "1")
            _write(path, "pids.max", f"{n_pids}")
        except OSError as error:
            log.warning("%s cannot be made, the worker goes without: %s", path, error.strerror)
            _remove(path)
            return Group()
        self._out[path] = Group(path, limit_bytes)
        return self._out[path]

    def _sweep(self) -> None:
        """What was not empty when it should have gone. One that is handed out is empty until its process is there."""
        self._out = {path: group for path, group in self._out.items() if not group.ended}
        with contextlib.suppress(OSError):
            for path in _workers(self._folder):
                if path not in self._out and not _pids(path):
                    _remove(path)


UNDIVIDED = Groups(why="the machine's")


def find(root: Root) -> tuple[str, str]:
    """The folder of the group that may be divided, below the root; or why there is none."""
    levels = unified(root)
    if not levels:
        return "", NO_TREE
    folder = levels[0].folder
    inside = posixpath.basename(folder) == OURS  # put there by whoever started us
    if inside:
        folder = posixpath.dirname(folder)
    if not root.exists(f"{folder}/cgroup.type"):
        return "", "it is the root of the tree"
    if lacks := _lacks(root, folder):
        return "", lacks
    files = (folder, f"{folder}/cgroup.procs", f"{folder}/cgroup.subtree_control")
    if not all(os.access(root.at(path), os.W_OK) for path in files):
        return "", "it is not ours to divide; a service needs Delegate=memory pids"
    others = _pids(root.at(folder)) - {os.getpid()}
    if others:
        return "", f"{len(others)} other processes are in it"
    return folder, ""


def missing(root: Root) -> str:
    """Why workers can have no cgroups of their own on this machine, whoever starts the daemon; "" where they can."""
    levels = unified(root)
    return _lacks(root, levels[-1].folder) if levels else NO_TREE


def _lacks(root: Root, folder: str) -> str:
    lacking = set(CONTROLLERS) - set((root.text(f"{folder}/cgroup.controllers") or "").split())
    return f"cgroup v2 has no controller for {' and '.join(sorted(lacking))} here" if lacking else ""


def _settle_in(path: str) -> None:
    """Raises OSError, and leaves everything as it was."""
    ours = os.path.join(path, OURS)
    moved = os.getpid() in _pids(path)
    if moved:
        os.makedirs(ours, exist_ok=True)
        _write(ours, "cgroup.procs", f"{os.getpid()}")
    try:
        _write(path, "cgroup.subtree_control", " ".join(f"+{name}" for name in CONTROLLERS))
    except OSError:
        if moved:
            with contextlib.suppress(OSError):
                _write(path, "cgroup.procs", f"{os.getpid()}")
                os.rmdir(ours)
        raise
    for left in _workers(path):
        _remove(left)


def _workers(path: str) -> Iterable[str]:
    return [os.path.join(path, name) for name in os.listdir(path) if name.startswith(PREFIX)]


def _pids(path: str) -> set[int]:
    try:
        with open(os.path.join(path, "cgroup.procs"), encoding="ascii") as file:
            return {int(line) for line in file}
    except (OSError, ValueError):
        return set()


def _remove(path: str) -> None:
    try:
        os.rmdir(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno == errno.EBUSY:
            with contextlib.suppress(OSError):
                _write(path, "cgroup.kill", "1")
        log.warning("%s cannot be removed: %s", path, error.strerror)


def _write(folder: str, name: str, value: str) -> None:
    """Of a group that is there. Nothing is made: a fake tree must have what a real one has."""
    fd = os.open(os.path.join(folder, name), os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)
