"""The pulse: readings come in once a second, and a sensor that fails or hangs stops nothing else."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import TYPE_CHECKING, Any

import pytest

from inferd.daemon.domain.config import Memory
from inferd.daemon.domain.device import Device, DeviceKind, DeviceState, Hardware, HostLoad, HostMemory, Reading
from inferd.daemon.node import telemetry as telemetries
from inferd.daemon.node.machine import Machine
from inferd.daemon.node.telemetry import Telemetry
from inferd.tests.daemon.node.house import GIB, House
from inferd.tests.daemon.node.test_machine import CPU

if TYPE_CHECKING:
    from collections.abc import Callable

MEMORY = HostMemory(total_bytes=64 * GIB, available_bytes=48 * GIB)


class Sensors:
    """Says the same each time, unless it is told to fail or to hang."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, ...]] = []
        self.error: OSError | None = None
        self.readings = [Reading("cpu", utilization=0.5)]
        self.load = HostLoad(psi_cpu_some_avg10=5.0)
        self.free = threading.Event()
        self.free.set()

    def read(self, pids: tuple[int, ...]) -> tuple[HostMemory, list[Reading]]:
        self.asked.append(pids)
        assert self.free.wait(60)
        if self.error is not None:
            raise self.error
        return MEMORY, self.readings


def machine() -> Machine:
    cpu = Device("cpu", DeviceKind.CPU, "maker", "cpu", usable_by=("llama.cpp",))
    return Machine(Hardware(CPU, HostMemory(), (cpu,)), Memory(), HostMemory(total_bytes=64 * GIB))


def pulse(house: House, sensors: Any) -> Telemetry:
    return Telemetry(house.node, machine(), sensors, "1.2.3")


async def ticks(house: House, n: int, done: Callable[[], bool] = lambda: True) -> None:
    """Until `n` more ticks went by and the condition holds."""
    async with asyncio.timeout(60):
        while n > 0 or not done():
            await house.node.changes.wait()
            n -= 1


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetries, "PERIOD_S", 0.005)


async def test_readings_of_the_machine_and_of_our_workers_come_in(house: House) -> None:
    resident = await house.load()
    it = pulse(house, sensors := Sensors())
    running = asyncio.create_task(it.run())
    await ticks(house, 1, lambda: "alpha" in it.machine.worker_bytes)
    running.cancel()
    assert sensors.asked[0] == (resident.model.pid,)
    assert it.machine.memory == MEMORY
    assert it.machine.readings["cpu"].utilization == 0.5
    assert it.machine.load == sensors.load
    pool = house.node.ledger.pools["host"]
    assert pool.used == 16 * GIB
    assert 0 < pool.observed["alpha"] < GIB


async def test_a_sensor_that_fails_is_logged_and_read_again(house: House, caplog: pytest.LogCaptureFixture) -> None:
    it = pulse(house, sensors := Sensors())
    sensors.error = OSError("bus error")
    with caplog.at_level(logging.WARNING):
        running = asyncio.create_task(it.run())
        await ticks(house, 2, lambda: len(sensors.asked) > 1)
    assert "bus error" in caplog.text
    sensors.error = None
    await ticks(house, 1, lambda: it.machine.memory == MEMORY)
    running.cancel()


async def test_a_sensor_that_hangs_does_not_stop_the_clock(house: House) -> None:
    it = pulse(house, sensors := Sensors())
    sensors.free.clear()
    running = asyncio.create_task(it.run())
    await ticks(house, 5)
    assert len(sensors.asked) == 1
    sensors.free.set()
    await ticks(house, 1, lambda: len(sensors.asked) > 1)
    running.cancel()


async def test_snapshots_are_numbered(house: House) -> None:
    it = pulse(house, Sensors())
    first, second = it.snapshot(), it.snapshot()
    assert (first.sequence, second.sequence, first.version) == (1, 2, "1.2.3")
    assert 0 <= first.uptime_s <= second.uptime_s


async def test_a_device_that_is_lost_by_its_reading_is_given_up_and_one_that_fails_is_not(
    open_house: Callable[..., House],
) -> None:
    house = open_house(gpus=3)
    it = pulse(house, sensors := Sensors())
    states = (DeviceState.LOST, DeviceState.FAILED, DeviceState.RESET_REQUIRED)
    sensors.readings += [Reading(f"gpu{i}", state) for i, state in enumerate(states)]
    running = asyncio.create_task(it.run())
    await ticks(house, 1, lambda: list(house.node.fleet.gpus) == ["gpu1"])
    running.cancel()
