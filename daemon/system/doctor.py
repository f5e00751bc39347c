"""What a look at the machine tells its owner: the facts, and what to do about those that hurt."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ..domain.device import Device, DeviceKind, DeviceState, Hardware

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..domain.device import LlamaFacts

_MIB, _GIB = 1 << 20, 1 << 30
_LEAST_MEMLOCK_BYTES = 8 * _MIB  # what every current system grants
_SEVERITIES = ("error", "warning", "info")


@dataclass(frozen=True, slots=True)
class Advice:
    code: str
    severity: str  # "error": something does not work; "warning": it works badly; "info": worth knowing
    message: str
    remedy: str


def report(hardware: Hardware) -> dict[str, Any]:
    """The JSON of `inferd doctor --json`; of a healthy machine `advice` is empty."""
    return {
        "cpu": asdict(hardware.cpu),
        "memory": asdict(hardware.memory),
        "devices": [asdict(device) for device in hardware.devices],
        "backends": _backends(hardware),
        "sandbox": asdict(hardware.sandbox) if hardware.sandbox else None,
        "advice": [asdict(advice) for advice in advise(hardware)],
    }


def advise(hardware: Hardware) -> list[Advice]:
    """All advice, the worst first."""
    found = [*_engines(hardware), *_memory(hardware), *_cpu(hardware), *_sandbox(hardware)]
    for device in hardware.devices:
        found += _device(device)
        found += _access(device)
    return sorted(found, key=lambda advice: _SEVERITIES.index(advice.severity))


def _backends(hardware: Hardware) -> dict[str, Any]:
    backends = hardware.backends
    if backends is None:
        return {"llama.cpp": None, "onnxruntime": None, "errors": {}}
    return {
        "llama.cpp": asdict(backends.llama) if backends.llama else None,
        "onnxruntime": asdict(backends.onnx) if backends.onnx else None,
        "errors": dict(backends.errors),
    }


def _engines(hardware: Hardware) -> Iterator[Advice]:
    if hardware.backends is None:
        return
    llama = hardware.backends.llama
    if llama is None:
        reason = dict(hardware.backends.errors).get("llama.cpp", "it is not installed")
        if "SIGILL" in reason:
            message = f"llama.cpp cannot be used: {reason}; it was compiled for another processor than this one"
            message += ". A package for all of them is made with NATIVE=0; without one:"
            yield Advice("llama_other_processor", "error", message, _build("-DGGML_NATIVE=on", None))
            return
        yield Advice(
            "llama_missing",
            "error",
            f"llama.cpp cannot be used: {reason}; installing it may need a C++ compiler and CMake",
            rebuild_command(None, None),
        )
        return
    built_for = llama.system_info or ""
    if "avx2" in hardware.cpu.simd and "CPU :" in built_for and "AVX2 = 1" not in built_for:
        message = "This llama.cpp was built without AVX2, which the processor has: it computes several times slower"
        yield Advice("llama_slow_build", "warning", message, _build("-DGGML_NATIVE=on", llama.version))
    cards = [d for d in hardware.devices if d.kind is DeviceKind.GPU and d.state is DeviceState.OK]
    idle = [device for device in cards if "llama.cpp" not in device.usable_by and not device.mig]
    for vendor in dict.fromkeys(device.vendor for device in idle):
        yield _unused([device for device in idle if device.vendor == vendor], llama)


def _unused(devices: list[Device], llama: LlamaFacts) -> Advice:
    names = ", ".join(f"{device.id} ({device.name})" for device in devices)
    command = rebuild_command(devices[0], llama.version)
    if not llama.gpu_offload:
        message = f"{names} stays idle: this llama.cpp was built for the CPU only"
        return Advice("llama_cpu_build", "warning", message, command)
    message = f"{names} stays idle: this llama.cpp can use GPUs, but does not list this one"
    hidden = "Check CUDA_VISIBLE_DEVICES, HIP_VISIBLE_DEVICES and the driver's version, or rebuild: "
    return Advice("llama_gpu_unseen", "warning", message, hidden + command)


def rebuild_command(device: Device | None, version: str | None) -> str:
    """The shell line that builds llama.cpp for this device."""
    flags = ""
    if device is not None and device.vendor == "nvidia":
        flags = "-DGGML_CUDA=on"
    elif device is not None and device.vendor == "amd" and device.kind is DeviceKind.GPU:
        flags = "-DGGML_HIP=on" + (f" -DGPU_TARGETS={device.architecture}" if device.architecture else "")
    elif device is not None:
        flags = "-DGGML_VULKAN=on"
    return _build(flags, version)


def _build(flags: str, version: str | None) -> str:
    exact = bool(version and re.fullmatch(r"\d+(\.\d+){1,3}", version, re.ASCII))
    wanted = f"llama-cpp-python=={version}" if exact else "llama-cpp-python"
    if not flags:
        return f"pip install --force-reinstall --no-cache-dir {wanted}"
    return (
        f'CMAKE_ARGS="{flags}" pip install --force-reinstall --no-cache-dir --no-deps '
        f"--no-binary llama-cpp-python {wanted}"
    )


_RESTART = "Restart the machine, or unload the nvidia kernel modules and load them again."
_STATES: dict[DeviceState, tuple[str, str, str]] = {
    DeviceState.LOST: (
        "gpu_lost",
        "error",
        "Restart the machine. If it happens again, look at power, cooling and the slot (dmesg: Xid 79).",
    ),
    DeviceState.RESET_REQUIRED: (
        "gpu_reset_required",
        "error",
        "End what uses it, then: sudo nvidia-smi --gpu-reset, or restart the machine.",
    ),
    DeviceState.MISMATCH: ("driver_mismatch", "error", _RESTART),
    DeviceState.FAILED: ("gpu_failed", "error", _RESTART),
}
_LIBRARY = {
    "nvidia": "Install the driver's libraries (libnvidia-ml.so.1) of the same version as the kernel module"
    "; in a container, start it with the NVIDIA container runtime.",
}
_MODULES = {"nvidia": "nvidia", "amd": "amdgpu", "intel": "xe"}
_NPU_MODULES = {"intel": "intel_vpu", "amd": "amdxdna"}


def _device(device: Device) -> Iterator[Advice]:
    what = f"{device.id} ({device.name}): {device.detail or device.state.value}"
    if device.state in _STATES:
        code, severity, remedy = _STATES[device.state]
        yield Advice(code, severity, what, remedy)
    elif device.state is DeviceState.NO_LIBRARY:
        remedy = _LIBRARY.get(device.vendor, "Install the vendor's driver library.")
        yield Advice("driver_library_missing", "error", what, remedy)
    # Nobody misses an unused NPU or iGPU, and one given to a virtual machine is meant to be away.
    elif device.state is DeviceState.NO_DRIVER and device.kind is DeviceKind.GPU and device.driver != "vfio-pci":
        module = _MODULES.get(device.vendor, "of its vendor")
        remedy = f"Install the driver, then: sudo modprobe {module}."
        if device.driver == "nouveau":
            remedy = "Install NVIDIA's own driver; nouveau must not be loaded."
        yield Advice("driver_not_loaded", "error", what, remedy)


def _access(device: Device) -> Iterator[Advice]:
    closed = [node for node in device.nodes if not node.accessible]
    if not closed or device.state is DeviceState.NO_DRIVER or device.kind is not DeviceKind.GPU:
        return
    paths = ", ".join(node.path for node in closed)
    groups = sorted({node.group for node in closed if node.group and node.group != "root"})
    if groups:
        remedy = f"sudo usermod -aG {','.join(groups)} $USER, then log in again (a service: restart it)."
    else:
        paths_to_open = " ".join(node.path for node in closed)
        remedy = f"Only root may open it: sudo chmod 0666 {paths_to_open}, and a udev rule to keep it so."
    yield Advice(
        "device_not_accessible",
        "error",
        f"{device.id} ({device.name}): this user may not open {paths}",
        remedy,
    )


def _memory(hardware: Hardware) -> Iterator[Advice]:
    memory = hardware.memory
    total, available = memory.total_bytes, memory.available_bytes
    tight = total is not None and available is not None and available < total * 0.15
    if (memory.psi_full_avg10 or 0) > 5 or (memory.psi_some_avg10 or 0) > 20:
        some, full = memory.psi_some_avg10 or 0, memory.psi_full_avg10 or 0
        message = f"The machine waits for memory: {some:g} % of the last 10 s for some, {full:g} % for all tasks"
        yield Advice("memory_pressure", "warning", message, "Close other programs, or load smaller models.")
    if tight and memory.swap_free_bytes is not None and memory.swap_free_bytes < _GIB:
        message = (
            f"{_gib(available)} of {_gib(total)} RAM and {_gib(memory.swap_free_bytes)} of swap are left: "
            "a little more and the kernel ends a process"
        )
        yield Advice("no_swap_headroom", "warning", message, "Free memory, or add swap.")
    if memory.limit_bytes is not None and total is not None and memory.limit_bytes < total / 2:
        message = f"A cgroup limits us to {_gib(memory.limit_bytes)} of the machine's {_gib(total)}"
        remedy = "Raise MemoryMax= of the service, or --memory of the container, if models should have more."
        yield Advice("cgroup_limit", "info", message, remedy)
    if memory.memlock_limit_bytes is not None and memory.memlock_limit_bytes < _LEAST_MEMLOCK_BYTES:
        message = f"Only {memory.memlock_limit_bytes // 1024} KiB may be locked in RAM"
        remedy = "LimitMEMLOCK=infinity in the service, or a memlock line in /etc/security/limits.conf."
        yield Advice("low_memlock", "info", message, remedy)


def _cpu(hardware: Hardware) -> Iterator[Advice]:
    cpu = hardware.cpu
    # No flags at all means that they could not be read, not that there are none.
    if cpu.architecture in ("x86_64", "AMD64") and cpu.simd and "avx2" not in cpu.simd:
        message = f"{cpu.model} has no AVX2 here: models on the CPU run several times slower"
        remedy = "In a virtual machine, pass the host's CPU through (QEMU: -cpu host)."
        yield Advice("no_avx2", "warning", message, remedy)


def _sandbox(hardware: Hardware) -> Iterator[Advice]:
    sandbox = hardware.sandbox
    if sandbox is None or (sandbox.landlock and sandbox.seccomp):
        return
    missing = " and ".join(["Landlock"] * (not sandbox.landlock) + ["seccomp"] * (not sandbox.seccomp))
    message = f"Workers are not shut in as they should be: this kernel has no {missing}, or a filter hides it"
    remedy = (
        "Linux 5.13 or newer, with landlock in lsm=; a service's filter must let its calls through. Until then, load"
    )
    remedy += " only models that you trust."
    yield Advice("sandbox_weak", "warning", message, remedy)


def _gib(size_bytes: int | None) -> str:
    return f"{(size_bytes or 0) / _GIB:.1f} GiB"
