"""The daemon's pulse: once a second read the sensors, tell the Node the time, and be able to show it all."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..domain.device import DeviceState
from ..system.processes import memory_bytes
from . import view

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..domain.snapshot import Snapshot
    from ..system.hardware import Sensors
    from .machine import Machine
    from .node import Node

log = logging.getLogger(__name__)

PERIOD_S = 1.0
GONE = (DeviceState.LOST, DeviceState.RESET_REQUIRED)  # not coming back without an operator


@dataclass(slots=True)
class Telemetry:
    node: Node
    machine: Machine
    sensors: Sensors
    version: str
    started_s: float = field(default_factory=time.monotonic)
    on_beat: Callable[[float], None] = lambda _: None  # called with the time when the scheduler has had its turn
    _sequence: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    async def run(self) -> None:
        """For ever. Sensors are read in a thread of their own, so a driver that hangs stops only its own figures."""
        reading: asyncio.Task[None] | None = None
        while True:
            if reading is None or reading.done():
                reading = asyncio.create_task(self._read(), name="sensors")
            now_s = time.monotonic()
            self.node.on_pressure(self.machine.memory.psi_some_avg10, now_s)
            self.node.tick(now_s)
            self.on_beat(now_s)
            await asyncio.sleep(PERIOD_S)

    def snapshot(self) -> Snapshot:
        """The state at this moment."""
        now_s = time.monotonic()
        uptime_s = now_s - self.started_s
        sequence = next(self._sequence)
        return view.snapshot(
            self.node, self.machine, sequence=sequence, version=self.version, uptime_s=uptime_s, now_s=now_s
        )

    def _memory_bytes(self, owner: str, pid: int) -> tuple[int, int] | None:
        """(resident, of that private or held for it): files with computed prompts are no process's own."""
        size, held_bytes = memory_bytes(pid), self.node.fleet.tiers.n_bytes(owner)
        if size is None:  # it is dead, and what it left is on its way to the disk
            return (0, held_bytes) if held_bytes else None
        return size[0], size[1] + held_bytes

    async def _read(self) -> None:
        pids = self.node.fleet.pids()
        try:
            memory, readings = await asyncio.to_thread(self.sensors.read, tuple(pids.values()))
        except OSError as error:
            return log.warning("sensors: %s", error)
        self.machine.load = self.sensors.load
        self.node.fleet.lose(reading.device_id for reading in readings if reading.state in GONE)
        if self.node.fleet.pids() != pids:
            return None  # of processes that came or went meanwhile: who holds which bytes is not known
        workers = {owner: (pid, self._memory_bytes(owner, pid)) for owner, pid in pids.items()}
        self.machine.on_reading(memory, readings, workers, self.node.ledger)
        return self.node.fleet.observe(self.node.ledger.observed())
