"""AMD and Intel devices through sysfs: what they are, and what their sensors say."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from ..domain.device import Device, DeviceKind, Reading
from .sysfs import parse_int, parse_pci, parse_table

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .sysfs import Root

_BUS = "sys/bus/pci/devices"
_KFD = "sys/class/kfd/kfd/topology/nodes"
_VRAM_REGION = re.compile(r"drm-(?:memory|total)-(?:vram|local)\d*", re.ASCII)
_UNITS = {"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


def is_integrated(root: Root, folder: str, vendor: str, pci: str) -> bool:
    """Whether a GPU lives in the processor and shares its memory."""
    if vendor == "intel":
        return pci.startswith("0000:00:")  # cards sit behind a bridge, the processor's own does not
    if vendor != "amd":
        return False
    metrics = root.raw(f"{folder}/gpu_metrics", 4)
    if metrics is not None and len(metrics) == 4:
        return metrics[2] in (2, 3)  # format 1 is spoken by cards, 2 and 3 by APUs
    vram = root.integer(f"{folder}/mem_info_vram_total")
    gtt = root.integer(f"{folder}/mem_info_gtt_total")
    return vram is not None and gtt is not None and vram < gtt and vram <= 4 << 30


def describe(root: Root, device: Device, folder: str, cards: Iterable[str], renders: Iterable[str]) -> Device:
    """Memory and architecture, as far as the kernel tells them."""
    if device.driver == "amdgpu":
        unique = root.text(f"{folder}/unique_id", 64)
        return replace(
            device,
            uuid=f"GPU-{unique}" if unique and re.fullmatch(r"[0-9a-f]{8,16}", unique, re.ASCII) else None,
            memory_total_bytes=root.integer(f"{folder}/mem_info_vram_total"),
            shared_memory_bytes=root.integer(f"{folder}/mem_info_gtt_total"),
            architecture=_gfx(root, renders),
        )
    if device.kind is DeviceKind.GPU:
        return replace(device, memory_total_bytes=_intel_vram_bytes(root, folder, cards))
    return device


def read(root: Root, device: Device, processes: Mapping[int, int] | None = None) -> Reading:
    """One reading. `processes` is what fdinfo told about this device, by pid."""
    folder = f"{_BUS}/{device.pci}"
    seen = tuple(sorted((processes or {}).items()))
    hwmon = next((f"{folder}/hwmon/{name}" for name in root.names(f"{folder}/hwmon")), None)
    reading = Reading(device.id, device.state, total_bytes=device.memory_total_bytes, processes=seen)
    if hwmon is not None:
        reading = _with_hwmon(root, reading, hwmon)
    if device.driver == "amdgpu":
        return _amd(root, reading, folder)
    if device.kind is DeviceKind.NPU:
        return _npu(root, reading, folder)
    return _intel(root, reading, folder, seen)


def npu_busy_us(root: Root, device: Device) -> int | None:
    return root.integer(f"{_BUS}/{device.pci}/npu_busy_time_us")


def vram_by_process(root: Root, pids: Iterable[int]) -> dict[str, dict[int, int]]:
    """Device memory of the given processes, {pci: {pid: bytes}}, from the DRM lines of fdinfo.

    Only processes of our own user can be read: enough to tell ours from others'."""
    found: dict[str, dict[int, int]] = {}
    clients: set[tuple[str, str]] = set()
    for pid in pids:
        for descriptor in root.names(f"proc/{pid}/fdinfo"):
            text = root.text(f"proc/{pid}/fdinfo/{descriptor}", 16384)
            if text is None or "drm-pdev" not in text:
                continue
            table = parse_table(text, ":")
            pci, client = parse_pci(table.get("drm-pdev")), table.get("drm-client-id", descriptor)
            # One client may be open through several descriptors; its memory counts once.
            if pci is None or (pci, client) in clients:
                continue
            clients.add((pci, client))
            per_pid = found.setdefault(pci, {})
            per_pid[pid] = per_pid.get(pid, 0) + parse_regions(table)
    return found


def parse_regions(table: Mapping[str, str]) -> int:
    """Device memory of one DRM client; `drm-total-` and the older `drm-memory-` name the same bytes."""
    regions: dict[str, int] = {}
    for key, value in table.items():
        if _VRAM_REGION.fullmatch(key):
            number, _, unit = value.partition(" ")
            size = parse_int(number)
            if size is not None and size >= 0 and unit.strip() in _UNITS:
                region = key.rsplit("-", 1)[1]
                regions[region] = max(regions.get(region, 0), size * _UNITS[unit.strip()])
    return sum(regions.values())


def _amd(root: Root, reading: Reading, folder: str) -> Reading:
    total = root.integer(f"{folder}/mem_info_vram_total") or reading.total_bytes
    used = root.integer(f"{folder}/mem_info_vram_used")
    return replace(
        reading,
        total_bytes=total,
        used_bytes=used,
        free_bytes=_difference(total, used),
        utilization=_percent(root.integer(f"{folder}/gpu_busy_percent")),
    )


def _intel(root: Root, reading: Reading, folder: str, seen: tuple[tuple[int, int], ...]) -> Reading:
    # The kernel tells only each client's share; without one, used stays unknown rather than 0.
    used = sum(size for _, size in seen) if seen and reading.total_bytes else None
    clock = root.integer(f"{folder}/tile0/gt0/freq0/act_freq")
    limit = root.integer(f"{folder}/tile0/gt0/freq0/max_freq")
    for card in root.names(f"{folder}/drm") if clock is None else ():
        clock = clock or root.integer(f"{folder}/drm/{card}/gt/gt0/rps_act_freq_mhz")
        limit = limit or root.integer(f"{folder}/drm/{card}/gt/gt0/rps_max_freq_mhz")
    return replace(reading, used_bytes=used, clock_mhz=clock, clock_max_mhz=limit)


def _npu(root: Root, reading: Reading, folder: str) -> Reading:
    return replace(
        reading,
        used_bytes=root.integer(f"{folder}/npu_memory_utilization"),
        clock_mhz=root.integer(f"{folder}/npu_current_frequency_mhz"),
        clock_max_mhz=root.integer(f"{folder}/npu_max_frequency_mhz"),
    )


def _with_hwmon(root: Root, reading: Reading, hwmon: str) -> Reading:
    power = root.integer(f"{hwmon}/power1_average")
    clock = root.integer(f"{hwmon}/freq1_input")
    memory_clock = root.integer(f"{hwmon}/freq2_input")
    return replace(
        reading,
        temperature_celsius=_scaled(root.integer(f"{hwmon}/temp1_input"), 1e3),
        power_watts=_scaled(power if power is not None else root.integer(f"{hwmon}/power1_input"), 1e6),
        power_limit_watts=_scaled(_first(root, hwmon, "power1_cap", "power1_max"), 1e6),
        energy_joules=_scaled(root.integer(f"{hwmon}/energy1_input"), 1e6),
        clock_mhz=None if clock is None else clock // 1_000_000,
        memory_clock_mhz=None if memory_clock is None else memory_clock // 1_000_000,
    )


def _first(root: Root, folder: str, *names: str) -> int | None:
    return next((value for name in names if (value := root.integer(f"{folder}/{name}")) is not None), None)


def _gfx(root: Root, renders: Iterable[str]) -> str | None:
    minors = {name.removeprefix("renderD") for name in renders}
    for node in root.names(_KFD):
        table = parse_table(root.text(f"{_KFD}/{node}/properties"))
        version = parse_int(table.get("gfx_target_version"))
        if version and version > 0 and table.get("drm_render_minor") in minors:
            return f"gfx{version // 10000}{version // 100 % 100:x}{version % 100:x}"
    return None


def _intel_vram_bytes(root: Root, folder: str, cards: Iterable[str]) -> int | None:
    paths = [f"{folder}/tile0/physical_vram_size_bytes"]
    paths += [f"{folder}/drm/{card}/lmem_total_bytes" for card in cards]
    return next((size for path in paths if (size := root.integer(path)) is not None), None)


def _difference(total: int | None, used: int | None) -> int | None:
    return None if total is None or used is None else max(0, total - used)


def _percent(value: int | None) -> float | None:
    return value / 100 if value is not None and 0 <= value <= 100 else None


def _scaled(value: int | None, unit: float) -> float | None:
    return None if value is None else value / unit
