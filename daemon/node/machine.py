"""The machine as the Node knows it: facts, the last readings, and what they mean for the ledger."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..domain.device import DeviceKind, DeviceState, HostLoad
from .plans import Gpu

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ..domain.config import Memory
    from ..domain.device import Device, Hardware, HostMemory, Reading
    from ..policy.ledger import Ledger

HOST = "host"
LLAMA, ONNX = "llama.cpp", "onnxruntime"


@dataclass(slots=True)
class Machine:
    hardware: Hardware
    limits: Memory
    memory: HostMemory
    load: HostLoad = field(default_factory=HostLoad)
    readings: Mapping[str, Reading] = field(default_factory=dict)  # device id -> the last one
    worker_bytes: Mapping[str, int] = field(default_factory=dict)  # place -> resident bytes of its worker
    fake: bool = False  # the fake engine runs on any device
    name: str = ""  # of the host

    def gpus(self) -> tuple[Device, ...]:
        """Devices beside the CPU that an engine can use."""
        return tuple(
            device
            for device in self.hardware.devices
            if device.kind is DeviceKind.GPU
            and device.state is DeviceState.OK
            and ({LLAMA, ONNX} & set(device.usable_by) or (self.fake and not device.mig))
        )

    def for_models(self, ledger: Ledger) -> dict[str, Gpu]:
        """The GPUs that have a pool, as plans are made for them."""
        pools = {device: ledger.pools[device.id] for device in self.gpus() if device.id in ledger.pools}
        return {
            device.id: Gpu(
                pool.usable_bytes,
                device.llama_name or "",
                llama=self.fake or LLAMA in device.usable_by,
                onnx_provider=device.onnx_provider,
            )
            for device, pool in pools.items()
        }

    def needs_probe(self) -> bool:
        """Something beside the CPU is there, so it matters what the engines make of it."""
        return any(device.kind is not DeviceKind.CPU for device in self.hardware.devices)

    def open_pools(self, ledger: Ledger) -> None:
        """Host RAM, and each usable GPU that is not a pool yet."""
        if HOST not in ledger.pools:
            limits = self.limits
            ledger.add_pool(HOST, self._host_total(), limits.host_margin_bytes, limits.host_budget_bytes)
        for device in self.gpus():
            if device.id not in ledger.pools and device.memory_total_bytes is not None:
                capacity = device.memory_total_bytes - (device.memory_reserved_bytes or 0)
                limits = self.limits
                ledger.add_pool(device.id, capacity, limits.device_margin_bytes, limits.device_budget_bytes)

    def limit(self, limits: Memory, ledger: Ledger) -> None:
        """Other margins and budgets; what is loaded stays."""
        self.limits = limits
        for name, pool in ledger.pools.items():
            host = name == HOST
            pool.margin = limits.host_margin_bytes if host else limits.device_margin_bytes
            pool.budget = limits.host_budget_bytes if host else limits.device_budget_bytes

    def on_reading(
        self,
        memory: HostMemory,
        readings: Iterable[Reading],
        workers: Mapping[str, tuple[int, tuple[int, int] | None]],
        ledger: Ledger,
    ) -> None:
        """Take in one round of readings. `workers`: owner -> (pid, (resident, private) bytes or None)."""
        self.memory = memory
        self.readings = {reading.device_id: reading for reading in readings}
        self.worker_bytes = {owner: size[0] for owner, (_, size) in workers.items() if size is not None}
        if memory.available_bytes is not None:
            # Mapped files count as available, so only private pages may be set against what is used.
            private = {owner: size[1] for owner, (_, size) in workers.items() if size is not None}
            used_bytes = max(0, self._host_total() - memory.available_bytes)
            ledger.observe(HOST, used_bytes, private)
        owners = {pid: owner for owner, (pid, _) in workers.items()}
        for name, reading in self.readings.items():
            if name in ledger.pools and reading.used_bytes is not None:
                ours = {owners[pid]: n or 0 for pid, n in reading.processes if pid in owners}
                ledger.observe(name, reading.used_bytes, ours)

    def _host_total(self) -> int:
        limits = (self.memory.total_bytes, self.memory.limit_bytes)
        return min((n for n in limits if n is not None), default=0)
