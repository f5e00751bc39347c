"""How much tasks stand still, by the machine and by our own group."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferd.daemon.system.psi import Want, parse_pressure, read_pressure
from inferd.daemon.system.sysfs import Root

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BOX = {"proc/self/cgroup": "0::/box\n"}


def lines(some: float, full: float) -> str:
    return f"some avg10={some:.2f} avg60=0.00\nfull avg10={full:.2f} avg60=0.00\n"


@pytest.mark.parametrize("want", ["memory", "cpu", "io"])
def test_the_machines_pressure(plant: Callable[..., Path], want: Want) -> None:
    root = Root(plant("plain", {f"proc/pressure/{want}": lines(31.5, 2.0)}))
    assert read_pressure(root, want) == (31.5, 2.0)


@pytest.mark.parametrize(("ours", "told"), [((40.0, 1.0), (40.0, 2.0)), ((1.0, 9.0), (31.5, 9.0))])
def test_of_the_machines_and_our_groups_the_heavier_counts(
    plant: Callable[..., Path], ours: tuple[float, float], told: tuple[float, float]
) -> None:
    files = {**BOX, "proc/pressure/io": lines(31.5, 2.0), "sys/fs/cgroup/box/io.pressure": lines(*ours)}
    assert read_pressure(Root(plant("plain", files)), "io") == told


def test_our_groups_counts_where_the_machine_tells_none(plant: Callable[..., Path]) -> None:
    files = {**BOX, "sys/fs/cgroup/box/cpu.pressure": "some avg10=7.00 avg60=0.00\n"}
    assert read_pressure(Root(plant("plain", files)), "cpu") == (7.0, None)


def test_a_kernel_without_it_tells_nothing(tmp_path: Path) -> None:
    assert read_pressure(Root(tmp_path), "cpu") == (None, None)


@settings(deadline=None)
@given(st.text())
def test_pressure_never_raises(text: str) -> None:
    parse_pressure(text)
