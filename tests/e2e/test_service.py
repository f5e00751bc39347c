"""The daemon as a service: health, reflection, models coming and going, watching, starting twice, wrong configs."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import tempfile
import time
from typing import TYPE_CHECKING

import grpc
import pytest
from google.protobuf import descriptor_pool, message_factory
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from inferd import AsyncClient, InferdError
from inferd.tests.e2e.daemons import alive, best_of, command, environment, is_serving, until

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from inferd.tests.e2e.daemons import Daemon, Launcher

WAIT_S = 60.0


def test_health_knows_every_service(daemon: Daemon) -> None:
    health = health_pb2_grpc.HealthStub(daemon.channel)
    for service in (
        "",
        "inferd.v1.Inference",
        "inferd.v1.Models",
        "inferd.v1.Monitor",
        "inferd.v1.Admin",
        "inference.GRPCInferenceService",
    ):
        answer = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=WAIT_S)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.RpcError) as caught:
        health.Check(health_pb2.HealthCheckRequest(service="nobody"), timeout=WAIT_S)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_reflection_is_enough_to_call_generate(daemon: Daemon) -> None:
    database = ProtoReflectionDescriptorDatabase(daemon.channel)
    ours = {f"inferd.v1.{name}" for name in ("Inference", "Models", "Monitor", "Admin")}
    assert ours | {"grpc.health.v1.Health"} <= set(database.get_services())
    pool: Any = descriptor_pool.DescriptorPool(database)
    assert pool.FindServiceByName("inference.GRPCInferenceService").FindMethodByName("ModelStreamInfer")
    method = pool.FindServiceByName("inferd.v1.Inference").FindMethodByName("Generate")
    assert method.server_streaming
    request_class = message_factory.GetMessageClass(method.input_type)
    answer_class = message_factory.GetMessageClass(method.output_type)
    call = daemon.channel.unary_stream(
        f"/{method.containing_service.full_name}/{method.name}",
        request_serializer=request_class.SerializeToString,
        response_deserializer=answer_class.FromString,
    )
    events: list[Any] = list(call(request_class(model="small", prompt="fake:tokens=3"), timeout=WAIT_S))
    assert events[-1].finished.usage.completion_tokens == 3


def test_the_socket_is_for_the_group_and_nobody_else(daemon: Daemon) -> None:
    mode = daemon.socket.stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o660


def test_a_model_is_loaded_with_progress_and_unloaded(launcher: Launcher) -> None:
    daemon = launcher.start("[fake]\nenabled = true\nload_s = 0.3\n", name="load")
    seen = [(step.state, step.progress) for step in daemon.client.load("small")]
    assert seen[0][0] == "loading"
    assert seen[-1] == ("ready", 1.0)
    assert len({progress for _, progress in seen}) > 3
    assert [progress for _, progress in seen] == sorted(progress for _, progress in seen)
    pid = daemon.worker_pid("small")
    assert [step.state for step in daemon.client.load("small")] == ["ready"]
    assert {info.name: info.state for info in daemon.client.models()}["small"] == "ready"
    assert daemon.client.unload("small")
    assert not alive(pid)
    assert not daemon.client.unload("small")
    until(lambda: (model := daemon.model("small")) is not None and model.bytes == 0)


def test_unload_waits_for_what_runs_and_force_does_not(launcher: Launcher) -> None:
    daemon = launcher.start("[fake]\nenabled = true\ntokens_per_s = 100\n", name="unload")
    answer = daemon.client.generate("small", "fake:tokens=60")
    deltas = iter(answer)
    next(deltas)
    assert daemon.client.unload("small")
    assert sum(len(delta.tokens) for delta in deltas) > 0
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 60
    cut = iter(daemon.client.generate("small", "fake:tokens=1000"))
    next(cut)
    assert daemon.client.unload("small", force=True)
    with pytest.raises(InferdError) as caught:
        list(cut)
    assert caught.value.code == "cancelled"


def test_leaving_a_load_leaves_the_model_loading(daemon: Daemon) -> None:
    with daemon.client.load("other") as progress:
        next(iter(progress))
    until(lambda: (model := daemon.model("other")) is not None and model.state == "ready")


def test_watch_begins_with_the_present_and_goes_on(daemon: Daemon) -> None:
    sequences: list[int] = []
    with daemon.client.watch(interval_ms=100) as snapshots:
        for snapshot in snapshots:
            assert snapshot.host.memory_total_bytes > 0
            sequences.append(snapshot.sequence)
            if len(sequences) == 4:
                break
    assert sequences == sorted(set(sequences))


async def test_watch_from_asyncio(daemon: Daemon) -> None:
    async with AsyncClient(daemon.address) as client:
        async for snapshot in client.watch(interval_ms=100):
            assert snapshot.version
            break


def refused(home: Path, *arguments: str | Path) -> tuple[int, str, float]:
    """Exit code, words and seconds of a daemon that must not start."""
    start_s = time.monotonic()
    ended = subprocess.run(
        command(*arguments), capture_output=True, text=True, timeout=WAIT_S, env=environment(home), check=False
    )
    assert "Traceback" not in ended.stderr
    return ended.returncode, ended.stderr, time.monotonic() - start_s


def test_a_second_daemon_is_refused_and_the_first_goes_on(daemon: Daemon, tmp_path: Path) -> None:
    def seconds() -> float:
        code, words, took_s = refused(tmp_path, "--fake", "--address", daemon.address)
        assert code == 75
        assert "already" in words
        return took_s

    assert best_of(seconds, 2.0) < 2.0
    assert is_serving(daemon.address)
    assert len(daemon.client.generate("small", "fake:tokens=2").text().split()) == 2


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("[server]\ndrain_s = 'soon'\n", "server.drain_s"),
        ("[models.model.small]\nslots = 0\n", "models.model.small.slots"),
        ("[server]\naddress = '0.0.0.0:50051'\n", "server.address"),
    ],
)
def test_a_wrong_config_is_refused_by_its_exact_field(tmp_path: Path, config: str, words: str) -> None:
    path = tmp_path / "inferd.toml"
    path.write_text(config)
    code, said, _ = refused(tmp_path, "--fake", "--config", path)
    assert code == 78
    assert words in said


def test_a_missing_config_is_refused(tmp_path: Path) -> None:
    code, said, _ = refused(tmp_path, "--config", tmp_path / "none.toml")
    assert code == 78
    assert "none.toml" in said


def test_the_catalog_shows_what_is_wrong_and_never_what_is_outside(launcher: Launcher, tmp_path: Path) -> None:
    daemon = launcher.start("[fake]\nenabled = true\n", name="catalog")
    secret = tmp_path / "secret.gguf"
    secret.write_bytes((launcher.models / "small.gguf").read_bytes())
    bad = [launcher.models / "outside.gguf", launcher.models / "cut.gguf", launcher.models / "pipe.gguf"]
    try:
        bad[0].symlink_to(secret)
        bad[1].write_bytes((launcher.models / "small.gguf").read_bytes()[:1000])
        os.mkfifo(bad[2])
        rows = {info.name: info for info in daemon.client.models()}
        assert (rows["outside"].state, rows["outside"].architecture, rows["outside"].parameters) == ("failed", "", 0)
        assert "leads out" in rows["outside"].error
        assert "secret" not in rows["outside"].error
        assert "pipe" not in rows
        assert rows["cut"].state == "failed"
        assert rows["cut"].error
        assert str(launcher.folder) not in rows["cut"].error
        with pytest.raises(InferdError) as corrupt:
            daemon.client.generate("cut", "x").text()
        assert corrupt.value.code == "model_corrupt"
        assert str(launcher.folder) not in corrupt.value.message
        with pytest.raises(InferdError) as outside:
            daemon.client.generate("outside", "x").text()
        assert outside.value.code == "model_corrupt"
    finally:
        for path in bad:
            path.unlink(missing_ok=True)


def test_the_config_is_read_again_on_sighup_or_not_at_all(launcher: Launcher) -> None:
    config = "[fake]\nenabled = true\n[queue]\nmax_requests = 64\n"
    own = launcher.start(config, name="again")
    file = launcher.folder / "again.toml"
    file.write_text(config.replace("64", "1"))
    own.process.send_signal(signal.SIGHUP)
    until(lambda: "config_reloaded" in [event.kind for event in own.client.events(follow=False)])
    file.write_text(config.replace("64", "0"))
    own.process.send_signal(signal.SIGHUP)
    until(lambda: own.snapshot().warnings)
    (warning,) = own.snapshot().warnings
    assert (warning.code, warning.severity) == ("config_refused", "error")
    assert "queue.max_requests" in warning.message
    assert str(file) not in warning.message
    with pytest.raises(InferdError, match=r"queue\.max_requests"):
        own.client.reload()
    file.write_text(config)
    assert list(own.client.reload().changed) == ["queue.max_requests"]
    assert not own.snapshot().warnings
    assert own.terminate() == 0


def test_a_service_manager_hears_how_it_goes(launcher: Launcher, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="inferd-") as folder,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as it,
    ):
        it.bind(f"{folder}/notify")
        it.settimeout(WAIT_S)
        manager = {"NOTIFY_SOCKET": f"{folder}/notify", "WATCHDOG_USEC": "3000000"}
        monkeypatch.setattr(launcher, "environment", manager)
        own = launcher.start("[fake]\nenabled = true\n", name="watched")
        heard: list[str] = []

        def hear(word: str) -> None:
            while not any(line.startswith(word) for line in heard):
                heard.extend(it.recv(4096).decode().split("\n"))

        hear("READY=1")
        own.client.load("small").wait()
        hear("STATUS=1 models loaded, 0 requests running")
        hear("WATCHDOG=1")
        heard.clear()
        own.process.send_signal(signal.SIGHUP)
        hear("RELOADING=1")
        hear("READY=1")
        assert own.terminate() == 0
        hear("STOPPING=1")
