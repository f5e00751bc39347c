"""A daemon of our own for one probe: its config, its start, its end."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Iterator

START_LIMIT_S = 30.0
STOP_LIMIT_S = 15.0
POLL_S = 0.002


@dataclass(frozen=True, slots=True)
class Daemon:
    """A daemon that serves."""

    address: str
    pid: int
    start_s: float  # from the start of the process to SERVING

    def rss_bytes(self) -> int:
        """Resident memory of the daemon's process alone."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise RuntimeError(f"process {self.pid} is gone")


@contextlib.contextmanager
def running(config: str = "", home: Path | None = None) -> Iterator[Daemon]:
    """Run `inferd serve` with this TOML (without its address) in a folder of its own, or in `home`."""
    with contextlib.ExitStack() as stack:
        folder = str(home or stack.enter_context(tempfile.TemporaryDirectory(prefix="inferd-bench-")))
        socket, log = Path(folder) / "d.sock", Path(folder) / "log"
        path = Path(folder) / "inferd.toml"
        path.write_text(config)
        command = [str(Path(sys.executable).with_name("inferd")), "serve", "--log-level", "warning"]
        command += ["--config", str(path), "--address", f"unix:{socket}"]
        with log.open("wb") as sink:
            start_s = time.monotonic()
            # Nothing learned or computed elsewhere.
            environment = {**os.environ, "XDG_STATE_HOME": folder, "XDG_CACHE_HOME": folder}
            process = subprocess.Popen(command, stdout=sink, stderr=sink, env=environment)
        try:
            wait_serving(process, socket, log)
            yield Daemon(f"unix:{socket}", process.pid, time.monotonic() - start_s)
        finally:
            end(process)


def wait_serving(process: subprocess.Popen[bytes], socket: Path, log: Path) -> None:
    """Until grpc.health says SERVING."""
    limit_s = time.monotonic() + START_LIMIT_S
    while time.monotonic() < limit_s:
        if process.poll() is not None:
            raise RuntimeError(f"the daemon ended with {process.returncode}: {log.read_text()[-2000:]}")
        if socket.exists() and is_serving(f"unix:{socket}"):
            return
        time.sleep(POLL_S)
    raise RuntimeError(f"the daemon does not serve after {START_LIMIT_S:g} s")


def is_serving(address: str) -> bool:
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.default_authority", "localhost")]
    with grpc.insecure_channel(address, options=options) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=1.0)
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask, then make sure."""
    process.terminate()
    try:
        process.wait(STOP_LIMIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def fake_config(model: Path, tokens_per_s: float = 0.0) -> str:
    """This model on the fake engine, with room for 32 streams."""
    return f"""
[models]
folders = ["{model.parent}"]
[models.defaults]
slots = 32
context_tokens = 65536
keep_alive_s = -1
[fake]
enabled = true
tokens_per_s = {tokens_per_s}
"""
