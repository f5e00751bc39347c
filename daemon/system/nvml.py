"""NVIDIA's management library: the one room of pynvml, where its errors become data."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from typing import Any

from ..domain.device import Device, DeviceKind, DeviceState, Reading
from .sysfs import parse_pci

NOT_INITIALISED, NOT_SUPPORTED, NO_PERMISSION, NOT_FOUND, DRIVER_NOT_LOADED, LIBRARY_MISSING = 1, 3, 4, 6, 9, 12
FUNCTION_MISSING, GPU_LOST, RESET_REQUIRED, VERSION_MISMATCH, GPU_NOT_FOUND, UNKNOWN = 13, 15, 16, 18, 28, 999
CLOSE_LIMIT_S = 1.0

STATES = {
    NOT_INITIALISED: (DeviceState.FAILED, "the driver library is not initialised"),
    NO_PERMISSION: (DeviceState.FAILED, "the driver library refuses this user"),
    NOT_FOUND: (DeviceState.LOST, "the GPU is not there any more"),
    GPU_NOT_FOUND: (DeviceState.LOST, "the GPU is not there any more"),
    DRIVER_NOT_LOADED: (DeviceState.NO_DRIVER, "the kernel module nvidia is not loaded"),
    LIBRARY_MISSING: (DeviceState.NO_LIBRARY, "present, driver library missing"),
    GPU_LOST: (DeviceState.LOST, "the GPU fell off the bus"),
    RESET_REQUIRED: (DeviceState.RESET_REQUIRED, "the GPU must be reset"),
    VERSION_MISMATCH: (
        DeviceState.MISMATCH,
        "the driver library and the loaded kernel module differ in version",
    ),
}
_THROTTLE = {
    0x04: "power_cap",
    0x08: "hardware_slowdown",
    0x20: "thermal_software",
    0x40: "thermal_hardware",
    0x80: "power_brake",
}
# Invalid argument, not supported, not found, no such function, other structure version.
_UNKNOWN_CALL = (2, NOT_SUPPORTED, NOT_FOUND, FUNCTION_MISSING, 25)
# Only these condemn a device; a card that lacks one sensor is a good card.
_CONDEMNING = (
    NOT_INITIALISED,
    DRIVER_NOT_LOADED,
    LIBRARY_MISSING,
    GPU_LOST,
    RESET_REQUIRED,
    VERSION_MISMATCH,
)
_RECOVERY_ACTION = 230
_RESETTING_ACTIONS = (1, 2, 4, 6, 7)  # all but "none" and those that concern links between GPUs
_MEMORY_V2 = 0x02000028  # its `reserved` is a part of v1's `used`
_GRAPHICS, _MEMORY, _CORE_TEMPERATURE = 0, 2, 0


@dataclass(frozen=True, slots=True)
class Answer:
    """A value, or the library's return code in its place."""

    value: Any = None
    error: int | None = None


def query(name: str, *arguments: Any) -> Answer:
    """Calls one NVML function. Nothing raises: not a lost GPU, not an old driver, not a missing library."""
    try:
        import pynvml
    except ImportError:
        return Answer(error=LIBRARY_MISSING)
    function = getattr(pynvml, name, None)
    if function is None:
        return Answer(error=FUNCTION_MISSING)
    try:
        return Answer(function(*arguments))
    except pynvml.NVMLError as error:
        return Answer(error=int(getattr(error, "value", UNKNOWN)))
    except Exception:  # a garbled name that does not decode, a binding of another version
        return Answer(error=UNKNOWN)


def first(*calls: tuple[Any, ...]) -> Answer:
    """The first call that this driver knows; a GPU that is lost stays lost however it is asked."""
    answer = Answer(error=FUNCTION_MISSING)
    for name, *arguments in calls:
        answer = query(name, *arguments)
        if answer.error not in _UNKNOWN_CALL:
            break
    return answer


def state_of(error: int | None) -> tuple[DeviceState, str | None]:
    if error is None:
        return DeviceState.OK, None
    return STATES.get(error, (DeviceState.FAILED, f"the driver library answered with error {error}"))


class Nvml:
    """One connection to the library. Cheap to keep, costly to open: a sleeping GPU wakes for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._handles: dict[str, Any] = {}
        self.error = query("nvmlInit").error

    def close(self) -> None:
        # A driver that hangs holds the lock for good; leaving must not wait for it.
        if not self._lock.acquire(timeout=CLOSE_LIMIT_S):
            return
        try:
            if self.error is None:
                query("nvmlShutdown")
                self.error = NOT_INITIALISED
            self._handles.clear()
        finally:
            self._lock.release()

    def reopen(self) -> int | None:
        """After the driver was restarted under us every handle is void."""
        self.close()
        with self._lock:
            self.error = query("nvmlInit").error
        return self.error

    def describe(self, known: list[Device]) -> list[Device]:
        """Completes what the bus scan found, and adds what it could not see (containers, MIG)."""
        if self.error is not None:
            # A driver's files without a bus to look at, as in some containers: at least say so.
            nameless = Device("gpu0", DeviceKind.GPU, "nvidia", "NVIDIA GPU", driver="nvidia")
            return [_failed(device, self.error) for device in known or [nameless]]
        by_pci = {device.pci: device for device in known}
        failed: list[int] = []
        found: dict[str, list[Device]] = {}
        for index in range(query("nvmlDeviceGetCount").value or 0):
            handle = query("nvmlDeviceGetHandleByIndex", index)
            pci = _pci(handle.value) if handle.error is None else None
            if pci is None:
                failed.append(handle.error if handle.error is not None else UNKNOWN)
                continue
            blank = Device(f"gpu{index}", DeviceKind.GPU, "nvidia", "NVIDIA GPU", pci=pci, driver="nvidia")
            found[pci] = _described(by_pci.get(pci, blank), handle.value)
        return _merged(known, found, failed)

    def read(self, device: Device) -> Reading:
        """One reading; a GPU that fails is asked for again by its address next time."""
        with self._lock:
            handle = self._handle(device)
            answer = handle if handle.error is not None else _memory(handle.value)
            if handle.error is None and answer.error not in _CONDEMNING:
                if answer.error not in (None, NOT_SUPPORTED):  # perhaps an old handle of a GPU that returned
                    self._handles.pop(_key(device), None)
                return _reading(device, handle.value, answer)
            self._handles.pop(_key(device), None)
            if answer.error == NOT_INITIALISED:  # the driver was restarted under us
                self.error = NOT_INITIALISED
        state, detail = state_of(answer.error)
        return Reading(device.id, state, total_bytes=device.memory_total_bytes, detail=detail)

    def _handle(self, device: Device) -> Answer:
        if self.error is not None:
            return Answer(error=self.error)
        key = _key(device)
        if key not in self._handles:
            by_uuid = [("nvmlDeviceGetHandleByUUID", device.uuid)] if device.uuid else []
            by_pci = [("nvmlDeviceGetHandleByPciBusId", device.pci)] if device.pci and not device.parent else []
            answer = first(*by_pci, *by_uuid)
            if answer.error is not None:
                return answer
            self._handles[key] = answer.value
        return Answer(self._handles[key])


def _key(device: Device) -> str:
    return device.uuid or device.pci or device.id


def _failed(device: Device, error: int) -> Device:
    if device.state is DeviceState.NO_DRIVER:  # then the bus knows better than the library
        return device
    state, detail = state_of(error)
    return replace(device, state=state, detail=detail)


def _merged(known: list[Device], found: dict[str, list[Device]], failed: list[int]) -> list[Device]:
    """A GPU that is lost has no address any more: it is one of those that did not answer."""
    merged: list[Device] = []
    for device in known:
        if device.pci in found:
            merged += found.pop(device.pci)
        elif failed and device.state is not DeviceState.NO_DRIVER:
            merged.append(_failed(device, failed.pop(0)))
        else:
            merged.append(device)
    for devices in found.values():
        merged += devices
    taken = {device.id for device in merged}
    free = (f"gpu{number}" for number in range(1024) if f"gpu{number}" not in taken)
    for error, name in zip(failed, free, strict=False):
        state, detail = state_of(error)
        merged.append(Device(name, DeviceKind.GPU, "nvidia", "NVIDIA GPU", state, detail, driver="nvidia"))
    return merged


def _described(device: Device, handle: Any) -> list[Device]:
    """The GPU and, where it is divided, its MIG instances."""
    memory = _memory(handle)
    capability = query("nvmlDeviceGetCudaComputeCapability", handle).value
    mig = query("nvmlDeviceGetMigMode", handle).value
    width = query("nvmlDeviceGetCurrPcieLinkWidth", handle)
    state, detail = _condition(memory, handle)
    device = replace(
        device,
        name=query("nvmlDeviceGetName", handle).value or device.name,
        state=state,
        detail=detail,
        uuid=query("nvmlDeviceGetUUID", handle).value or device.uuid,
        memory_total_bytes=getattr(memory.value, "total", None),
        memory_reserved_bytes=getattr(memory.value, "reserved", None),
        driver_version=query("nvmlSystemGetDriverVersion").value or device.driver_version,
        architecture=f"{capability[0]}.{capability[1]}" if capability else None,
        pcie_width=width.value or device.pcie_width,
        mig=bool(mig[0]) if mig else None,
    )
    if not device.mig:
        return [device]
    return [device, *_instances(device, handle)]


def _instances(parent: Device, handle: Any) -> list[Device]:
    instances = []
    for index in range(query("nvmlDeviceGetMaxMigDeviceCount", handle).value or 0):
        instance = query("nvmlDeviceGetMigDeviceHandleByIndex", handle, index)
        if instance.error is not None:  # slots that hold no instance answer "not found"
            continue
        memory = _memory(instance.value)
        instances.append(
            replace(
                parent,
                id=f"{parent.id}.mig{index}",
                name=query("nvmlDeviceGetName", instance.value).value or f"{parent.name} MIG {index}",
                uuid=query("nvmlDeviceGetUUID", instance.value).value,
                memory_total_bytes=getattr(memory.value, "total", None),
                memory_reserved_bytes=getattr(memory.value, "reserved", None),
                mig=None,
                parent=parent.id,
            )
        )
    return instances


def _memory(handle: Any) -> Answer:
    return first(("nvmlDeviceGetMemoryInfo", handle, _MEMORY_V2), ("nvmlDeviceGetMemoryInfo", handle))


def _condition(memory: Answer, handle: Any) -> tuple[DeviceState, str | None]:
    if memory.error in _CONDEMNING:
        return state_of(memory.error)
    # A GPU may answer every call and yet be waiting for a reset.
    fields = query("nvmlDeviceGetFieldValues", handle, [_RECOVERY_ACTION]).value
    if fields and fields[0].nvmlReturn == 0 and fields[0].value.uiVal in _RESETTING_ACTIONS:
        return DeviceState.RESET_REQUIRED, "the driver asks for a reset or restart"
    return DeviceState.OK, None


def _reading(device: Device, handle: Any, memory: Answer) -> Reading:
    busy = query("nvmlDeviceGetUtilizationRates", handle).value
    return Reading(
        device_id=device.id,
        used_bytes=getattr(memory.value, "used", None),
        free_bytes=getattr(memory.value, "free", None),
        total_bytes=getattr(memory.value, "total", device.memory_total_bytes),
        utilization=None if busy is None else min(1.0, busy.gpu / 100),
        temperature_celsius=query("nvmlDeviceGetTemperature", handle, _CORE_TEMPERATURE).value,
        power_watts=_thousandth(query("nvmlDeviceGetPowerUsage", handle)),
        power_limit_watts=_thousandth(query("nvmlDeviceGetEnforcedPowerLimit", handle)),
        energy_joules=_thousandth(query("nvmlDeviceGetTotalEnergyConsumption", handle)),
        clock_mhz=query("nvmlDeviceGetClockInfo", handle, _GRAPHICS).value,
        clock_max_mhz=query("nvmlDeviceGetMaxClockInfo", handle, _GRAPHICS).value,
        memory_clock_mhz=query("nvmlDeviceGetClockInfo", handle, _MEMORY).value,
        throttled_by=_throttle(handle),
        processes=_processes(handle),
    )


def _throttle(handle: Any) -> tuple[str, ...]:
    bits = first(
        ("nvmlDeviceGetCurrentClocksEventReasons", handle),
        ("nvmlDeviceGetCurrentClocksThrottleReasons", handle),
    ).value
    return tuple(name for bit, name in _THROTTLE.items() if bits and bits & bit)


def _processes(handle: Any) -> tuple[tuple[int, int | None], ...]:
    """Who holds memory, compute and graphics together; pids are those of the host's namespace."""
    found: dict[int, int | None] = {}
    for kind in ("Compute", "Graphics"):
        name = f"nvmlDeviceGet{kind}RunningProcesses"
        for process in first((f"{name}_v3", handle), (f"{name}_v2", handle)).value or ():
            # The same process is in both lists with the same bytes.
            found.setdefault(process.pid, process.usedGpuMemory)
    return tuple(sorted(found.items()))


def _pci(handle: Any) -> str | None:
    info = first(("nvmlDeviceGetPciInfo_v3", handle), ("nvmlDeviceGetPciInfo", handle)).value
    return parse_pci(getattr(info, "busId", None))


def _thousandth(answer: Answer) -> float | None:
    return None if answer.value is None else answer.value / 1000
