"""The machine as monitors see it: what sensors say is passed on, and processes are told apart."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from inferd.daemon.domain.device import DeviceState, HostLoad, NumaNode, Reading
from inferd.daemon.domain.snapshot import NumaRow, ProcessRow
from inferd.daemon.node.view_machine import MAX_PROCESSES, condition, device_rows, host_row
from inferd.tests.daemon.node.house import GIB, House
from inferd.tests.daemon.node.test_machine import CPU, GPU, HOST, machine

if TYPE_CHECKING:
    from collections.abc import Callable

    from inferd.daemon.domain.snapshot import DeviceRow
    from inferd.daemon.node.machine import Machine


def row(house: House, it: Machine, device: str = "gpu0") -> DeviceRow:
    return next(row for row in device_rows(house.node, it) if row.id == device)


async def test_what_sensors_say_is_passed_on(house: House) -> None:
    it = machine(replace(GPU, numa_node=1, architecture="9.0", driver_version="570.1"))
    it.readings = {
        "gpu0": Reading(
            "gpu0",
            used_bytes=GIB,
            utilization=0.5,
            temperature_celsius=60.0,
            power_watts=300.0,
            power_limit_watts=700.0,
            energy_joules=1e6,
            clock_mhz=1500,
            clock_max_mhz=1980,
            memory_clock_mhz=2619,
            throttled_by=("power_cap",),
        )
    }
    seen = row(house, it)
    assert (seen.memory_total_bytes, seen.memory_used_bytes, seen.utilization) == (24 * GIB, GIB, 0.5)
    assert (seen.temperature_celsius, seen.power_watts, seen.power_limit_watts) == (60.0, 300.0, 700.0)
    assert (seen.energy_joules, seen.clock_mhz, seen.clock_max_mhz, seen.memory_clock_mhz) == (1e6, 1500, 1980, 2619)
    assert (seen.throttled_by, seen.numa_node, seen.architecture) == (("power_cap",), 1, "9.0")
    assert (seen.driver_version, seen.state, seen.detail) == ("570.1", "ok", "")


async def test_a_device_that_nobody_has_read_has_no_figures(house: House) -> None:
    seen = row(house, machine(GPU))
    assert (seen.memory_used_bytes, seen.utilization, seen.clock_mhz, seen.numa_node) == (None, None, None, None)
    assert (seen.processes, seen.throttled_by, seen.own_bytes, seen.architecture) == ((), (), 0, "")


@pytest.mark.parametrize(
    ("found", "read", "told"),
    [
        ((DeviceState.OK, None), None, (DeviceState.OK, None)),
        ((DeviceState.NO_DRIVER, "no module"), None, (DeviceState.NO_DRIVER, "no module")),
        ((DeviceState.NO_DRIVER, "no module"), (DeviceState.NO_DRIVER, None), (DeviceState.NO_DRIVER, "no module")),
        ((DeviceState.OK, None), (DeviceState.LOST, "gone"), (DeviceState.LOST, "gone")),
        ((DeviceState.FAILED, "error 9"), (DeviceState.LOST, None), (DeviceState.LOST, None)),
        ((DeviceState.FAILED, "error 9"), (DeviceState.OK, None), (DeviceState.OK, None)),
    ],
)
def test_the_last_reading_knows_best(
    found: tuple[DeviceState, str | None],
    read: tuple[DeviceState, str | None] | None,
    told: tuple[DeviceState, str | None],
) -> None:
    device = replace(GPU, state=found[0], detail=found[1])
    assert condition(device, None if read is None else Reading("gpu0", read[0], detail=read[1])) == told


async def test_our_processes_come_first_and_then_the_largest(open_house: Callable[..., House]) -> None:
    house = open_house(gpus=1)
    resident = await house.load()
    pid = resident.model.pid
    assert pid is not None
    it = machine(GPU)
    others = tuple((100_000 + i, i * GIB) for i in range(MAX_PROCESSES + 10))
    it.readings = {"gpu0": Reading("gpu0", used_bytes=GIB, processes=((99_999, None), *others, (pid, 5)))}
    house.node.ledger.observe("gpu0", 9 * GIB, {"alpha": 5, "stranger": 7})
    seen = row(house, it)
    assert seen.own_bytes == 5
    assert len(seen.processes) == MAX_PROCESSES
    assert seen.processes[0] == ProcessRow(pid, 5, "alpha")
    assert seen.processes[1] == ProcessRow(100_000 + MAX_PROCESSES + 9, (MAX_PROCESSES + 9) * GIB, "")
    sizes = [one.bytes or 0 for one in seen.processes[1:]]
    assert sizes == sorted(sizes, reverse=True)


async def test_processes_of_the_processor_are_our_workers_and_helpers(house: House) -> None:
    resident = await house.load()
    await house.node.tokenize("beta", prompt="hi")
    helper = house.deployment("beta").prompter
    it = machine()
    it.worker_bytes = {"alpha": 7 * GIB}
    house.node.ledger.observe("host", 9 * GIB, {"alpha": 3 * GIB, helper.owner: GIB})
    seen = row(house, it, "cpu")
    assert seen.own_bytes == 4 * GIB
    assert seen.processes == (
        ProcessRow(resident.model.pid or 0, 7 * GIB, "alpha"),
        ProcessRow(helper.pid or 0, None, "beta"),
    )
    assert os.getpid() not in [one.pid for one in seen.processes]


async def test_the_host(house: House) -> None:
    memory = replace(
        HOST, limit_bytes=32 * GIB, swap_total_bytes=GIB, swap_free_bytes=5, psi_some_avg10=12.0, psi_full_avg10=3.0
    )
    it = machine(memory=memory)
    nodes = (NumaNode(0, (0, 1, 2), 30 * GIB), NumaNode(1, (), None))
    it.hardware = replace(it.hardware, cpu=replace(CPU, numa_nodes=nodes))
    it.load, it.name = HostLoad(40.0, 0.0, ((0, 9 * GIB),)), "here"
    house.node.scheduler.on_pressure(12.0, 0.0)
    seen = host_row(house.node, it)
    assert (seen.name, seen.cores, seen.pressure) == ("here", 8, "no_prefetch")
    assert (seen.memory_total_bytes, seen.memory_limit_bytes) == (64 * GIB, 32 * GIB)
    assert (seen.swap_total_bytes, seen.swap_free_bytes) == (GIB, 5)
    assert (seen.psi_memory_some_avg10, seen.psi_memory_full_avg10) == (12.0, 3.0)
    assert (seen.psi_cpu_some_avg10, seen.psi_io_some_avg10) == (40.0, 0.0)
    assert seen.numa_nodes == (NumaRow(0, 3, 30 * GIB, 9 * GIB), NumaRow(1, 0, None, None))


async def test_a_host_that_tells_nothing(house: House) -> None:
    seen = host_row(house.node, machine(memory=replace(HOST, limit_bytes=None)))
    assert (seen.psi_cpu_some_avg10, seen.psi_io_some_avg10, seen.memory_limit_bytes) == (None, None, None)
    assert (seen.pressure, seen.numa_nodes, seen.swap_free_bytes) == ("normal", (), None)
