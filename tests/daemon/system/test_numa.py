"""NUMA nodes, and what is left of their memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from inferd.daemon.domain.device import NumaNode
from inferd.daemon.system.numa import free_bytes, read_nodes
from inferd.daemon.system.sysfs import Root

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NODE = "sys/devices/system/node"


def test_nodes_with_their_cores_and_memory(plant: Callable[..., Path]) -> None:
    files: dict[str, str | None] = {
        f"{NODE}/node1/cpulist": "",  # memory without cores
        f"{NODE}/node1/meminfo": "Node 1 MemTotal: 2048 kB\nNode 1 MemFree: 512 kB\nNode 1 MemUsed: 1536 kB\n",
        f"{NODE}/has_cpu": "0\n",
        f"{NODE}/node-1/cpulist": "0\n",
    }
    root = Root(plant("plain", files))
    nodes = read_nodes(root)
    assert nodes == (NumaNode(0, tuple(range(8)), 32 << 30), NumaNode(1, (), 2 << 20))
    assert free_bytes(root, nodes) == ((1, 512 << 10),)  # the first does not tell


def test_a_kernel_that_knows_of_none(tmp_path: Path) -> None:
    assert read_nodes(Root(tmp_path)) == ()
    assert free_bytes(Root(tmp_path), [NumaNode(0, ())]) == ()


@pytest.mark.parametrize("text", ["", "Node 0 MemFree:", "Node 0 MemFree: many kB", "Node 0 MemFree: -5 kB", "\x00"])
def test_garbage_is_no_figure(plant: Callable[..., Path], text: str) -> None:
    root = Root(plant("plain", {f"{NODE}/node0/meminfo": text}))
    assert free_bytes(root, read_nodes(root)) == ()
