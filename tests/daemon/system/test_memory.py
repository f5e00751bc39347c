"""How much RAM is really ours."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from inferd.daemon.domain.device import HostMemory
from inferd.daemon.system.memory import read_memory
from inferd.daemon.system.sysfs import Root

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

GIB = 1 << 30
LIMIT = {
    "proc/self/cgroup": "0::/box\n",
    "sys/fs/cgroup/box/memory.max": str(4 * GIB),
    "sys/fs/cgroup/box/memory.current": str(3 * GIB),
    "sys/fs/cgroup/box/memory.stat": f"inactive_file {GIB // 2}\n",
}


def test_the_machine_itself_without_limits(plant: Callable[..., Path]) -> None:
    memory = read_memory(Root(plant()))
    assert memory == HostMemory(
        total_bytes=32 * GIB,
        available_bytes=24 * GIB,
        bound_by="meminfo",
        limit_bytes=None,
        swap_total_bytes=8 * GIB,
        swap_free_bytes=8 * GIB,
        memlock_limit_bytes=8 << 20,
        psi_some_avg10=0.0,
        psi_full_avg10=0.0,
    )


def test_a_cgroup_binds_before_the_machine_does(plant: Callable[..., Path]) -> None:
    memory = read_memory(Root(plant("plain", LIMIT)))
    assert (memory.available_bytes, memory.bound_by, memory.limit_bytes) == (3 * GIB // 2, "cgroup /box", 4 * GIB)


def test_a_full_machine_binds_before_a_wide_cgroup(plant: Callable[..., Path]) -> None:
    changes = {**LIMIT, "proc/meminfo": f"MemTotal: {32 << 20} kB\nMemAvailable: {1 << 20} kB\n"}
    memory = read_memory(Root(plant("plain", changes)))
    assert (memory.available_bytes, memory.bound_by) == (GIB, "meminfo")


def test_a_limit_above_the_machine_limits_nothing(plant: Callable[..., Path]) -> None:
    changes = {**LIMIT, "sys/fs/cgroup/box/memory.max": str(64 * GIB)}
    assert read_memory(Root(plant("plain", changes))).limit_bytes is None


def test_a_kernel_too_old_for_memavailable(plant: Callable[..., Path]) -> None:
    memory = read_memory(Root(plant("plain", {"proc/meminfo": "MemTotal: 2048 kB\nMemFree: 1024 kB\n"})))
    assert (memory.available_bytes, memory.swap_total_bytes) == (1 << 20, None)


def test_the_heavier_pressure_counts(plant: Callable[..., Path]) -> None:
    pressure = "some avg10=31.50 avg60=0.00\nfull avg10=12.00 avg60=0.00\n"
    memory = read_memory(Root(plant("plain", {**LIMIT, "sys/fs/cgroup/box/memory.pressure": pressure})))
    assert (memory.psi_some_avg10, memory.psi_full_avg10) == (31.5, 12.0)


@pytest.mark.parametrize(
    ("changes", "limit"),
    [
        ({}, 8 << 20),
        ({"proc/self/limits": "Max locked memory unlimited unlimited bytes\n"}, None),
        ({"proc/self/status": "CapEff:\t000001ffffffffff\n"}, None),  # CAP_IPC_LOCK is above the limit
        ({"proc/self/limits": None}, None),
    ],
)
def test_how_much_may_be_locked(plant: Callable[..., Path], changes: dict[str, str | None], limit: int | None) -> None:
    assert read_memory(Root(plant("plain", changes))).memlock_limit_bytes == limit


def test_an_empty_machine_has_no_facts(tmp_path: Path) -> None:
    assert read_memory(Root(tmp_path)) == HostMemory()


def test_this_very_machine_has_memory() -> None:
    memory = read_memory()
    assert memory.total_bytes is not None
    assert memory.available_bytes is not None
    assert 0 < memory.available_bytes <= memory.total_bytes
