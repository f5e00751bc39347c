"""Detection and readings, from the files up to the joined whole."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from inferd.daemon.domain.device import Device, DeviceKind, DeviceState, HostLoad
from inferd.daemon.system import hardware

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Run = Callable[..., Any]

GIB = 1 << 30


@pytest.mark.parametrize(
    ("machine", "ids"),
    [
        ("plain", ["cpu"]),
        ("amd_card", ["cpu", "gpu0"]),
        ("amd_apu", ["cpu", "igpu0", "npu0"]),
        ("arc", ["cpu", "gpu0"]),
        ("meteor_lake", ["cpu", "igpu0", "npu0"]),
        ("two_nvidia", ["cpu", "gpu0", "gpu1"]),
        ("server", ["cpu"]),
    ],
)
def test_every_machine(plant: Callable[..., Path], machine: str, ids: list[str]) -> None:
    found = hardware.detect(plant(machine), vendor_libraries=False)
    assert [device.id for device in found.devices] == ids
    assert found.backends is None
    sensors = hardware.Sensors(found, plant(machine))
    _, readings = sensors.read()
    sensors.close()
    assert [reading.device_id for reading in readings] == ids


def test_the_processor_is_a_device_as_large_as_its_cgroup(plant: Callable[..., Path]) -> None:
    limited = {"sys/fs/cgroup/box/memory.max": str(4 * GIB), "proc/self/cgroup": "0::/box\n"}
    (cpu,) = hardware.detect(plant("plain", limited)).devices
    assert (cpu.id, cpu.kind, cpu.name) == ("cpu", DeviceKind.CPU, "Fake(R) Core(TM)")
    assert cpu.memory_total_bytes == 4 * GIB


def test_readings_follow_the_files(plant: Callable[..., Path]) -> None:
    root = plant("meteor_lake", {})  # our own copy, to write into
    found = hardware.detect(root)
    sensors = hardware.Sensors(found, root)
    _, (before, *_) = sensors.read()
    assert (before.utilization, before.used_bytes, before.free_bytes) == (None, 8 * GIB, 24 * GIB)
    (root / "proc/stat").write_text("cpu  150 0 150 800 100 0 0 0 0 0\n")
    (root / "proc/meminfo").write_text(f"MemTotal: {32 << 20} kB\nMemAvailable: {4 << 20} kB\n")
    (root / "sys/devices/pci0000:00/0000:00:0b.0/npu_busy_time_us").write_text("999999999999")
    memory, (cpu, _, npu) = sensors.read()
    assert (cpu.utilization, cpu.free_bytes, memory.available_bytes) == (0.5, 4 * GIB, 4 * GIB)
    assert npu.utilization == 1.0
    sensors.close()


def test_what_tasks_and_nodes_say_is_read_with_the_sensors(plant: Callable[..., Path]) -> None:
    files: dict[str, str | None] = {
        "proc/pressure/cpu": "some avg10=12.50 avg60=0.00\n",
        "sys/devices/system/node/node0/meminfo": "Node 0 MemTotal: 2048 kB\nNode 0 MemFree: 1024 kB\n",
    }
    root = plant("plain", files)
    sensors = hardware.Sensors(hardware.detect(root), root)
    assert sensors.load == HostLoad()
    sensors.read()
    assert sensors.load == HostLoad(psi_cpu_some_avg10=12.5, numa_free_bytes=((0, 1 << 20),))


def test_the_packages_energy_becomes_power(plant: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    zone = "sys/class/powercap/intel-rapl:0"
    root = plant("plain", {f"{zone}/name": "package-0\n", f"{zone}/energy_uj": "5000000"})
    sensors = hardware.Sensors(hardware.detect(root), root)
    (before,) = sensors.read(now_s=10.0)[1]
    (root / zone / "energy_uj").write_text("65000000")
    (after,) = sensors.read(now_s=12.0)[1]
    assert (before.power_watts, after.power_watts, after.energy_joules) == (None, 30.0, 60.0)


def test_our_workers_memory_on_an_amd_card(plant: Callable[..., Path]) -> None:
    fdinfo = "drm-pdev:\t0000:03:00.0\ndrm-client-id:\t1\ndrm-memory-vram:\t1024 KiB\n"
    root = plant("amd_card", {"proc/11/fdinfo/3": fdinfo})
    sensors = hardware.Sensors(hardware.detect(root), root)
    assert sensors.read([11])[1][1].processes == ((11, 1 << 20),)
    assert sensors.read()[1][1].processes == ()


def test_nvidia_is_joined_by_address(plant: Callable[..., Path], with_nvml: Run) -> None:
    script = (
        "import sys\nfrom inferd.daemon.system import hardware\nworld('gpus 2')\n"
        "found = hardware.detect(sys.argv[1])\nsensors = hardware.Sensors(found, sys.argv[1])\n"
        "first = [asdict(reading) for reading in sensors.read()[1]]\nworld('gpus 2\\ngpu 1 15')\n"
        "second = [asdict(reading) for reading in sensors.read()[1]]\nsensors.close()\n"
        "answer({'devices': [asdict(device) for device in found.devices], 'first': first, 'second': second})"
    )
    told = with_nvml(script, plant("two_nvidia"))
    _, first, second = told["devices"]
    assert (first["name"], first["state"], first["pci"]) == ("NVIDIA Fake 80GB", "ok", "0000:01:00.0")
    assert [node["path"] for node in second["nodes"]] == ["/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia1"]
    assert [reading["state"] for reading in told["first"]] == ["ok", "ok", "ok"]
    assert [reading["state"] for reading in told["second"]] == ["ok", "ok", "lost"]
    assert told["second"][2]["total_bytes"] == 81920 << 20
    assert [reading["detail"] for reading in told["second"]] == [None, None, "the GPU fell off the bus"]


def test_a_driver_of_another_version_is_noted(plant: Callable[..., Path], with_nvml: Run) -> None:
    script = (
        "import sys\nfrom inferd.daemon.system import hardware\nworld('init 18')\n"
        "found = hardware.detect(sys.argv[1])\nanswer([found.devices[1].state, *found.notes])"
    )
    state, note = with_nvml(script, plant("two_nvidia"))
    assert state == "mismatch"
    assert note.startswith("NVML: ")


def test_ids_go_by_address_whoever_found_the_device() -> None:
    def device(pci: str | None, **more: Any) -> Device:
        return Device(**{"id": "gpu0", "kind": DeviceKind.GPU, "vendor": "nvidia", "name": "", "pci": pci, **more})

    part = device("0000:02:00.0", id="gpu5.mig3", parent="gpu5")
    found = [part, device("0000:02:00.0", id="gpu5"), device(None), device("0000:01:00.0", vendor="amd")]
    names = [(each.id, each.pci, each.parent) for each in hardware.numbered(found)]
    assert names == [
        ("gpu0", "0000:01:00.0", None),
        ("gpu1", "0000:02:00.0", None),
        ("gpu1.mig3", "0000:02:00.0", "gpu1"),
        ("gpu2", None, None),
    ]


def test_a_library_is_opened_again_only_after_a_while(plant: Callable[..., Path], with_nvml: Run) -> None:
    script = (
        "import sys\nfrom inferd.daemon.system import hardware\nworld('init 9')\n"
        "found = hardware.detect(sys.argv[1])\nsensors = hardware.Sensors(found, sys.argv[1])\nseen = []\n"
        "for now, text in ((1, 'init 9'), (10, 'gpus 2'), (40, 'gpus 2')):\n"
        "    world(text)\n    seen.append(sensors.read(now_s=now)[1][1].state)\n"
        "answer(seen)"
    )
    assert with_nvml(script, plant("two_nvidia")) == ["no_driver", "no_driver", "ok"]


def test_a_card_without_driver_is_not_asked(plant: Callable[..., Path]) -> None:
    root = plant("dual_numa")
    sensors = hardware.Sensors(hardware.detect(root), root)
    assert sensors.read()[1][1].state is DeviceState.NO_DRIVER


def test_importing_loads_no_heavy_library() -> None:
    code = "import sys, inferd.daemon.system.hardware as h; h.detect(); print(*sys.modules)"
    environment = {**os.environ, "INFERD_SYSROOT": "/nonexistent"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    assert not {"pynvml", "llama_cpp", "onnxruntime", "numpy"} & set(done.stdout.split())
