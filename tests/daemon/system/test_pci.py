"""What the kernel alone says about accelerators."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from inferd.daemon.domain.device import DeviceKind, DeviceNode, DeviceState
from inferd.daemon.system import pci
from inferd.daemon.system.sysfs import Root

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

GIB = 1 << 30


def test_an_amd_card(plant: Callable[..., Path]) -> None:
    (card,), notes = pci.scan(Root(plant("amd_card")))
    assert (card.id, card.kind, card.vendor, card.name) == ("gpu0", DeviceKind.GPU, "amd", "Radeon RX 7900 XTX")
    assert (card.state, card.driver, card.pci) == (DeviceState.OK, "amdgpu", "0000:03:00.0")
    assert (card.memory_total_bytes, card.shared_memory_bytes) == (24 * GIB, 16 * GIB)
    assert (card.architecture, card.uuid) == ("gfx1100", "GPU-61b5cafe00112233")
    assert (card.pcie_width, card.pcie_gts, card.numa_node) == (16, 16.0, None)
    assert [node.path for node in card.nodes] == ["/dev/kfd", "/dev/dri/renderD128"]
    assert notes == []


def test_a_container_that_hides_the_class_folders(plant: Callable[..., Path]) -> None:
    (card,), _ = pci.scan(Root(plant("container")))
    assert (card.architecture, card.memory_total_bytes, card.nodes) == ("gfx1100", 24 * GIB, ())


def test_an_apu_shares_the_hosts_memory(plant: Callable[..., Path]) -> None:
    (apu, npu), _ = pci.scan(Root(plant("amd_apu")))
    assert (apu.id, apu.kind, apu.memory_total_bytes) == ("igpu0", DeviceKind.IGPU, GIB // 2)
    assert apu.shared_memory_bytes == 14 * GIB
    assert (npu.id, npu.vendor, npu.driver) == ("npu0", "amd", "amdxdna")
    assert [node.path for node in npu.nodes] == ["/dev/accel/accel0"]


def test_an_apu_without_metrics_is_told_by_its_memory(plant: Callable[..., Path]) -> None:
    metrics = "sys/devices/pci0000:00/0000:c4:00.0/gpu_metrics"
    (apu, _), _ = pci.scan(Root(plant("amd_apu", {metrics: "?"})))
    assert apu.kind is DeviceKind.IGPU


def test_an_arc_card(plant: Callable[..., Path]) -> None:
    (card,), _ = pci.scan(Root(plant("arc")))
    assert (card.kind, card.driver, card.memory_total_bytes) == (DeviceKind.GPU, "xe", 12 * GIB)
    assert card.name == "Intel GPU [8086:e20b]"


def test_a_laptop_with_an_npu(plant: Callable[..., Path]) -> None:
    (igpu, npu), _ = pci.scan(Root(plant("meteor_lake")))
    assert (igpu.id, igpu.driver, igpu.memory_total_bytes) == ("igpu0", "i915", None)
    assert (npu.id, npu.kind, npu.driver, npu.pci) == ("npu0", DeviceKind.NPU, "intel_vpu", "0000:00:0b.0")


def test_nvidia_without_its_library(plant: Callable[..., Path]) -> None:
    root = Root(plant("two_nvidia"))
    first, second = pci.scan(root)[0]
    assert (first.id, second.id, first.name) == ("gpu0", "gpu1", "NVIDIA Proc 80GB")
    assert (first.state, first.detail) == (DeviceState.NO_LIBRARY, "present, driver library missing")
    assert (first.driver_version, first.memory_total_bytes) == ("575.57.08", None)
    assert second.uuid == "GPU-00000002-0000-0000-0000-000000000000"
    assert [node.path for node in second.nodes] == ["/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia1"]
    assert pci.nvidia_hinted(root)


@pytest.mark.parametrize(
    ("machine", "detail"),
    [
        ("dual_numa", "the kernel driver nouveau cannot compute"),
        ("vfio", "it is handed to virtual machines (vfio-pci)"),
    ],
)
def test_a_driver_that_is_not_for_computing(plant: Callable[..., Path], machine: str, detail: str) -> None:
    root = Root(plant(machine))
    (card,), _ = pci.scan(root)
    assert (card.state, card.detail) == (DeviceState.NO_DRIVER, detail)
    assert not pci.nvidia_hinted(root)


def test_no_driver_at_all(plant: Callable[..., Path]) -> None:
    (card,), _ = pci.scan(Root(plant("vfio", {"sys/devices/pci0000:00/0000:01:00.0/driver": None})))
    assert card.state is DeviceState.NO_DRIVER


def test_where_a_card_sits(plant: Callable[..., Path]) -> None:
    root = Root(plant("dual_numa"))
    (card,), _ = pci.scan(root)
    assert card.numa_node == 1


def test_a_servers_console_chip_is_passed_over(plant: Callable[..., Path]) -> None:
    assert pci.scan(Root(plant("server"))) == ([], ["0000:02:00.0: a display adapter that cannot compute"])


def test_a_node_that_this_user_may_not_open(plant: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    # Tests may run as root, whom no mode stops.
    monkeypatch.setattr(os, "access", lambda path, mode: not str(path).endswith("kfd"))
    (card,), _ = pci.scan(Root(plant("amd_card")))
    kfd, render = card.nodes
    assert (kfd.accessible, render.accessible) == (False, True)
    assert isinstance(kfd, DeviceNode)
    assert kfd.group


@pytest.mark.parametrize("file", ["class", "vendor", "numa_node", "current_link_width", "mem_info_vram_total"])
def test_garbage_never_raises(plant: Callable[..., Path], file: str) -> None:
    root = plant("amd_card", {"sys/bus/pci/devices/junk/class": "0x030000"})
    for content in (b"", b"\xff\xfe\x00", b"-5", b"99999999999999999999999", b"0x", b"0x030000"):
        (root / f"sys/bus/pci/devices/0000:03:00.0/{file}").write_bytes(content)
        devices, _ = pci.scan(Root(root))
        assert len(devices) <= 1


def test_nothing_at_all(tmp_path: Path) -> None:
    assert pci.scan(Root(tmp_path)) == ([], [])
