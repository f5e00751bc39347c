"""Sensors of AMD and Intel devices, and whose memory it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from inferd.daemon.system import drm, pci
from inferd.daemon.system.sysfs import Root, parse_table

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from inferd.daemon.domain.device import Reading

GIB = 1 << 30


def read_all(root: Root, processes: dict[int, int] | None = None) -> list[Reading]:
    return [drm.read(root, device, processes) for device in pci.scan(root)[0]]


def test_an_amd_card(plant: Callable[..., Path]) -> None:
    (reading,) = read_all(Root(plant("amd_card")))
    assert (reading.total_bytes, reading.used_bytes, reading.free_bytes) == (24 * GIB, 2 * GIB, 22 * GIB)
    assert (reading.utilization, reading.temperature_celsius) == (0.42, 51.0)
    assert (reading.power_watts, reading.power_limit_watts) == (87.0, 355.0)
    assert (reading.clock_mhz, reading.memory_clock_mhz) == (2304, 1249)


def test_sensors_that_are_missing_are_none(plant: Callable[..., Path]) -> None:
    folder = "sys/devices/pci0000:00/0000:03:00.0"
    changes = {
        f"{folder}/hwmon/hwmon4/power1_average": None,
        f"{folder}/hwmon/hwmon4/power1_input": "90000000",
        f"{folder}/gpu_busy_percent": "250",
        f"{folder}/mem_info_vram_used": "lots",
    }
    (reading,) = read_all(Root(plant("amd_card", changes)))
    assert (reading.power_watts, reading.utilization) == (90.0, None)
    assert (reading.used_bytes, reading.free_bytes) == (None, None)


def test_an_arc_card_tells_only_what_processes_tell(plant: Callable[..., Path]) -> None:
    root = Root(plant("arc"))
    (silent,) = read_all(root)
    assert (silent.used_bytes, silent.clock_mhz, silent.clock_max_mhz) == (None, 2400, 2850)
    assert silent.energy_joules == 9.0
    (told,) = read_all(root, {7: GIB, 8: GIB})
    assert (told.used_bytes, told.processes) == (2 * GIB, ((7, GIB), (8, GIB)))


def test_a_laptop(plant: Callable[..., Path]) -> None:
    igpu, npu = read_all(Root(plant("meteor_lake")))
    assert (igpu.clock_mhz, igpu.clock_max_mhz, igpu.used_bytes) == (800, 2250, None)
    assert (npu.used_bytes, npu.clock_mhz) == (64 << 20, 1400)


def fdinfo(client: int, **lines: str) -> str:
    entries = "".join(f"{key.replace('_', '-')}:\t{value}\n" for key, value in lines.items())
    return f"pos:\t0\ndrm-pdev:\t0000:03:00.0\ndrm-client-id:\t{client}\n{entries}"


def test_memory_by_process_counts_a_client_once(plant: Callable[..., Path]) -> None:
    changes = {
        "proc/11/fdinfo/3": fdinfo(1, drm_memory_vram="1024 KiB", drm_total_vram="1024 KiB", drm_memory_gtt="9 MiB"),
        "proc/11/fdinfo/4": fdinfo(1, drm_memory_vram="1024 KiB"),
        "proc/11/fdinfo/5": fdinfo(2, drm_total_local0="2 MiB"),
        "proc/12/fdinfo/0": fdinfo(3, drm_total_vram0="4096"),
        "proc/12/fdinfo/1": "pos:\t0\nflags:\t02\n",
        "proc/13/fdinfo/1": "drm-pdev:\tnowhere\n",
    }
    found = drm.vram_by_process(Root(plant("amd_card", changes)), [11, 12, 13, 99])
    assert found == {"0000:03:00.0": {11: 3 << 20, 12: 4096}}


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(["drm-memory-vram", "drm-total-local0", "drm-total-vram0"]), st.text()))
def test_regions_never_raise(table: dict[str, str]) -> None:
    assert drm.parse_regions(table) >= 0


@settings(deadline=None)
@given(st.text())
def test_fdinfo_never_raises(text: str) -> None:
    assert drm.parse_regions(parse_table(text, ":")) >= 0
