"""A real daemon process on a real socket, seen from outside."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from inferd import Client
from inferd.protos import inferd_pb2 as pb
from inferd.protos import inferd_pb2_grpc as stubs

if TYPE_CHECKING:
    from collections.abc import Callable

LIMIT_S = 60.0  # for what has no limit of its own; takes a small part of it, but machines can be busy
POLL_S = 0.005


def until(condition: Callable[[], Any], limit_s: float = LIMIT_S) -> float:
    """Poll until the condition holds; the seconds it took."""
    start_s = time.monotonic()
    while not condition():
        if time.monotonic() - start_s > limit_s:
            raise AssertionError(f"not within {limit_s} s")
        time.sleep(POLL_S)
    return time.monotonic() - start_s


def best_of(measure: Callable[[], float], limit_s: float, tries: int = 3) -> float:
    """The best of some tries, ended by the first within the limit: a promise in milliseconds on a busy machine."""
    best_s = measure()
    for _ in range(tries - 1):
        if best_s < limit_s:
            break
        best_s = min(best_s, measure())
    return best_s


def children(pid: int) -> list[int]:
    """Pids below one process."""
    found: list[int] = []
    with contextlib.suppress(FileNotFoundError):
        for task in os.listdir(f"/proc/{pid}/task"):
            text = Path(f"/proc/{pid}/task/{task}/children").read_text()
            found += [int(word) for word in text.split()]
    return found


def alive(pid: int) -> bool:
    """A zombie whose parent has not looked yet is dead."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


@dataclass
class Daemon:
    """One running daemon; `stubs` speak to it raw, `client` as users do."""

    process: subprocess.Popen[bytes]
    socket: Path
    log: Path
    client: Client = field(init=False)
    channel: grpc.Channel = field(init=False)

    def __post_init__(self) -> None:
        self.client = Client(self.address)
        self.channel = dial(self.address)

    @property
    def address(self) -> str:
        return f"unix:{self.socket}"

    @property
    def inference(self) -> Any:
        return stubs.InferenceStub(self.channel)

    def close(self) -> None:
        self.client.close()
        self.channel.close()

    def snapshot(self) -> pb.Snapshot:
        return self.client.snapshot()

    def model(self, name: str) -> pb.ModelState | None:
        return next((model for model in self.snapshot().models if model.name == name), None)

    def live(self) -> dict[str, str]:
        """State by request id."""
        return {request.id: request.state for request in self.snapshot().requests}

    def idle(self) -> bool:
        """Nothing lives and every slot is free."""
        snapshot = self.snapshot()
        return not snapshot.requests and not any(model.running or model.waiting for model in snapshot.models)

    def worker_pid(self, name: str) -> int:
        model = self.model(name)
        assert model is not None
        assert model.pid
        return model.pid

    def rss_bytes(self) -> int:
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("the daemon is gone")

    def terminate(self) -> int:
        """SIGTERM; its exit code. No child may be left."""
        below = children(self.process.pid)
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(LIMIT_S)
        until(lambda: not any(alive(pid) for pid in below), 1.0)
        return code


def dial(address: str) -> grpc.Channel:
    """A stock channel: no option of ours but what a Unix socket needs."""
    options = [
        ("grpc.default_authority", "localhost"),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.max_send_message_length", -1),
    ]
    return grpc.insecure_channel(address, options=options)


def is_serving(address: str) -> bool:
    with dial(address) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=2.0)
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "inferd.daemon.cli.app", "serve", *map(str, arguments)]


def environment(home: Path) -> dict[str, str]:
    """Nothing of the person who runs the tests: no config, no address."""
    theirs = ("INFERD_", "XDG_", "STATE_", "CACHE_", "LOGS_", "CREDENTIALS_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(theirs)}
    return {**kept, "HOME": str(home)}


@dataclass
class Launcher:
    """Starts daemons in one folder, whose models are in `models`."""

    folder: Path
    daemons: list[Daemon] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)  # beside what every daemon gets

    @property
    def models(self) -> Path:
        return self.folder / "models"

    def start(self, config: str = "", *arguments: str, name: str = "d") -> Daemon:
        """A daemon that serves."""
        config_path, log = self.folder / f"{name}.toml", self.folder / f"{name}.log"
        config_path.write_text(config)
        socket = self.folder / f"{name}.sock"
        fixed = ("--config", config_path, "--models", self.models, "--address", f"unix:{socket}")
        with log.open("ab") as sink:
            # Each name is a daemon of its own; started again, it finds what it left.
            state = {"XDG_STATE_HOME": str(self.folder / f"{name}.state")} if name != "d" else {}
            variables = {**environment(self.folder), **state, **self.environment}
            process = subprocess.Popen(command(*fixed, *arguments), stdout=sink, stderr=sink, env=variables)
        daemon = Daemon(process, socket, log)
        self.daemons.append(daemon)
        until(lambda: process.poll() is not None or (socket.exists() and is_serving(daemon.address)))
        assert process.poll() is None, log.read_text()
        return daemon

    def close(self) -> None:
        """Every daemon must end well, and none may have logged an exception."""
        for daemon in self.daemons:
            daemon.close()
            if daemon.process.poll() is None:
                assert daemon.terminate() == 0, daemon.log.read_text()
            assert "Traceback" not in daemon.log.read_text(), daemon.log.read_text()


def ask(prompt: str, model: str = "small", **fields: Any) -> pb.GenerateRequest:
    return pb.GenerateRequest(model=model, prompt=prompt, **fields)
