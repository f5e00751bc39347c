"""Counters that wrap, that are closed, and that must not be counted twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inferd.daemon.system.energy import PackageEnergy
from inferd.daemon.system.sysfs import Root

if TYPE_CHECKING:
    from pathlib import Path


def zone(root: Path, name: str, kind: str, energy_uj: str) -> None:
    folder = root / "sys/class/powercap" / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "name").write_text(kind)
    (folder / "energy_uj").write_text(energy_uj)
    (folder / "max_energy_range_uj").write_text("1000000000")


def test_packages_add_up_and_sub_zones_do_not(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", "100")
    zone(tmp_path, "intel-rapl:1", "package-1", "200")
    zone(tmp_path, "intel-rapl:0:0", "core", "50")
    zone(tmp_path, "intel-rapl:2", "psys", "900")
    energy = PackageEnergy(Root(tmp_path))
    assert energy.joules() == 0
    for name in ("intel-rapl:0", "intel-rapl:1", "intel-rapl:0:0"):
        zone(tmp_path, name, "package", "3000200")
    zone(tmp_path, "intel-rapl:2", "psys", "99000000")
    assert energy.joules() == 6.0001


def test_a_counter_that_wraps_goes_on(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", "999000000")
    energy = PackageEnergy(Root(tmp_path))
    energy.joules()
    zone(tmp_path, "intel-rapl:0", "package-0", "1000000")
    assert energy.joules() == 2.0


def test_no_counter_is_none(tmp_path: Path) -> None:
    assert PackageEnergy(Root(tmp_path)).joules() is None
    zone(tmp_path, "intel-rapl:0", "package-0", "not a number")
    assert PackageEnergy(Root(tmp_path)).joules() is None
