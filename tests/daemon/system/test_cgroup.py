"""Limits of every group above us, in both versions of the interface."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferd.daemon.system import cgroup
from inferd.daemon.system.sysfs import Root

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MIB = 1 << 20
V2 = "sys/fs/cgroup"


def v2_group(path: str, **files: str) -> dict[str, str]:
    return {f"{V2}{path}/{name.replace('__', '.')}": content for name, content in files.items()}


NESTED = {
    "proc/self/cgroup": "0::/user.slice/app.scope\n",
    **v2_group("/user.slice/app.scope", memory__max="max", memory__current=str(100 * MIB), cpu__max="400000 100000"),
    **v2_group(
        "/user.slice",
        memory__max=str(1000 * MIB),
        memory__high=str(900 * MIB),
        memory__current=str(600 * MIB),
        memory__stat=f"anon 5\ninactive_file {50 * MIB}\n",
        memory__swap__max=str(200 * MIB),
        memory__swap__current=str(50 * MIB),
        cpu__max="150000 100000",
        cpuset__cpus__effective="2-5",
    ),
}


def test_an_ancestors_limit_counts_and_page_cache_is_ours(plant: Callable[..., Path]) -> None:
    (level,) = cgroup.memory_levels(Root(plant("plain", NESTED)))
    assert (level.name, level.limit_bytes, level.available_bytes) == ("/user.slice", 900 * MIB, 350 * MIB)


def test_every_level_up_to_the_root_is_walked(plant: Callable[..., Path]) -> None:
    names = [level.name for level in cgroup.levels(Root(plant("plain", NESTED)), "memory")]
    assert names == ["/user.slice/app.scope", "/user.slice", "/"]


def test_quota_cpuset_and_swap_of_an_ancestor(plant: Callable[..., Path]) -> None:
    root = Root(plant("plain", NESTED))
    assert cgroup.quota_cores(root) == 1.5  # and not the wider one of our own group
    assert cgroup.cpuset(root) == (2, 3, 4, 5)
    assert cgroup.swap_free_bytes(root, 8 << 30) == 150 * MIB
    assert cgroup.swap_free_bytes(root, None) is None


def test_more_used_than_allowed_leaves_nothing(plant: Callable[..., Path]) -> None:
    changes = {**NESTED, **v2_group("/user.slice", memory__max="4096", memory__high="max")}
    (level,) = cgroup.memory_levels(Root(plant("plain", changes)))
    assert level.available_bytes == 0


V1 = {
    f"{V2}/cgroup.controllers": None,
    "proc/self/cgroup": "4:memory:/jobs/one\n3:cpuset:/\n2:cpu,cpuacct:/jobs\n0::/\n",
    f"{V2}/memory/jobs/one/memory.limit_in_bytes": "9223372036854771712",
    f"{V2}/memory/jobs/one/memory.usage_in_bytes": "1",
    f"{V2}/memory/jobs/memory.limit_in_bytes": str(512 * MIB),
    f"{V2}/memory/jobs/memory.usage_in_bytes": str(300 * MIB),
    f"{V2}/memory/jobs/memory.stat": f"inactive_file 7\ntotal_inactive_file {100 * MIB}\n",
    f"{V2}/cpu,cpuacct/jobs/cpu.cfs_quota_us": "200000",
    f"{V2}/cpu,cpuacct/jobs/cpu.cfs_period_us": "100000",
    f"{V2}/cpu,cpuacct/cpu.cfs_quota_us": "-1",
    f"{V2}/cpu,cpuacct/cpu.cfs_period_us": "100000",
    f"{V2}/cpuset/cpuset.effective_cpus": "1,3",
    f"{V2}/unified/cgroup.procs": "",
}


def test_version_one_nested(plant: Callable[..., Path]) -> None:
    root = Root(plant("plain", V1))
    (level,) = cgroup.memory_levels(root)
    assert (level.name, level.limit_bytes, level.available_bytes) == ("/jobs", 512 * MIB, 312 * MIB)
    assert cgroup.quota_cores(root) == 2.0
    assert cgroup.cpuset(root) == (1, 3)


def test_hybrid_takes_a_controller_from_the_tree_that_has_it(plant: Callable[..., Path]) -> None:
    mountinfo = (
        "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
        "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
    )
    changes = {
        "proc/self/mountinfo": mountinfo,
        "proc/self/cgroup": "4:memory:/a\n0::/b\n",
        f"{V2}/memory/a/memory.limit_in_bytes": str(64 * MIB),
        f"{V2}/unified/b/cpu.max": "50000 100000",
    }
    root = Root(plant("plain", changes))
    assert [level.version for level in cgroup.levels(root, "memory")] == [1, 1]
    assert cgroup.quota_cores(root) == 0.5


@pytest.mark.parametrize("path", ["/docker/abc", "/docker/abc/inner", "/../../docker/abc", "/elsewhere"])
def test_a_container_that_sees_its_group_as_the_root(plant: Callable[..., Path], path: str) -> None:
    changes = {
        "proc/self/cgroup": f"0::{path}\n",
        "proc/self/mountinfo": "30 23 0:26 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup rw\n",
        f"{V2}/memory.max": str(256 * MIB),
        f"{V2}/memory.current": str(56 * MIB),
    }
    levels = cgroup.memory_levels(Root(plant("plain", changes)))
    assert [level.available_bytes for level in levels] == [200 * MIB]


def test_without_cgroups_nothing_limits(tmp_path: Path) -> None:
    root = Root(tmp_path)
    assert cgroup.levels(root, "memory") == ()
    assert cgroup.memory_levels(root) == []
    assert cgroup.quota_cores(root) is None
    assert cgroup.cpuset(root) is None


@pytest.fixture(scope="module")
def nested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Kept for a whole module: only its garbage is written anew for each example."""
    root = tmp_path_factory.mktemp("nested")
    for path, content in NESTED.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(content)
    return root


@settings(max_examples=25, deadline=None)
@given(garbage=st.binary(max_size=80))
@pytest.mark.parametrize(
    "path",
    [
        *("memory.max", "memory.high", "memory.current", "memory.stat", "memory.swap.max", "cpu.max"),
        *("cpuset.cpus.effective", "/proc/self/cgroup", "/proc/self/mountinfo"),
    ],
)
def test_garbage_never_raises(nested: Path, path: str, garbage: bytes) -> None:
    target = nested / path[1:] if path.startswith("/") else nested / V2 / "user.slice" / path
    before = target.read_bytes() if target.exists() else b""
    target.write_bytes(garbage)
    root = Root(nested)
    levels = cgroup.memory_levels(root)
    assert all(level.available_bytes is None or level.available_bytes >= 0 for level in levels)
    cgroup.quota_cores(root), cgroup.cpuset(root), cgroup.swap_free_bytes(root, 1 << 30)
    target.write_bytes(before)
