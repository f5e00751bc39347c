"""Advice: none for a healthy machine, the right one for each that is not."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from inferd.daemon.domain.device import (
    Backends,
    CpuFacts,
    Device,
    DeviceKind,
    DeviceNode,
    DeviceState,
    Hardware,
    HostMemory,
    LlamaDevice,
    LlamaFacts,
)
from inferd.daemon.system import hardware
from inferd.daemon.system.doctor import advise, rebuild_command, report

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

GIB = 1 << 30
CPU = CpuFacts("Fake", "intel", "x86_64", 8, 4, None, 8, None, 4, ("avx", "avx2"), (), None)
MEMORY = HostMemory(32 * GIB, 24 * GIB, "meminfo", None, 8 * GIB, 8 * GIB, 8 << 20, 0.0, 0.0)
CARD = Device(
    *("gpu0", DeviceKind.GPU, "nvidia", "NVIDIA H100"),
    pci="0000:01:00.0",
    driver="nvidia",
    nodes=(DeviceNode("/dev/nvidia0", True, "root"),),
    usable_by=("llama.cpp",),
    llama_name="CUDA0",
)
LLAMA = LlamaFacts("0.3.36", True, None, (LlamaDevice("CUDA0", "NVIDIA H100", "gpu", "0000:01:00.0", 80 * GIB),))
HEALTHY = Hardware(CPU, MEMORY, (CARD,), Backends(LLAMA, None, (("onnxruntime", "it is not installed"),)))
CPU_BUILD = Backends(replace(LLAMA, gpu_offload=False, devices=()), None)


def codes(hardware: Hardware) -> list[str]:
    return [advice.code for advice in advise(hardware)]


def with_card(**changes: object) -> Hardware:
    return replace(HEALTHY, devices=(replace(CARD, **changes),))  # type: ignore[arg-type]


def with_memory(**changes: object) -> Hardware:
    return replace(HEALTHY, memory=replace(MEMORY, **changes))  # type: ignore[arg-type]


def test_a_healthy_machine_needs_no_advice() -> None:
    assert advise(HEALTHY) == []


def test_the_report_has_exactly_these_keys_and_is_json() -> None:
    told = json.loads(json.dumps(report(HEALTHY)))
    assert list(told) == ["cpu", "memory", "devices", "backends", "sandbox", "advice"]
    assert told["devices"][0]["kind"] == "gpu"
    assert told["backends"]["llama.cpp"]["version"] == "0.3.36"
    assert told["backends"]["onnxruntime"] is None
    assert told["backends"]["errors"] == {"onnxruntime": "it is not installed"}


def test_unprobed_engines_are_not_missed() -> None:
    unprobed = replace(HEALTHY, backends=None)
    assert advise(unprobed) == []
    assert report(unprobed)["backends"] == {"llama.cpp": None, "onnxruntime": None, "errors": {}}


def test_each_advice_says_what_to_do() -> None:
    (advice,) = report(replace(HEALTHY, backends=Backends(None, None, (("llama.cpp", "it is broken"),))))["advice"]
    assert set(advice) == {"code", "severity", "message", "remedy"}
    assert (advice["code"], advice["severity"]) == ("llama_missing", "error")
    assert "it is broken" in advice["message"]
    assert advice["remedy"].startswith("pip install")


def test_an_engine_that_was_compiled_for_another_processor() -> None:
    broken = Backends(None, None, (("llama.cpp", "the probe was ended by SIGILL"),))
    (advice,) = advise(replace(HEALTHY, backends=broken))
    assert (advice.code, advice.severity) == ("llama_other_processor", "error")
    assert "compiled for another processor" in advice.message
    assert "NATIVE=0" in advice.message
    assert advice.remedy.startswith('CMAKE_ARGS="-DGGML_NATIVE=on" pip install')


def test_a_cpu_build_beside_a_gpu() -> None:
    (advice,) = advise(replace(with_card(usable_by=()), backends=CPU_BUILD))
    assert (advice.code, advice.severity) == ("llama_cpu_build", "warning")
    assert advice.remedy == (
        'CMAKE_ARGS="-DGGML_CUDA=on" pip install --force-reinstall --no-cache-dir --no-deps '
        "--no-binary llama-cpp-python llama-cpp-python==0.3.36"
    )


@pytest.mark.parametrize(
    ("system_info", "expected"),
    [
        ("CPU : SSE3 = 1 | LLAMAFILE = 1 | ", ["llama_slow_build"]),
        ("CUDA : ARCHS = 900 | CPU : SSE3 = 1 | AVX2 = 1 | ", []),
        (None, []),
    ],
)
def test_a_build_that_leaves_vector_units_idle(system_info: str | None, expected: list[str]) -> None:
    backends = Backends(replace(LLAMA, system_info=system_info), None)
    assert codes(replace(HEALTHY, backends=backends)) == expected


def test_one_advice_for_each_maker_of_idle_cards() -> None:
    idle = replace(CARD, usable_by=())
    devices = (idle, replace(idle, id="gpu1"), replace(idle, id="gpu2", vendor="amd"))
    nvidia, amd = advise(replace(HEALTHY, devices=devices, backends=CPU_BUILD))
    assert "gpu0" in nvidia.message
    assert "gpu1" in nvidia.message
    assert "GGML_HIP" in amd.remedy


def test_a_gpu_that_a_gpu_build_does_not_list() -> None:
    assert codes(with_card(usable_by=())) == ["llama_gpu_unseen"]


def test_a_divided_gpu_is_not_idle_itself() -> None:
    part = replace(CARD, id="gpu0.mig0", parent="gpu0")
    assert advise(replace(HEALTHY, devices=(replace(CARD, mig=True, usable_by=()), part))) == []


@pytest.mark.parametrize("kind", [DeviceKind.IGPU, DeviceKind.NPU])
def test_nobody_misses_an_igpu_or_npu(kind: DeviceKind) -> None:
    idle = replace(with_card(kind=kind, usable_by=()), backends=CPU_BUILD)
    assert advise(idle) == []
    assert advise(with_card(kind=kind, state=DeviceState.NO_DRIVER, driver=None)) == []


@pytest.mark.parametrize(
    ("device", "flags"),
    [
        (replace(CARD, vendor="amd", architecture="gfx1100"), "-DGGML_HIP=on -DGPU_TARGETS=gfx1100"),
        (replace(CARD, vendor="amd"), "-DGGML_HIP=on"),
        (replace(CARD, vendor="amd", kind=DeviceKind.IGPU), "-DGGML_VULKAN=on"),
        (replace(CARD, vendor="intel"), "-DGGML_VULKAN=on"),
    ],
)
def test_each_maker_has_its_build(device: Device, flags: str) -> None:
    assert rebuild_command(device, None).startswith(f'CMAKE_ARGS="{flags}" pip install ')


def test_an_odd_version_does_not_get_into_a_command() -> None:
    assert rebuild_command(CARD, "1.0; rm -rf ~").endswith(" llama-cpp-python")


@pytest.mark.parametrize(
    ("state", "code"),
    [
        (DeviceState.LOST, "gpu_lost"),
        (DeviceState.RESET_REQUIRED, "gpu_reset_required"),
        (DeviceState.MISMATCH, "driver_mismatch"),
        (DeviceState.FAILED, "gpu_failed"),
        (DeviceState.NO_LIBRARY, "driver_library_missing"),
        (DeviceState.NO_DRIVER, "driver_not_loaded"),
    ],
)
def test_every_bad_state_has_its_advice(state: DeviceState, code: str) -> None:
    (advice,) = advise(with_card(state=state, detail="some reason", usable_by=()))
    assert (advice.code, advice.severity) == (code, "error")
    assert "some reason" in advice.message
    assert advice.remedy


def test_no_state_is_forgotten() -> None:
    silent = [state for state in DeviceState if not advise(with_card(state=state))]
    assert silent == [DeviceState.OK]


def test_the_remedy_for_a_driver_names_it() -> None:
    (nouveau,) = advise(with_card(state=DeviceState.NO_DRIVER, driver="nouveau", usable_by=()))
    assert "nouveau" in nouveau.remedy
    (amd,) = advise(with_card(state=DeviceState.NO_DRIVER, driver=None, vendor="amd", usable_by=()))
    assert "modprobe amdgpu" in amd.remedy


def test_a_card_given_to_a_virtual_machine_is_meant_to_be_away() -> None:
    assert advise(with_card(state=DeviceState.NO_DRIVER, driver="vfio-pci", usable_by=())) == []


def test_a_node_that_may_not_be_opened() -> None:
    nodes = (DeviceNode("/dev/kfd", False, "render"), DeviceNode("/dev/dri/renderD128", True, "render"))
    (advice,) = advise(with_card(nodes=nodes))
    assert advice.code == "device_not_accessible"
    assert "/dev/kfd" in advice.message
    assert "renderD128" not in advice.message
    assert advice.remedy.startswith("sudo usermod -aG render ")
    (closed,) = advise(with_card(nodes=(DeviceNode("/dev/nvidia0", False, "root"),)))
    assert "usermod" not in closed.remedy


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"psi_full_avg10": 9.0}, "memory_pressure"),
        ({"psi_some_avg10": 30.0}, "memory_pressure"),
        ({"available_bytes": 2 * GIB, "swap_free_bytes": 0}, "no_swap_headroom"),
        ({"limit_bytes": 4 * GIB}, "cgroup_limit"),
        ({"memlock_limit_bytes": 65536}, "low_memlock"),
    ],
)
def test_memory_that_hurts(changes: dict[str, object], code: str) -> None:
    assert codes(with_memory(**changes)) == [code]


@pytest.mark.parametrize(
    "changes",
    [
        {"swap_free_bytes": 0, "swap_total_bytes": 0},  # no swap is fine while there is RAM
        {"available_bytes": 2 * GIB},
        {"limit_bytes": 24 * GIB},
        {"memlock_limit_bytes": None},
        {"psi_some_avg10": 5.0, "psi_full_avg10": 1.0},
    ],
)
def test_memory_that_does_not(changes: dict[str, object]) -> None:
    assert codes(with_memory(**changes)) == []


def test_unknown_memory_is_no_reason_for_advice() -> None:
    assert advise(replace(HEALTHY, memory=HostMemory())) == []


@pytest.mark.parametrize(
    ("cpu", "code"),
    [
        (replace(CPU, simd=("avx",)), ["no_avx2"]),
        (replace(CPU, simd=()), []),
        (replace(CPU, simd=("asimd",), architecture="aarch64"), []),
    ],
)
def test_a_processor_without_avx2(cpu: CpuFacts, code: list[str]) -> None:
    assert codes(replace(HEALTHY, cpu=cpu)) == code


def test_the_worst_comes_first() -> None:
    bad = replace(with_card(state=DeviceState.LOST), memory=replace(MEMORY, memlock_limit_bytes=1, psi_full_avg10=9.0))
    assert [advice.severity for advice in advise(bad)] == ["error", "warning", "info"]


@pytest.mark.parametrize("machine", ["plain", "amd_card", "amd_apu", "arc", "meteor_lake", "server", "vfio"])
def test_healthy_trees_need_no_advice(plant: Callable[..., Path], machine: str) -> None:
    assert advise(hardware.detect(plant(machine), vendor_libraries=False)) == []
