"""Machines that do not exist: small trees of /proc, /sys and /dev, and a false NVIDIA library."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Mapping

GIB = 1 << 30
DATA = Path(__file__).parent / "data"
PCI = "sys/devices/pci0000:00"

BASE: dict[str, str] = {
    "proc/meminfo": "MemTotal: 33554432 kB\nMemFree: 8388608 kB\nMemAvailable: 25165824 kB\n"
    "SwapTotal: 8388608 kB\nSwapFree: 8388608 kB\n",
    "proc/cpuinfo": "processor : 0\nvendor_id : GenuineIntel\nmodel name : Fake(R) Core(TM)\n"
    "flags : fpu sse4_2 avx f16c fma avx2 avx_vnni\n",
    "proc/self/status": "Name:\tpython\nCapEff:\t0000000000000000\nCpus_allowed_list:\t0-7\n",
    "proc/self/limits": "Max locked memory         8388608              8388608              bytes     \n",
    "proc/self/cgroup": "0::/\n",
    "proc/pressure/memory": "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"
    "full avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
    "proc/stat": "cpu  100 0 100 700 100 0 0 0 0 0\n",
    "sys/fs/cgroup/cgroup.controllers": "cpuset cpu memory\n",
    "sys/devices/system/cpu/online": "0-7\n",
    **{f"sys/devices/system/cpu/cpu{n}/topology/core_cpus_list": f"{n // 2 * 2}-{n // 2 * 2 + 1}\n" for n in range(8)},
    **{f"sys/devices/system/cpu/cpu{n}/cache/index3/shared_cpu_list": "0-7\n" for n in range(8)},
    **{f"sys/devices/system/cpu/cpu{n}/cache/index3/size": "24576K\n" for n in range(8)},
    "sys/devices/system/node/node0/cpulist": "0-7\n",
    "sys/devices/system/node/node0/meminfo": "Node 0 MemTotal:       33554432 kB\n",
}


def function(pci: str, class_code: str, vendor: str, device: str, driver: str | None, **files: str) -> dict[str, str]:
    """The files of one PCI function; `->` marks a link."""
    tree = {
        f"{PCI}/{pci}/class": class_code,
        f"{PCI}/{pci}/vendor": vendor,
        f"{PCI}/{pci}/device": device,
        f"{PCI}/{pci}/numa_node": "-1",
        f"sys/bus/pci/devices/{pci}": f"-> ../../../devices/pci0000:00/{pci}",
        **{f"{PCI}/{pci}/{name.replace('__', '/')}": content for name, content in files.items()},
    }
    if driver is not None:
        tree[f"sys/bus/pci/drivers/{driver}/module"] = ""
        tree[f"{PCI}/{pci}/driver"] = f"-> ../../../bus/pci/drivers/{driver}"
    return tree


def drm_nodes(pci: str, card: int, render: int) -> dict[str, str]:
    tree = {f"dev/dri/renderD{render}": ""}
    for node in (f"card{card}", f"renderD{render}"):
        tree[f"{PCI}/{pci}/drm/{node}/dev"] = "226:0"
        tree[f"{PCI}/{pci}/drm/{node}/device"] = f"-> ../../../{pci}"
        tree[f"sys/class/drm/{node}"] = f"-> ../../devices/pci0000:00/{pci}/drm/{node}"
    return tree


AMD_CARD = {
    **function(
        *("0000:03:00.0", "0x030000", "0x1002", "0x744c", "amdgpu"),
        product_name="Radeon RX 7900 XTX",
        unique_id="61b5cafe00112233",
        mem_info_vram_total=str(24 * GIB),
        mem_info_vram_used=str(2 * GIB),
        mem_info_gtt_total=str(16 * GIB),
        gpu_busy_percent="42",
        gpu_metrics="\x78\x00\x01\x03....",
        current_link_speed="16.0 GT/s PCIe",
        current_link_width="16",
        hwmon__hwmon4__temp1_input="51000",
        hwmon__hwmon4__power1_average="87000000",
        hwmon__hwmon4__power1_cap="355000000",
        hwmon__hwmon4__freq1_input="2304000000",
        hwmon__hwmon4__freq2_input="1249000000",
    ),
    **drm_nodes("0000:03:00.0", 1, 128),
    "sys/class/kfd/kfd/topology/nodes/0/properties": "cpu_cores_count 16\ngfx_target_version 0\n",
    "sys/class/kfd/kfd/topology/nodes/1/properties": "gfx_target_version 110000\ndrm_render_minor 128\n",
    "dev/kfd": "",
}
AMD_APU = {
    **function(
        *("0000:c4:00.0", "0x030000", "0x1002", "0x150e", "amdgpu"),
        mem_info_vram_total=str(GIB // 2),
        mem_info_vram_used=str(GIB // 4),
        mem_info_gtt_total=str(14 * GIB),
        gpu_metrics="\x78\x00\x03\x00....",
    ),
    **function("0000:c5:00.1", "0x118000", "0x1022", "0x17f0", "amdxdna"),
    **drm_nodes("0000:c4:00.0", 0, 128),
    f"{PCI}/0000:c5:00.1/accel/accel0/dev": "261:0",
    "dev/accel/accel0": "",
}
ARC = {
    **function(
        *("0000:04:00.0", "0x030000", "0x8086", "0xe20b", "xe"),
        tile0__physical_vram_size_bytes=hex(12 * GIB),
        tile0__gt0__freq0__act_freq="2400",
        tile0__gt0__freq0__max_freq="2850",
        hwmon__hwmon2__energy1_input="9000000",
    ),
    **drm_nodes("0000:04:00.0", 0, 128),
}
METEOR_LAKE = {
    **function("0000:00:02.0", "0x030000", "0x8086", "0x7d55", "i915"),
    **drm_nodes("0000:00:02.0", 0, 128),
    f"{PCI}/0000:00:02.0/drm/card0/gt/gt0/rps_act_freq_mhz": "800",
    f"{PCI}/0000:00:02.0/drm/card0/gt/gt0/rps_max_freq_mhz": "2250",
    **function(
        *("0000:00:0b.0", "0x120000", "0x8086", "0x7d1d", "intel_vpu"),
        npu_busy_time_us="1000000",
        npu_memory_utilization=str(64 << 20),
        npu_current_frequency_mhz="1400",
    ),
    "sys/class/accel/accel0/device": "-> ../../../devices/pci0000:00/0000:00:0b.0",
    "dev/accel/accel0": "",
    "sys/devices/cpu_core/cpus": "0-3\n",
    "sys/devices/cpu_atom/cpus": "4-7\n",
}


def nvidia(pci: str, minor: int) -> dict[str, str]:
    return {
        **function(pci, "0x030200", "0x10de", "0x2330", "nvidia"),
        f"proc/driver/nvidia/gpus/{pci}/information": "Model: \t\t NVIDIA Proc 80GB\nIRQ: 1\nGPU UUID: \t "
        f"GPU-0000000{minor + 1}-0000-0000-0000-000000000000\nDevice Minor: \t {minor}\n",
        f"dev/nvidia{minor}": "",
    }


TWO_NVIDIA = {
    **nvidia("0000:01:00.0", 0),
    **nvidia("0000:02:00.0", 1),
    "proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  575.57.08  Release\n",
    "dev/nvidiactl": "",
    "dev/nvidia-uvm": "",
}
DUAL_NUMA = {
    "sys/devices/system/node/node0/cpulist": "0-3\n",
    "sys/devices/system/node/node1/cpulist": "4-7\n",
    "sys/devices/system/node/node1/meminfo": "Node 1 MemTotal:       33554432 kB\n",
    **{
        f"sys/devices/system/cpu/cpu{n}/cache/index3/shared_cpu_list": f"{n // 4 * 4}-{n // 4 * 4 + 3}"
        for n in range(8)
    },
    **function("0000:81:00.0", "0x030200", "0x10de", "0x2330", "nouveau", local_cpulist="4-7"),
    f"{PCI}/0000:81:00.0/numa_node": "1",
}
MACHINES: dict[str, dict[str, str]] = {
    "plain": {},
    "amd_card": AMD_CARD,
    "amd_apu": AMD_APU,
    "arc": ARC,
    "meteor_lake": METEOR_LAKE,
    "two_nvidia": TWO_NVIDIA,
    "dual_numa": DUAL_NUMA,
    # A container that hides the class folders and every device node.
    "container": {
        path: content for path, content in AMD_CARD.items() if not path.startswith(("sys/class/drm", "dev/"))
    },
    "server": function("0000:02:00.0", "0x030000", "0x1a03", "0x2000", "ast"),
    "vfio": function("0000:01:00.0", "0x030000", "0x10de", "0x2684", "vfio-pci"),
}


def write_tree(root: Path, tree: Mapping[str, str | None]) -> Path:
    for path, content in tree.items():
        if content is None:
            continue
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if content.startswith("-> "):
            target.symlink_to(content[3:])
        else:
            target.write_bytes(content.encode("latin-1"))
    return root


def build_nvml(folder: Path) -> Path:
    """Put our libnvidia-ml.so.1 into a folder."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    command = [compiler, "-shared", "-fPIC", "-Wl,-soname,libnvidia-ml.so.1"]
    command += ["-o", str(folder / "libnvidia-ml.so.1"), str(DATA / "fake_nvml.c")]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return folder
