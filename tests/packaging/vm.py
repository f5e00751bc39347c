"""A Debian on a kernel of its own, in an emulated machine: its cgroups and its clock are nobody else's.

Slow (nothing is taken to be virtualised), and whole: systemd divides real cgroups there, and the kernel has Landlock.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from typing import TYPE_CHECKING, Any

from inferd.tests.e2e.daemons import until

from . import machine
from .machine import Commands

if TYPE_CHECKING:
    from pathlib import Path

TOOLS = ("qemu-system-x86_64", "mmdebstrap", "mke2fs")
PACKAGES = f"{machine.PACKAGES},linux-image-cloud-amd64"
IMAGE_MIB = 2048
MEMORY_MIB = 2048
BOOT_LIMIT_S = 300.0
COMMAND_LIMIT_S = 240.0
KERNEL_LINE = (
    "root=/dev/vda rw console=ttyS0 quiet systemd.mask=serial-getty@ttyS0.service"  # a getty hangs the console up
)

# Inside, on the second serial line: a command in a line of JSON, what came of it in another one.
AGENT = """\
import json, subprocess, tty
line = open("/dev/ttyS1", "r+b", buffering=0)
tty.setraw(line)
line.write(b"{}\\n")
for raw in iter(line.readline, b""):
    asked = json.loads(raw)
    try:
        done = subprocess.run(asked["command"], env=asked["env"], capture_output=True, text=True, errors="replace",
                              stdin=subprocess.DEVNULL, timeout=asked["limit_s"])
        said = [done.returncode, done.stdout, done.stderr]
    except Exception as error:
        said = [-1, "", str(error)]
    rest = memoryview(json.dumps(said).encode() + b"\\n")
    while rest:
        rest = rest[line.write(rest):]
"""
AGENT_UNIT = """\
[Unit]
After=multi-user.target
[Service]
ExecStart=/usr/bin/python3 -I /root/agent.py
[Install]
WantedBy=multi-user.target
"""


def missing() -> str | None:
    """Why no machine can be emulated here."""
    if os.geteuid() != 0:
        return "only root makes a root file system with all its owners"
    absent = [tool for tool in TOOLS if shutil.which(tool) is None]
    return f"not installed: {', '.join(absent)} (apt install qemu-system-x86 mmdebstrap e2fsprogs)" if absent else None


def rootfs(minor: int) -> Path:
    """As the container's, with a kernel."""
    return machine.debian(f"rootfs-vm-{machine.SUITES[minor]}", machine.SUITES[minor], PACKAGES)


class Vm(Commands):
    """Booted with the package in /root/inferd.deb, and on no network."""

    def __init__(self, source: Path, package: Path, folder: Path) -> None:
        image = self._image(source, package, folder)
        (kernel,), (initrd,) = source.glob("boot/vmlinuz-*"), source.glob("boot/initrd.img-*")
        wire, self.log = folder / "wire.sock", folder / "console.log"
        command = [
            "qemu-system-x86_64",
            "-accel",
            "tcg,thread=multi",
            "-cpu",
            "max",
            "-smp",
            "2",
            "-m",
            f"{MEMORY_MIB}",
        ]
        command += ["-display", "none", "-nic", "none", "-no-reboot", "-serial", f"file:{self.log}"]
        command += ["-serial", f"unix:{wire},server=on,wait=off", "-kernel", str(kernel), "-initrd", str(initrd)]
        command += ["-append", KERNEL_LINE, "-drive", f"file={image},if=virtio,format=raw"]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        until(wire.exists)
        self._wire = socket.socket(socket.AF_UNIX)
        self._wire.connect(str(wire))
        self._lines = self._wire.makefile("rb")
        self._wire.settimeout(BOOT_LIMIT_S)
        assert self._lines.readline() == b"{}\n", self.log.read_text(errors="replace")

    @staticmethod
    def _image(source: Path, package: Path, folder: Path) -> Path:
        root, image = folder / "root", folder / "disk.img"
        subprocess.run(["cp", "-a", "--reflink=auto", f"{source}/.", root], check=True)
        shutil.copy(package, root / "root" / "inferd.deb")
        (root / "root" / "agent.py").write_text(AGENT)
        (root / "etc/systemd/system/agent.service").write_text(AGENT_UNIT)
        (root / "etc/systemd/system/multi-user.target.wants/agent.service").symlink_to(
            "/etc/systemd/system/agent.service"
        )
        subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", root, image, f"{IMAGE_MIB}M"], check=True)
        shutil.rmtree(root)
        return image

    def call(self, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", **variables}
        asked = {"command": command, "env": environment, "limit_s": COMMAND_LIMIT_S}
        self._wire.settimeout(COMMAND_LIMIT_S * 2)
        self._wire.sendall(json.dumps(asked).encode() + b"\n")
        code, out, err = json.loads(self._lines.readline())
        return subprocess.CompletedProcess(command, code, out, err)

    def close(self) -> None:
        """Cut off: nothing of it is kept."""
        self.process.kill()
        self.process.wait()
        self._lines.close()
        self._wire.close()

    def __enter__(self) -> Vm:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()
