"""The processor: its cores, its vector units, and how much of it this process may use."""

from __future__ import annotations

import os
import platform
from typing import TYPE_CHECKING

from ..domain.device import CpuFacts
from . import cgroup
from .numa import read_nodes
from .sysfs import Root, parse_cpus, parse_int, parse_table

if TYPE_CHECKING:
    from collections.abc import Iterable

_CPUS = "sys/devices/system/cpu"
# What ggml has kernels for; the names are the kernel's own.
_SIMD = (
    *("sse4_2", "avx", "f16c", "fma", "avx2", "avx_vnni", "avx512f", "avx512bw", "avx512vl", "avx512_vnni"),
    *("avx512_bf16", "amx_tile", "amx_int8", "amx_bf16"),
    *("neon", "asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2", "sme", "rvv"),
)
_VENDORS = {"GenuineIntel": "intel", "AuthenticAMD": "amd", "HygonGenuine": "hygon"}


def read_cpu(root: Root | None = None) -> CpuFacts:
    root = root or Root()
    # Asking for all of /proc/cpuinfo makes the kernel interrupt every core; the first is enough.
    info = parse_table(root.text("proc/cpuinfo", 8192), ":")
    online = _online(root)
    allowed = _allowed(root, online)
    performance = parse_cpus(root.text("sys/devices/cpu_core/cpus"))
    quota = cgroup.quota_cores(root)
    best = [cpu for cpu in allowed if not performance or cpu in performance] or allowed
    return CpuFacts(
        model=info.get("model name") or info.get("Model") or info.get("cpu model") or "unknown processor",
        vendor=_VENDORS.get(info.get("vendor_id", ""), info.get("vendor_id", "unknown")),
        architecture=platform.machine(),
        logical_cores=len(online),
        physical_cores=_physical(root, online),
        performance_cores=_physical(root, performance) if performance else None,
        cores_allowed=_within(quota, len(allowed)),
        quota_cores=quota,
        threads=_within(quota, _physical(root, best)),
        simd=_simd(info),
        numa_nodes=read_nodes(root),
        l3_bytes=_l3_bytes(root, online),
    )


def cpu_times(root: Root) -> tuple[int, int] | None:
    """(busy, total) ticks of all cores since boot; take differences."""
    words = (root.text("proc/stat", 4096) or "").split("\n", 1)[0].split()
    ticks = [parse_int(word) for word in words[1:9]]
    known = [tick for tick in ticks if tick is not None and tick >= 0]
    if words[:1] != ["cpu"] or len(known) != len(ticks) or len(known) < 5:
        return None
    return sum(known) - known[3] - known[4], sum(known)  # idle and waiting for disks are not busy


def _online(root: Root) -> tuple[int, ...]:
    online = parse_cpus(root.text(f"{_CPUS}/online"))
    if online:
        return online
    return tuple(range(os.cpu_count() or 1)) if root.real else (0,)


def _allowed(root: Root, online: tuple[int, ...]) -> tuple[int, ...]:
    """Affinity and cpuset together; a garbled file must not leave us without a core."""
    status = parse_table(root.text("proc/self/status"), ":")
    affinity = parse_cpus(status.get("Cpus_allowed_list"))
    if not affinity and root.real and hasattr(os, "sched_getaffinity"):
        affinity = tuple(sorted(os.sched_getaffinity(0)))
    allowed = set(online)
    for cpus in (affinity, cgroup.cpuset(root)):
        if cpus:
            allowed = allowed & set(cpus) or allowed
    return tuple(sorted(allowed))


def _within(quota_cores: float | None, cores: int) -> int:
    # Threads beyond the quota spin until they are throttled, so round down.
    return max(1, cores if quota_cores is None else min(cores, int(quota_cores)))


def _physical(root: Root, cpus: Iterable[int]) -> int:
    """How many cores these CPUs are, hardware threads of one core counted once."""
    seen: set[int] = set()
    cores = 0
    for cpu in cpus:
        if cpu in seen:
            continue
        topology = f"{_CPUS}/cpu{cpu}/topology"
        shared = root.text(f"{topology}/core_cpus_list") or root.text(f"{topology}/thread_siblings_list")
        seen.update(parse_cpus(shared) or (), (cpu,))
        cores += 1
    return cores


def _simd(info: dict[str, str]) -> tuple[str, ...]:
    flags = set((info.get("flags") or info.get("Features") or "").split())
    return tuple(name for name in _SIMD if name in flags)


def _l3_bytes(root: Root, cpus: Iterable[int]) -> int | None:
    """All third-level caches together, each counted once however many cores share it."""
    seen: set[int] = set()
    total = 0
    for cpu in cpus:
        if cpu in seen:
            continue
        cache = f"{_CPUS}/cpu{cpu}/cache/index3"
        seen.update(parse_cpus(root.text(f"{cache}/shared_cpu_list")) or (), (cpu,))
        total += _cache_bytes(root.text(f"{cache}/size")) or 0
    return total or None


def _cache_bytes(text: str | None) -> int | None:
    unit = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}.get((text or "")[-1:], 1)
    value = parse_int((text or "").rstrip("KMG"))
    return None if value is None or value < 0 else value * unit
