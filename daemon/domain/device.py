"""What the machine is made of, and what its sensors say: facts only, a missing one is None."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class DeviceKind(StrEnum):
    CPU = "cpu"
    GPU = "gpu"
    IGPU = "igpu"
    NPU = "npu"


class DeviceState(StrEnum):
    """Whether work can be put on a device, and if not, what stands in the way."""

    OK = "ok"
    NO_DRIVER = "no_driver"  # no kernel driver holds it, or one that is not for computing
    NO_LIBRARY = "no_library"  # the kernel sees it, but the vendor's library is missing
    MISMATCH = "mismatch"  # the library and the loaded kernel driver are of different versions
    LOST = "lost"  # fell off the bus; only a reset or a restart brings it back
    RESET_REQUIRED = "reset_required"
    FAILED = "failed"  # the vendor's library answers with another error


@dataclass(frozen=True, slots=True)
class DeviceNode:
    """A file in /dev through which a device is reached, and whether this user may."""

    path: str
    accessible: bool
    group: str | None = None


@dataclass(frozen=True, slots=True)
class Device:
    """One place where a model can live. `llama_name` is what llama.cpp calls it, such as CUDA0."""

    id: str
    kind: DeviceKind
    vendor: str
    name: str
    state: DeviceState = DeviceState.OK
    detail: str | None = None  # why the state is not OK
    pci: str | None = None  # lower case, four-digit domain: 0000:01:00.0
    uuid: str | None = None
    memory_total_bytes: int | None = None
    memory_reserved_bytes: int | None = None  # kept by the driver, never ours
    shared_memory_bytes: int | None = None  # host memory that the device may also map
    driver: str | None = None
    driver_version: str | None = None
    architecture: str | None = None  # CUDA compute capability or gfx name
    numa_node: int | None = None
    pcie_width: int | None = None
    pcie_gts: float | None = None  # GT/s of one lane
    mig: bool | None = None  # divided into MIG instances, which are devices of their own
    parent: str | None = None  # the id of the GPU that a MIG instance is cut from
    nodes: tuple[DeviceNode, ...] = ()
    usable_by: tuple[str, ...] = ()
    onnx_provider: str = ""  # of ONNX Runtime, by which it computes there; "": it does not
    llama_name: str | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """What one device's sensors said at one moment."""

    device_id: str
    state: DeviceState = DeviceState.OK
    used_bytes: int | None = None
    free_bytes: int | None = None
    total_bytes: int | None = None
    utilization: float | None = None  # 0 to 1
    temperature_celsius: float | None = None
    power_watts: float | None = None
    power_limit_watts: float | None = None
    energy_joules: float | None = None  # a counter: take differences
    clock_mhz: int | None = None
    clock_max_mhz: int | None = None
    memory_clock_mhz: int | None = None
    throttled_by: tuple[str, ...] = ()
    processes: tuple[tuple[int, int | None], ...] = ()  # (pid, bytes on the device)
    detail: str | None = None  # why the state is not OK, where that is known


@dataclass(frozen=True, slots=True)
class HostMemory:
    """RAM as this process may use it: the least of the machine's and of every cgroup above us."""

    total_bytes: int | None = None
    available_bytes: int | None = None
    bound_by: str | None = None  # "meminfo", or "cgroup /path" of the nearest limit
    limit_bytes: int | None = None  # the lowest cgroup limit, None where there is none
    swap_total_bytes: int | None = None
    swap_free_bytes: int | None = None
    memlock_limit_bytes: int | None = None  # None: as much as there is
    psi_some_avg10: float | None = None  # per cent of the last 10 s
    psi_full_avg10: float | None = None


@dataclass(frozen=True, slots=True)
class HostLoad:
    """What else the host is short of, as its tasks and its NUMA nodes say."""

    psi_cpu_some_avg10: float | None = None  # per cent of the last 10 s
    psi_io_some_avg10: float | None = None
    numa_free_bytes: tuple[tuple[int, int], ...] = ()  # (id of the node, bytes)


@dataclass(frozen=True, slots=True)
class NumaNode:
    id: int
    cpus: tuple[int, ...]
    memory_total_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class CpuFacts:
    """The processor, and the part of it that this process may use."""

    model: str
    vendor: str
    architecture: str
    logical_cores: int  # of the machine
    physical_cores: int  # of the machine
    performance_cores: int | None  # physical ones, where the processor is a hybrid
    cores_allowed: int  # logical, after affinity, cpuset and quota
    quota_cores: float | None  # the tightest cgroup quota
    threads: int  # what an engine should use: allowed physical (performance) cores
    simd: tuple[str, ...]
    numa_nodes: tuple[NumaNode, ...]
    l3_bytes: int | None


@dataclass(frozen=True, slots=True)
class LlamaDevice:
    """A device as llama.cpp lists it. `pci` is the key that joins it with ours."""

    name: str
    description: str
    type: str
    pci: str | None
    memory_total_bytes: int | None


@dataclass(frozen=True, slots=True)
class LlamaFacts:
    version: str | None
    gpu_offload: bool | None
    system_info: str | None
    devices: tuple[LlamaDevice, ...]


@dataclass(frozen=True, slots=True)
class OnnxFacts:
    version: str | None
    providers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Backends:
    """Which engines this installation has; a missing one is None and `errors` says why."""

    llama: LlamaFacts | None
    onnx: OnnxFacts | None
    errors: tuple[tuple[str, str], ...] = ()  # (backend, reason)


@dataclass(frozen=True, slots=True)
class Sandbox:
    """What this kernel has to shut workers in."""

    landlock: int  # by its own count; 0: files cannot be guarded
    seccomp: bool
    cgroup: str  # why workers cannot have groups of their own; "": they can, where the service is given its own


@dataclass(frozen=True, slots=True)
class Hardware:
    """Everything detected once. `backends` is None until they have been probed."""

    cpu: CpuFacts
    memory: HostMemory
    devices: tuple[Device, ...]
    backends: Backends | None = None
    notes: tuple[str, ...] = ()
    sandbox: Sandbox | None = None  # None: nobody has looked
