"""The machine in the Snapshot: its devices, who holds their memory, and the host."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..domain.device import DeviceKind, DeviceState, Reading
from ..domain.snapshot import DeviceRow, HostRow, NumaRow, ProcessRow
from .machine import HOST

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ..domain.device import Device
    from .machine import Machine
    from .node import Node

MAX_PROCESSES = 64  # of a device: ours first, then the largest


def device_rows(node: Node, machine: Machine) -> tuple[DeviceRow, ...]:
    models = _models_by_pid(node)
    return tuple(_device(node, machine, device, models) for device in machine.hardware.devices)


def condition(device: Device, reading: Reading | None) -> tuple[DeviceState, str | None]:
    """Whether it is well, and if not, why: the last reading knows better than what was found at the start."""
    if reading is None:
        return device.state, device.detail
    return reading.state, reading.detail or (device.detail if reading.state is device.state else None)


def _device(node: Node, machine: Machine, device: Device, models: Mapping[int, str]) -> DeviceRow:
    on_cpu = device.kind is DeviceKind.CPU
    read = machine.readings.get(device.id)
    state, detail = condition(device, read)
    pool = node.ledger.pools.get(HOST if on_cpu else device.id)
    seen = read or Reading(device.id)
    return DeviceRow(
        id=device.id,
        kind=device.kind.value,
        name=device.name,
        memory_total_bytes=device.memory_total_bytes,
        memory_used_bytes=seen.used_bytes,
        booked_bytes=node.ledger.booked_bytes(HOST if on_cpu else device.id),
        utilization=seen.utilization,
        temperature_celsius=seen.temperature_celsius,
        power_watts=seen.power_watts,
        state=state.value,
        detail="" if state is DeviceState.OK else detail or "",
        own_bytes=sum(pool.observed.values()) if pool else 0,
        processes=_processes(_workers(node, machine) if on_cpu else seen.processes, models),
        power_limit_watts=seen.power_limit_watts,
        energy_joules=seen.energy_joules,
        clock_mhz=seen.clock_mhz,
        clock_max_mhz=seen.clock_max_mhz,
        memory_clock_mhz=seen.memory_clock_mhz,
        throttled_by=seen.throttled_by,
        numa_node=device.numa_node,
        architecture=device.architecture or "",
        driver_version=device.driver_version or "",
    )


def _models_by_pid(node: Node) -> dict[int, str]:
    """Of our workers and prompt helpers."""
    found: dict[int, str] = {}
    for deployment in node.fleet.deployments.values():
        pids = [deployment.prompter.pid, *(resident.model.pid for resident in deployment.residents.values())]
        found |= {pid: deployment.name for pid in pids if pid is not None}
    return found


def _workers(node: Node, machine: Machine) -> list[tuple[int, int | None]]:
    """Our processes with their resident bytes; of others nothing is asked."""
    return [(pid, machine.worker_bytes.get(owner)) for owner, pid in node.fleet.pids().items()]


def _processes(seen: Iterable[tuple[int, int | None]], models: Mapping[int, str]) -> tuple[ProcessRow, ...]:
    rows = [ProcessRow(pid, n_bytes, models.get(pid, "")) for pid, n_bytes in seen]
    rows.sort(key=lambda row: (not row.model, -(row.bytes or 0), row.pid))
    return tuple(rows[:MAX_PROCESSES])


def host_row(node: Node, machine: Machine) -> HostRow:
    memory, load, cpu = machine.memory, machine.load, machine.hardware.cpu
    free = dict(load.numa_free_bytes)
    nodes = (NumaRow(it.id, len(it.cpus), it.memory_total_bytes, free.get(it.id)) for it in cpu.numa_nodes)
    return HostRow(
        memory_total_bytes=memory.total_bytes or 0,
        memory_available_bytes=memory.available_bytes or 0,
        booked_bytes=node.ledger.booked_bytes(HOST),
        margin_bytes=node.ledger.pools[HOST].margin,
        psi_memory_some_avg10=memory.psi_some_avg10,
        name=machine.name,
        psi_memory_full_avg10=memory.psi_full_avg10,
        psi_cpu_some_avg10=load.psi_cpu_some_avg10,
        psi_io_some_avg10=load.psi_io_some_avg10,
        memory_limit_bytes=memory.limit_bytes,
        swap_total_bytes=memory.swap_total_bytes,
        swap_free_bytes=memory.swap_free_bytes,
        pressure=node.scheduler.pressure.grade.name.lower(),
        cores=cpu.cores_allowed,
        numa_nodes=tuple(nodes),
    )
