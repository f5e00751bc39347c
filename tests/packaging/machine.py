"""A Debian of its own with a booted systemd, in a container of systemd-nspawn."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from inferd.tests.e2e.daemons import is_serving, until

BUILD = Path(__file__).parents[2] / "build"
SUITES = {11: "bookworm", 13: "trixie"}  # by the minor version of their Python
PACKAGES = "systemd,systemd-sysv,dbus,dbus-user-session,libpam-systemd,python3,iproute2,procps,libgomp1,libstdc++6"
TOOLS = ("systemd-nspawn", "mmdebstrap", "nsenter", "dpkg-deb")
BOOT_LIMIT_S = 60.0
STOP_LIMIT_S = 60.0


def missing() -> str | None:
    """Why no machine can be booted here."""
    if os.geteuid() != 0:
        return "only root can boot a container"
    absent = [tool for tool in TOOLS if shutil.which(tool) is None]
    return f"not installed: {', '.join(absent)} (apt install systemd-container mmdebstrap)" if absent else None


def rootfs(minor: int) -> Path:
    """A Debian whose Python has this minor version."""
    return debian(f"rootfs-{SUITES[minor]}", SUITES[minor], PACKAGES)


def debian(name: str, suite: str, packages: str) -> Path:
    """A root file system, made once and kept in build/."""
    folder = BUILD / name
    if not folder.exists():
        unfinished = folder.with_suffix(".new")
        shutil.rmtree(unfinished, ignore_errors=True)
        command = ["mmdebstrap", "--variant=minbase", f"--include={packages}", suite, str(unfinished)]
        subprocess.run(command, check=True, capture_output=True, text=True)
        unfinished.rename(folder)
    return folder


class Commands(ABC):
    """What is said to a booted machine."""

    @abstractmethod
    def call(self, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """A command inside, as root, with these variables in its environment."""

    def run(self, *command: str, check: bool = True) -> str:
        """What a command inside says, as root."""
        done = self.call(*command)
        assert done.returncode == 0 or not check, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def as_user(self, name: str, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """A command of somebody who is not root."""
        return self.call("runuser", "-u", name, "--", *command, **variables)

    def property(self, name: str) -> str:
        """One of systemd's words about the service."""
        return self.run("systemctl", "show", "inferd", "--value", f"--property={name}")

    def journal(self) -> str:
        return self.run("journalctl", "-u", "inferd", "-n", "60", "--no-pager", "-o", "cat", check=False)


class Machine(Commands):
    """One booted copy of a root file system, on no network."""

    def __init__(self, source: Path, folder: Path) -> None:
        self.root = folder / "root"
        # By its content: a link to the kept one would be booted itself.
        subprocess.run(["cp", "-a", "--reflink=auto", f"{source}/.", self.root], check=True)
        self.log = folder / "console.log"
        command = ["systemd-nspawn", "-q", "-D", str(self.root), f"--machine=inferd-{os.getpid()}", "-b"]
        command += ["--register=no", "--keep-unit", "--private-network", "--console=pipe"]
        # cgroups as v2 alone, as on any machine with this systemd.
        environment = {**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"}
        with self.log.open("wb") as sink:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, env=environment, start_new_session=True
            )
        self.leader = 0
        until(self._booted, BOOT_LIMIT_S)

    def _booted(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        with contextlib.suppress(FileNotFoundError):
            path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
            self.leader = int((path.read_text().split() or ["0"])[0])
        return bool(self.leader) and self.run("systemctl", "is-system-running", check=False) in ("running", "degraded")

    def call(self, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", **variables}
        entered = ["nsenter", "-t", str(self.leader), "-a", *command]
        return subprocess.run(entered, capture_output=True, text=True, env=environment, timeout=120, check=False)

    def is_serving(self) -> bool:
        """Whether the daemon inside answers on its socket, without starting a program for that."""
        socket = Path(f"/proc/{self.leader}/root/run/inferd/inferd.sock")
        with contextlib.suppress(OSError):
            return socket.exists() and is_serving(f"unix:{socket}")
        return False

    def wait_until_serving(self, limit_s: float = 60.0) -> float:
        try:
            return until(self.is_serving, limit_s)
        except AssertionError:
            raise AssertionError(self.run("systemctl", "status", "inferd", check=False) + self.journal()) from None

    def close(self) -> None:
        """Switched off; a machine that hangs is killed with its container."""
        self.call("systemctl", "poweroff")
        try:
            self.process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()
