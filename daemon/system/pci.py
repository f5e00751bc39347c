"""Which accelerators are on the bus, told by the kernel alone, without any vendor's library."""

from __future__ import annotations

import grp
import os
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..domain.device import Device, DeviceKind, DeviceNode, DeviceState
from . import drm
from .sysfs import parse_int, parse_pci, parse_table

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .sysfs import Root

_BUS = "sys/bus/pci/devices"
_VENDORS = {0x10DE: "nvidia", 0x1002: "amd", 0x1022: "amd", 0x8086: "intel"}
_LABELS = {"nvidia": "NVIDIA", "amd": "AMD", "intel": "Intel"}
_DISPLAYS = (0x0300, 0x0302, 0x0380)
_ACCELERATOR, _SIGNAL_PROCESSOR = 0x1200, 0x1180
_COMPUTE_DRIVERS = ("nvidia", "amdgpu", "i915", "xe", "intel_vpu", "amdxdna")


@dataclass(frozen=True, slots=True)
class Function:
    """One PCI function as sysfs shows it, with the DRM and accel nodes that belong to it."""

    pci: str
    vendor: str
    ids: str
    driver: str | None
    cards: tuple[str, ...]
    renders: tuple[str, ...]
    accels: tuple[str, ...]
    kind: DeviceKind

    @property
    def folder(self) -> str:
        return f"{_BUS}/{self.pci}"


def scan(root: Root) -> tuple[list[Device], list[str]]:
    """Accelerators by PCI address, numbered per kind, and notes about what was passed over."""
    notes: list[str] = []
    counts: dict[DeviceKind, int] = {}
    devices = []
    for function in functions(root, notes):
        number = counts.get(function.kind, 0)
        counts[function.kind] = number + 1
        devices.append(_device(root, function, f"{function.kind.value}{number}"))
    return devices, notes


def functions(root: Root, notes: list[str] | None = None) -> list[Function]:
    nodes = _class_nodes(root)
    found = []
    for name in sorted(root.names(_BUS)):  # fixed width, so by bus and slot
        pci = parse_pci(name)
        class_code = root.integer(f"{_BUS}/{name}/class")
        if pci is None or class_code is None:
            continue
        function = _function(root, pci, class_code >> 8, nodes.get(pci, ()))
        if function is not None:
            found.append(function)
        elif class_code >> 8 in _DISPLAYS and notes is not None:
            notes.append(f"{pci}: a display adapter that cannot compute")
    return found


def _function(root: Root, pci: str, class_code: int, class_nodes: Iterable[str]) -> Function | None:
    folder = f"{_BUS}/{pci}"
    vendor_id, device_id = root.integer(f"{folder}/vendor") or 0, root.integer(f"{folder}/device") or 0
    # The same nodes twice: from the class folders, and from the device where a container hides those.
    nodes = {*class_nodes, *root.names(f"{folder}/drm"), *root.names(f"{folder}/accel")}
    accels = tuple(sorted(node for node in nodes if re.fullmatch(r"accel\d+", node, re.ASCII)))
    vendor = _VENDORS.get(vendor_id, "other")
    kind = _kind(vendor_id, class_code, bool(accels))
    if kind is None or (vendor == "other" and kind is not DeviceKind.NPU):
        return None
    function = Function(
        pci=pci,
        vendor=vendor,
        ids=f"{vendor_id:04x}:{device_id:04x}",
        driver=root.target(f"{folder}/driver"),
        cards=tuple(sorted(node for node in nodes if re.fullmatch(r"card\d+", node, re.ASCII))),
        renders=tuple(sorted(node for node in nodes if re.fullmatch(r"renderD\d+", node, re.ASCII))),
        accels=accels,
        kind=kind,
    )
    if kind is DeviceKind.GPU and drm.is_integrated(root, folder, vendor, pci):
        return replace(function, kind=DeviceKind.IGPU)
    return function


def _kind(vendor_id: int, class_code: int, has_accel_node: bool) -> DeviceKind | None:
    if class_code in _DISPLAYS:
        return DeviceKind.GPU
    if class_code == _ACCELERATOR:  # MI300 and NVIDIA's newest call themselves this, and so do NPUs
        return DeviceKind.GPU if vendor_id in (0x1002, 0x10DE) else DeviceKind.NPU
    if has_accel_node or (class_code == _SIGNAL_PROCESSOR and vendor_id == 0x1022):
        return DeviceKind.NPU
    return None


def _class_nodes(root: Root) -> dict[str, set[str]]:
    nodes: dict[str, set[str]] = {}
    for folder in ("sys/class/drm", "sys/class/accel"):
        for name in root.names(folder):
            pci = parse_pci(root.target(f"{folder}/{name}/device"))
            if pci is not None:
                nodes.setdefault(pci, set()).add(name)
    return nodes


def _device(root: Root, function: Function, device_id: str) -> Device:
    noun = "NPU" if function.kind is DeviceKind.NPU else "GPU"
    label = _LABELS.get(function.vendor, "Unknown")
    numa = root.integer(f"{function.folder}/numa_node")
    width = root.integer(f"{function.folder}/current_link_width")
    device = Device(
        id=device_id,
        kind=function.kind,
        vendor=function.vendor,
        name=root.text(f"{function.folder}/product_name", 256) or f"{label} {noun} [{function.ids}]",
        pci=function.pci,
        driver=function.driver,
        numa_node=numa if numa is not None and numa >= 0 else None,  # -1: the platform does not say
        pcie_width=width if width and 0 < width <= 32 else None,
        pcie_gts=_link_speed(root.text(f"{function.folder}/current_link_speed", 64)),
        nodes=_nodes(root, function),
    )
    if function.vendor == "nvidia":
        device = _nvidia(root, device)
    elif function.vendor in ("amd", "intel"):
        device = drm.describe(root, device, function.folder, function.cards, function.renders)
    return _judged(root, device)


def _judged(root: Root, device: Device) -> Device:
    """Says what stands in the way, as far as the kernel knows it."""
    if device.driver is None:
        return replace(device, state=DeviceState.NO_DRIVER, detail="no kernel driver is bound to it")
    if device.driver == "vfio-pci":
        return replace(device, state=DeviceState.NO_DRIVER, detail="it is handed to virtual machines (vfio-pci)")
    if device.vendor in _LABELS and device.driver not in _COMPUTE_DRIVERS:
        detail = f"the kernel driver {device.driver} cannot compute"
        return replace(device, state=DeviceState.NO_DRIVER, detail=detail)
    if device.vendor == "nvidia":  # until NVML has answered for it
        return replace(device, state=DeviceState.NO_LIBRARY, detail="present, driver library missing")
    return device


def _nvidia(root: Root, device: Device) -> Device:
    """What the NVIDIA kernel module tells in /proc; memory is not among it."""
    table = parse_table(root.text(f"proc/driver/nvidia/gpus/{device.pci}/information"), ":")
    uuid = table.get("GPU UUID", "")
    return replace(
        device,
        name=table.get("Model") or device.name,
        uuid=uuid if re.fullmatch(r"GPU-[0-9a-f-]{36}", uuid, re.ASCII) else None,
        driver=device.driver or ("nvidia" if table else None),
        driver_version=nvidia_driver_version(root) if table or device.driver == "nvidia" else None,
        nodes=nvidia_nodes(root, parse_int(table.get("Device Minor"))),
    )


def nvidia_driver_version(root: Root) -> str | None:
    text = root.text("proc/driver/nvidia/version") or ""
    match = re.search(r"^NVRM version:.*?\s(\d{3,4}\.\d{1,4}(?:\.\d{1,4})?)\b", text, re.M | re.ASCII)
    return match[1] if match else None


def nvidia_nodes(root: Root, minor: int | None) -> tuple[DeviceNode, ...]:
    own = [] if minor is None else [f"dev/nvidia{minor}"]
    return device_nodes(root, ["dev/nvidiactl", "dev/nvidia-uvm", *own])


def device_nodes(root: Root, paths: Iterable[str]) -> tuple[DeviceNode, ...]:
    nodes = []
    for path in paths:
        try:
            gid = os.stat(root.at(path)).st_gid
        except OSError:
            continue
        nodes.append(DeviceNode(f"/{path}", os.access(root.at(path), os.R_OK | os.W_OK), _group(gid)))
    return tuple(nodes)


def _nodes(root: Root, function: Function) -> tuple[DeviceNode, ...]:
    paths = [f"dev/dri/{name}" for name in function.renders]
    paths += [f"dev/accel/{name}" for name in function.accels]
    if function.driver == "amdgpu":
        paths.insert(0, "dev/kfd")
    return device_nodes(root, paths)


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _link_speed(text: str | None) -> float | None:
    match = re.match(r"(\d{1,3}(?:\.\d{1,2})?) GT/s", text or "", re.ASCII)
    return float(match[1]) if match else None


def nvidia_hinted(root: Root) -> bool:
    """Whether anything speaks for an NVIDIA driver; only then is its library worth loading."""
    hints = ("proc/driver/nvidia", "dev/nvidiactl", "dev/dxg")  # the last one: under WSL2
    return any(root.exists(path) for path in hints)
