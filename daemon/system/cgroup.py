"""Where this process stands in the cgroup trees, v1 and v2, from its own group up to the root."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .sysfs import parse_cpus, parse_int, parse_table

if TYPE_CHECKING:
    from .sysfs import Root

_UNLIMITED_BYTES = 1 << 60  # v1 says "no limit" with the largest page-aligned number


@dataclass(frozen=True, slots=True)
class Level:
    """One group: its folder under the root, its path for people, and which interface it speaks."""

    folder: str
    name: str
    version: int


@dataclass(frozen=True, slots=True)
class MemoryLevel:
    name: str
    limit_bytes: int
    available_bytes: int | None


@dataclass(frozen=True, slots=True)
class _Mount:
    root: str
    folder: str
    controllers: frozenset[str]  # empty for v2


def levels(root: Root, controller: str) -> tuple[Level, ...]:
    """Our group and its ancestors in whichever tree has the controller, ours first."""
    mounts = _mounts(root)
    for line in (root.text("proc/self/cgroup") or "").splitlines():
        _, names, path = ([*line.split(":", 2), "", ""])[:3]
        if controller in names.split(","):
            found = [mount for mount in mounts if controller in mount.controllers]
            if climbed := _climb(root, found, path, 1):
                return climbed
    return _unified(root, mounts)


def unified(root: Root) -> tuple[Level, ...]:
    """Our own group in the tree of v2, and its ancestors."""
    return _unified(root, _mounts(root))


def memory_levels(root: Root) -> list[MemoryLevel]:
    """The groups above us that limit memory, with what each of them has left."""
    read = {1: _memory_v1, 2: _memory_v2}
    found = [read[level.version](root, level) for level in levels(root, "memory")]
    return [level for level in found if level is not None]


def swap_free_bytes(root: Root, machine_free_bytes: int | None) -> int | None:
    """Swap that is left to us. v1 limits RAM and swap as one sum, so there only the machine counts."""
    free = machine_free_bytes
    for level in levels(root, "memory"):
        limit = root.integer(f"{level.folder}/memory.swap.max") if level.version == 2 else None
        if limit is not None and free is not None:
            used = root.integer(f"{level.folder}/memory.swap.current") or 0
            free = min(free, max(0, limit - used))
    return free


def quota_cores(root: Root) -> float | None:
    """The tightest CPU quota above us, in cores."""
    quotas = []
    for level in levels(root, "cpu"):
        if level.version == 2:
            quota, period = ([*(root.text(f"{level.folder}/cpu.max") or "").split(), "", ""])[:2]
        else:
            quota = root.text(f"{level.folder}/cpu.cfs_quota_us") or ""
            period = root.text(f"{level.folder}/cpu.cfs_period_us") or ""
        quota_us, period_us = parse_int(quota), parse_int(period)
        if quota_us is not None and period_us is not None and quota_us > 0 and period_us > 0:
            quotas.append(quota_us / period_us)
    return min(quotas, default=None)


def cpuset(root: Root) -> tuple[int, ...] | None:
    """The CPUs that our group may run on, where it says so."""
    for level in levels(root, "cpuset"):
        names = ("cpuset.cpus.effective", "cpuset.effective_cpus", "cpuset.cpus")
        for cpus in (parse_cpus(root.text(f"{level.folder}/{name}")) for name in names):
            if cpus:
                return cpus
    return None


def _memory_v2(root: Root, level: Level) -> MemoryLevel | None:
    # Above memory.high the kernel stalls us until pages are given back, so it bounds us like max.
    names = ("memory.max", "memory.high")
    limits = [limit for name in names if (limit := root.integer(f"{level.folder}/{name}")) is not None]
    if not limits:
        return None
    stat = parse_table(root.text(f"{level.folder}/memory.stat"))
    used = root.integer(f"{level.folder}/memory.current")
    return MemoryLevel(level.name, min(limits), _left(min(limits), used, stat.get("inactive_file")))


def _memory_v1(root: Root, level: Level) -> MemoryLevel | None:
    limit = root.integer(f"{level.folder}/memory.limit_in_bytes")
    if limit is None or limit >= _UNLIMITED_BYTES or limit < 0:
        return None
    stat = parse_table(root.text(f"{level.folder}/memory.stat"))
    used = root.integer(f"{level.folder}/memory.usage_in_bytes")
    return MemoryLevel(level.name, limit, _left(limit, used, stat.get("total_inactive_file")))


def _left(limit_bytes: int, used_bytes: int | None, inactive_file: str | None) -> int | None:
    if used_bytes is None:
        return None
    # Page cache that nobody uses is counted as ours but goes away when asked to.
    return min(limit_bytes, max(0, limit_bytes - used_bytes + (parse_int(inactive_file) or 0)))


def _mounts(root: Root) -> list[_Mount]:
    mounts = []
    for line in (root.text("proc/self/mountinfo") or "").splitlines():
        left, _, right = line.partition(" - ")
        before, after = left.split(), right.split()
        if len(before) < 5 or not after or after[0] not in ("cgroup", "cgroup2"):
            continue
        options = after[2].split(",") if len(after) > 2 else []
        v1 = frozenset(options if after[0] == "cgroup" else ())
        mounts.append(_Mount(before[3], before[4].lstrip("/"), v1))
    return mounts or _usual_mounts(root)


def _usual_mounts(root: Root) -> list[_Mount]:
    base = "sys/fs/cgroup"
    if root.exists(f"{base}/cgroup.controllers"):
        return [_Mount("/", base, frozenset())]
    named = [_Mount("/", f"{base}/{name}", frozenset(name.split(","))) for name in root.names(base)]
    return [*named, _Mount("/", f"{base}/unified", frozenset())]


def _unified(root: Root, mounts: list[_Mount]) -> tuple[Level, ...]:
    for line in (root.text("proc/self/cgroup") or "").splitlines():
        if line.startswith("0::"):
            return _climb(root, [mount for mount in mounts if not mount.controllers], line[3:], 2)
    return ()


def _climb(root: Root, mounts: list[_Mount], path: str, version: int) -> tuple[Level, ...]:
    for mount in mounts:
        # A group outside our namespace reads as /../..; what we can see starts at the mount.
        path = posixpath.normpath("/" + path.removeprefix(mount.root if mount.root != "/" else "").lstrip("/"))
        parts = [part for part in path.split("/") if part]
        climbed = []
        for depth in range(len(parts), -1, -1):
            name = "/" + "/".join(parts[:depth])
            folder = f"{mount.folder}{name}".rstrip("/")
            if root.exists(folder):
                climbed.append(Level(folder, name, version))
        if climbed:
            return tuple(climbed)
    return ()
