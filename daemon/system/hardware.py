"""The machine: what it has, found once; what its sensors say, asked again each second."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from ...backends import cage
from ..domain.device import Device, DeviceKind, DeviceState, Hardware, HostLoad, HostMemory, Reading, Sandbox
from . import drm, numa, pci, probe
from .cpu import cpu_times, read_cpu
from .energy import PackageEnergy
from .memory import read_memory
from .nvml import Nvml, state_of
from .psi import read_pressure
from .sysfs import Root
from .workgroups import missing

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable

    from ..domain.device import Backends, CpuFacts

REOPEN_AFTER_S = 30.0  # how long a driver library that failed is left alone


def detect(root: str | os.PathLike[str] | None = None, *, vendor_libraries: bool = True) -> Hardware:
    """Everything but the engines; those load libraries and have their own `probe_backends`."""
    tree = Root(root)
    cpu, memory = read_cpu(tree), read_memory(tree)
    found, notes = pci.scan(tree)
    if vendor_libraries and pci.nvidia_hinted(tree):
        found = _with_nvml(tree, found, notes)
    return Hardware(cpu, memory, (cpu_device(cpu, memory), *numbered(found)), None, tuple(notes))


def survey(root: str | os.PathLike[str] | None = None) -> Hardware:
    """`detect` and `probe_backends` together, for whoever has the time to wait."""
    found = with_backends(detect(root), probe.probe_backends())
    held = cage.abilities()
    return replace(found, sandbox=Sandbox(held.landlock, held.seccomp, missing(Root(root))))


def cpu_device(cpu: CpuFacts, memory: HostMemory) -> Device:
    """The processor as a place for models: as large as RAM, or as the cgroup allows."""
    limits = [size for size in (memory.total_bytes, memory.limit_bytes) if size is not None]
    total = min(limits, default=None)
    return Device("cpu", DeviceKind.CPU, cpu.vendor, cpu.model, memory_total_bytes=total)


def numbered(devices: Iterable[Device]) -> tuple[Device, ...]:
    """Ids by bus address, whoever found the device; a GPU keeps the id when its neighbour fails."""
    ordered = sorted(devices, key=lambda device: (device.pci is None, device.pci or "", device.id))
    counts: Counter[DeviceKind] = Counter()
    renamed: dict[str, str] = {}  # of GPUs that are divided, for their instances
    result = []
    for device in ordered:
        if device.parent is not None:
            parent = renamed.get(device.parent, device.parent)
            part = device.id.rpartition(".")[2]
            result.append(replace(device, id=f"{parent}.{part}", parent=parent))
            continue
        name = f"{device.kind.value}{counts[device.kind]}"
        counts[device.kind] += 1
        renamed[device.id] = name
        result.append(replace(device, id=name))
    return tuple(result)


def with_backends(hardware: Hardware, backends: Backends) -> Hardware:
    """Joins what the engines see with what the kernel sees, by PCI address."""
    devices = probe.join(hardware.devices, backends)
    return replace(hardware, devices=devices, backends=backends)


def _with_nvml(root: Root, found: list[Device], notes: list[str]) -> list[Device]:
    library = Nvml()
    try:
        if library.error is not None:
            notes.append(f"NVML: {state_of(library.error)[1]}")
        described = library.describe([device for device in found if device.vendor == "nvidia"])
    finally:
        library.close()
    # Where the bus is hidden, the nodes in /dev still tell whether we may reach the card.
    reachable = [device if device.nodes else _with_nodes(root, device) for device in described]
    return [*reachable, *(device for device in found if device.vendor != "nvidia")]


def _with_nodes(root: Root, device: Device) -> Device:
    return replace(device, nodes=pci.nvidia_nodes(root, None))


class Sensors:
    """Keeps what makes the next reading cheap: the open driver library, the last counters."""

    def __init__(self, hardware: Hardware, root: str | os.PathLike[str] | None = None) -> None:
        self._root = Root(root)
        self._devices = hardware.devices
        self._nodes = hardware.cpu.numa_nodes
        self._nvml: Nvml | None = None
        self._opened_s = 0.0
        self._times: dict[str, tuple[int, int]] = {}  # (busy, total), in any unit
        self._energy = PackageEnergy(self._root)
        self._energy_at: tuple[float, float] | None = None  # (joules, seconds)
        self.memory: HostMemory = hardware.memory
        self.load = HostLoad()  # as read with the last readings

    def read(self, pids: Iterable[int] = (), now_s: float | None = None) -> tuple[HostMemory, tuple[Reading, ...]]:
        """Host memory and one reading per device. `pids` are our workers, looked up on AMD and Intel."""
        now_s = time.monotonic() if now_s is None else now_s
        self.memory, self.load = read_memory(self._root), self._read_load()
        processes = drm.vram_by_process(self._root, pids) if self._has_drm() else {}
        readings = [self._read(device, processes.get(device.pci or "", {}), now_s) for device in self._devices]
        return self.memory, tuple(readings)

    def close(self) -> None:
        if self._nvml is not None:
            self._nvml.close()
            self._nvml = None

    def _read_load(self) -> HostLoad:
        (cpu, _), (io, _) = read_pressure(self._root, "cpu"), read_pressure(self._root, "io")
        return HostLoad(cpu, io, numa.free_bytes(self._root, self._nodes))

    def _has_drm(self) -> bool:
        return any(device.kind is not DeviceKind.CPU and device.vendor != "nvidia" for device in self._devices)

    def _read(self, device: Device, processes: dict[int, int], now_s: float) -> Reading:
        if device.kind is DeviceKind.CPU:
            return self._cpu(device, now_s)
        if device.vendor == "nvidia":
            return self._nvidia(device, now_s)
        reading = drm.read(self._root, device, processes)
        if device.kind is DeviceKind.NPU:
            busy_us = drm.npu_busy_us(self._root, device)
            times = None if busy_us is None else (busy_us, int(now_s * 1e6))
            return replace(reading, utilization=self._share(device.id, times))
        return reading

    def _cpu(self, device: Device, now_s: float) -> Reading:
        total, free = device.memory_total_bytes, self.memory.available_bytes
        joules, before = self._energy.joules(), self._energy_at
        self._energy_at = None if joules is None else (joules, now_s)
        watts = None
        if joules is not None and before is not None and now_s > before[1]:
            watts = (joules - before[0]) / (now_s - before[1])
        return Reading(
            device.id,
            used_bytes=max(0, total - free) if total is not None and free is not None else None,
            free_bytes=free,
            total_bytes=total,
            utilization=self._share(device.id, cpu_times(self._root)),
            power_watts=watts,
            energy_joules=joules,
        )

    def _share(self, device_id: str, times: tuple[int, int] | None) -> float | None:
        """The busy part of the time since the last reading."""
        before = self._times.get(device_id)
        if times is None:
            return None
        self._times[device_id] = times
        if before is None or times[1] <= before[1]:
            return None
        return min(1.0, max(0.0, (times[0] - before[0]) / (times[1] - before[1])))

    def _nvidia(self, device: Device, now_s: float) -> Reading:
        if device.state is DeviceState.NO_DRIVER and device.driver != "nvidia":
            return Reading(device.id, device.state, total_bytes=device.memory_total_bytes)
        return self._library(now_s).read(device)

    def _library(self, now_s: float) -> Nvml:
        if self._nvml is None:
            self._nvml, self._opened_s = Nvml(), now_s
        elif self._nvml.error is not None and now_s - self._opened_s >= REOPEN_AFTER_S:
            self._nvml.reopen()
            self._opened_s = now_s
        return self._nvml
