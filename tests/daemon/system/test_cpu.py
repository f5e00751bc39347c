"""Cores that are there, and cores that are ours."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from inferd.daemon.system.cpu import cpu_times, read_cpu
from inferd.daemon.system.sysfs import Root

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

V2 = "sys/fs/cgroup"


def test_hardware_threads_are_not_cores(plant: Callable[..., Path]) -> None:
    cpu = read_cpu(Root(plant()))
    assert (cpu.model, cpu.vendor) == ("Fake(R) Core(TM)", "intel")
    assert (cpu.logical_cores, cpu.physical_cores, cpu.cores_allowed, cpu.threads) == (8, 4, 8, 4)
    assert cpu.performance_cores is None
    assert cpu.simd == ("sse4_2", "avx", "f16c", "fma", "avx2", "avx_vnni")
    assert cpu.l3_bytes == 24 << 20
    assert [(node.id, node.memory_total_bytes) for node in cpu.numa_nodes] == [(0, 32 << 30)]


def test_a_hybrid_computes_on_its_fast_cores(plant: Callable[..., Path]) -> None:
    cpu = read_cpu(Root(plant("meteor_lake")))
    assert (cpu.physical_cores, cpu.performance_cores, cpu.threads) == (4, 2, 2)


def test_a_hybrid_whose_fast_cores_are_forbidden(plant: Callable[..., Path]) -> None:
    cpu = read_cpu(Root(plant("meteor_lake", {"proc/self/status": "Cpus_allowed_list:\t4-7\n"})))
    assert (cpu.cores_allowed, cpu.threads) == (4, 2)


def test_affinity_cpuset_and_quota_all_count(plant: Callable[..., Path]) -> None:
    changes = {
        "proc/self/status": "Cpus_allowed_list:\t0-5\n",
        f"{V2}/cpuset.cpus.effective": "2-7",
        "proc/self/cgroup": "0::/box\n",
        f"{V2}/box/cpu.max": "max 100000",
    }
    cpu = read_cpu(Root(plant("plain", changes)))
    assert (cpu.cores_allowed, cpu.threads, cpu.quota_cores) == (4, 2, None)
    cpu = read_cpu(Root(plant("plain", {**changes, f"{V2}/box/cpu.max": "150000 100000"})))
    assert (cpu.cores_allowed, cpu.threads, cpu.quota_cores) == (1, 1, 1.5)


def test_two_numa_nodes_and_two_caches(plant: Callable[..., Path]) -> None:
    cpu = read_cpu(Root(plant("dual_numa")))
    assert [(node.id, node.cpus) for node in cpu.numa_nodes] == [(0, (0, 1, 2, 3)), (1, (4, 5, 6, 7))]
    assert cpu.l3_bytes == 48 << 20


def test_garbage_leaves_one_core(plant: Callable[..., Path]) -> None:
    garbage = {
        "sys/devices/system/cpu/online": "\xff\xfe",
        "proc/cpuinfo": "\x00\x01:::\n:",
        "proc/self/status": "Cpus_allowed_list:\t900-1000\n",
        "sys/devices/system/node/node0/meminfo": "Node 0 MemTotal:",
        "sys/devices/system/node/nodeX/cpulist": "?",
        "sys/devices/system/cpu/cpu0/cache/index3/size": "KK",
    }
    cpu = read_cpu(Root(plant("plain", garbage)))
    assert (cpu.logical_cores, cpu.cores_allowed, cpu.threads) == (1, 1, 1)
    assert (cpu.model, cpu.simd, cpu.l3_bytes) == ("unknown processor", (), None)


def test_nothing_at_all(tmp_path: Path) -> None:
    cpu = read_cpu(Root(tmp_path))
    assert (cpu.physical_cores, cpu.threads, cpu.numa_nodes) == (1, 1, ())


def test_times(plant: Callable[..., Path]) -> None:
    assert cpu_times(Root(plant())) == (200, 1000)
    assert cpu_times(Root(plant("plain", {"proc/stat": "cpu 1 2 x 4 5\n"}))) is None
    assert cpu_times(Root(plant("plain", {"proc/stat": None}))) is None


def test_this_very_machine_has_cores() -> None:
    cpu = read_cpu()
    assert 1 <= cpu.threads <= cpu.cores_allowed <= len(os.sched_getaffinity(0))
