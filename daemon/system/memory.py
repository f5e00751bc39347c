"""RAM, swap, limits and pressure: how much this process may really use."""

from __future__ import annotations

import re

from ..domain.device import HostMemory
from . import cgroup
from .psi import read_pressure
from .sysfs import Root, parse_int, parse_table


def read_memory(root: Root | None = None) -> HostMemory:
    """A few small files; cheap enough for once a second."""
    root = root or Root()
    meminfo = parse_table(root.text("proc/meminfo"), ":")
    total, swap_free = _kib(meminfo, "MemTotal"), _kib(meminfo, "SwapFree")
    groups = cgroup.memory_levels(root)
    available, bound_by = _available(meminfo), "meminfo"
    for group in groups:
        if group.available_bytes is not None and (available is None or group.available_bytes < available):
            available, bound_by = group.available_bytes, f"cgroup {group.name}"
    some, full = read_pressure(root, "memory")
    return HostMemory(
        total_bytes=total,
        available_bytes=available,
        bound_by=None if available is None else bound_by,
        # A limit above the machine's RAM limits nothing.
        limit_bytes=min((g.limit_bytes for g in groups if not total or g.limit_bytes < total), default=None),
        swap_total_bytes=_kib(meminfo, "SwapTotal"),
        swap_free_bytes=cgroup.swap_free_bytes(root, swap_free),
        memlock_limit_bytes=memlock_limit_bytes(root),
        psi_some_avg10=some,
        psi_full_avg10=full,
    )


def memlock_limit_bytes(root: Root) -> int | None:
    """How much may be pinned; None where nothing stands in the way."""
    status = parse_table(root.text("proc/self/status"), ":")
    capabilities = parse_int("0x" + status.get("CapEff", "0"))
    if capabilities and capabilities >> 14 & 1:  # CAP_IPC_LOCK: the limit does not apply
        return None
    match = re.search(r"^Max locked memory\s+(\d+)", root.text("proc/self/limits") or "", re.M | re.ASCII)
    return parse_int(match[1]) if match else None


def _available(meminfo: dict[str, str]) -> int | None:
    available = _kib(meminfo, "MemAvailable")
    return available if available is not None else _kib(meminfo, "MemFree")


def _kib(meminfo: dict[str, str], key: str) -> int | None:
    value = parse_int(meminfo.get(key, "").removesuffix("kB"))
    return None if value is None or value < 0 else value * 1024
