"""What readings of the machine mean for the ledger."""

from __future__ import annotations

from dataclasses import replace

from inferd.daemon.domain.config import Memory
from inferd.daemon.domain.device import CpuFacts, Device, DeviceKind, DeviceState, Hardware, HostMemory, Reading
from inferd.daemon.node.machine import Machine
from inferd.daemon.node.plans import Gpu
from inferd.daemon.policy.ledger import Ledger

GIB = 1 << 30
CPU = CpuFacts("cpu", "maker", "x86_64", 8, 4, None, 8, None, 4, (), (), None)
GPU = Device("gpu0", DeviceKind.GPU, "maker", "card", memory_total_bytes=24 * GIB, usable_by=("llama.cpp",))
HOST = HostMemory(total_bytes=64 * GIB, available_bytes=48 * GIB)


def machine(*devices: Device, memory: HostMemory = HOST) -> Machine:
    cpu = Device("cpu", DeviceKind.CPU, "maker", "cpu", usable_by=("llama.cpp",))
    limits = Memory(host_margin_bytes=GIB, device_margin_bytes=GIB // 2)
    return Machine(Hardware(CPU, memory, (cpu, *devices)), limits, memory)


def opened(it: Machine) -> Ledger:
    ledger = Ledger()
    it.open_pools(ledger)
    return ledger


def test_host_memory_is_a_pool_with_its_margin() -> None:
    ledger = opened(machine())
    assert set(ledger.pools) == {"host"}
    assert ledger.headroom_bytes("host") == 63 * GIB


def test_a_cgroup_limit_below_the_machine_is_the_size_of_the_host() -> None:
    ledger = opened(machine(memory=replace(HOST, limit_bytes=8 * GIB)))
    assert ledger.pools["host"].capacity == 8 * GIB


def test_a_machine_that_does_not_tell_its_size_gives_nothing() -> None:
    assert opened(machine(memory=HostMemory())).headroom_bytes("host") < 0


def test_a_usable_gpu_is_a_pool_without_what_its_driver_keeps() -> None:
    ledger = opened(machine(replace(GPU, memory_reserved_bytes=GIB)))
    assert ledger.headroom_bytes("gpu0") == 23 * GIB - GIB // 2


def test_plans_are_told_what_models_may_have_of_a_gpu_and_its_name_in_llama_cpp() -> None:
    it = machine(replace(GPU, llama_name="CUDA0"), replace(GPU, id="gpu1", memory_total_bytes=None))
    assert it.for_models(opened(it)) == {"gpu0": Gpu(24 * GIB - GIB // 2, "CUDA0")}


def test_the_fake_engine_runs_on_any_gpu() -> None:
    it = machine(replace(GPU, usable_by=()), replace(GPU, id="gpu1", usable_by=(), mig=True))
    assert it.gpus() == ()
    it.fake = True
    assert [device.id for device in it.gpus()] == ["gpu0"]


def test_only_what_llama_cpp_can_use_is_a_gpu_for_models() -> None:
    others = (
        replace(GPU, id="gpu1", usable_by=()),
        replace(GPU, id="gpu2", state=DeviceState.LOST),
        replace(GPU, id="igpu0", kind=DeviceKind.IGPU),
    )
    it = machine(GPU, *others)
    assert [device.id for device in it.gpus()] == ["gpu0"]
    assert set(opened(it).pools) == {"host", "gpu0"}


def test_a_gpu_of_unknown_size_is_no_pool() -> None:
    assert set(opened(machine(replace(GPU, memory_total_bytes=None))).pools) == {"host"}


def test_pools_that_are_open_keep_what_they_hold() -> None:
    it = machine(GPU)
    ledger = opened(it)
    ledger.observe("gpu0", 5 * GIB)
    it.open_pools(ledger)
    assert ledger.pools["gpu0"].used == 5 * GIB


def test_only_something_beside_the_cpu_is_worth_a_probe() -> None:
    assert not machine().needs_probe()
    assert machine(replace(GPU, usable_by=())).needs_probe()


def test_a_reading_sets_private_bytes_against_what_is_used() -> None:
    it = machine()
    ledger = opened(it)
    ledger.reserve("m", {"host": 4 * GIB})
    it.on_reading(HOST, [], {"m": (7, (5 * GIB, 3 * GIB))}, ledger)
    assert ledger.pools["host"].foreign == 13 * GIB  # 16 are used, 3 of them ours
    assert ledger.headroom_bytes("host") == (64 - 1 - 13 - 4) * GIB
    assert it.worker_bytes == {"m": 5 * GIB}


def test_bytes_on_a_gpu_belong_to_the_model_of_the_process() -> None:
    it = machine(GPU)
    ledger = opened(it)
    ledger.reserve("m", {"gpu0": 2 * GIB})
    reading = Reading("gpu0", used_bytes=10 * GIB, processes=((7, 3 * GIB), (8, 6 * GIB), (9, None)))
    it.on_reading(HOST, [reading], {"m": (7, None)}, ledger)
    assert ledger.pools["gpu0"].foreign == 7 * GIB
    assert it.readings == {"gpu0": reading}


def test_readings_that_are_missing_change_nothing() -> None:
    it = machine(GPU)
    ledger = opened(it)
    ledger.observe("gpu0", GIB)
    ledger.observe("host", GIB)
    it.on_reading(HostMemory(total_bytes=64 * GIB), [Reading("gpu0"), Reading("gpu9", used_bytes=1)], {}, ledger)
    assert (ledger.pools["gpu0"].used, ledger.pools["host"].used) == (GIB, GIB)
