"""NUMA nodes: the cores of each, its memory, and what is left of that."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..domain.device import NumaNode
from .sysfs import parse_cpus, parse_int

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .sysfs import Root

_NODES = "sys/devices/system/node"


def read_nodes(root: Root) -> tuple[NumaNode, ...]:
    """None where the kernel knows of none."""
    nodes = []
    for name in root.names(_NODES):
        number = parse_int(name.removeprefix("node")) if name.startswith("node") else None
        if number is None or number < 0:
            continue
        cpus = parse_cpus(root.text(f"{_NODES}/{name}/cpulist")) or ()
        nodes.append(NumaNode(number, cpus, _bytes(root, number, "MemTotal:")))
    return tuple(nodes)


def free_bytes(root: Root, nodes: Iterable[NumaNode]) -> tuple[tuple[int, int], ...]:
    """(id, bytes) of each node that tells; pages of files count as used."""
    found = ((node.id, _bytes(root, node.id, "MemFree:")) for node in nodes)
    return tuple((number, n_bytes) for number, n_bytes in found if n_bytes is not None)


def _bytes(root: Root, node: int, key: str) -> int | None:
    for line in (root.text(f"{_NODES}/node{node}/meminfo") or "").splitlines():  # Node 0 MemTotal:  65797804 kB
        words = line.split()
        if key in words[:-1]:
            kib = parse_int(words[words.index(key) + 1])
            return None if kib is None or kib < 0 else kib * 1024
    return None
