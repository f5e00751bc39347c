"""How the daemon starts, refuses to start, and what it puts on the socket; tests/e2e run the whole of it."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from grpc_health.v1 import health_pb2

from inferd.daemon import listen, main
from inferd.daemon.api import oip_service, rpc
from inferd.daemon.domain.config import Config, Models, Server, Tls
from inferd.daemon.node.node import Node
from inferd.daemon.policy.ledger import Ledger
from inferd.daemon.system.catalog import Catalog
from inferd.protos import address as addresses

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def folder() -> Iterator[Path]:
    # A socket's path has at most 107 bytes: pytest's own folders can be longer.
    with tempfile.TemporaryDirectory(prefix="inferd-") as name:
        yield Path(name)


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """`serve` would set up the whole process's logging."""
    monkeypatch.setattr(logging, "basicConfig", lambda **_: None)


def at(address: str) -> Config:
    return Config(server=Server(address=address))


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0:50051",
        "[::]:50051",
        "192.168.1.2:50051",
        "[::ffff:0.0.0.0]:50051",
        "example.org:50051",
        "localhost.example.org:50051",
        "127.example.org:50051",
        "0:50051",
    ],
)
def test_what_others_can_reach_is_refused(address: str, caplog: pytest.LogCaptureFixture) -> None:
    assert main.serve(at(address)) == listen.BAD_CONFIG
    assert "server.address" in caplog.text
    assert address in caplog.text


def test_a_certificate_that_is_not_there_is_named(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    tls = Tls(certificate=f"{folder}/c.pem", key=f"{folder}/k.pem")
    config = Config(server=Server(address=f"unix:{folder}/d.sock", tcp_address="0.0.0.0:50051", tls=tls))
    assert main.serve(config) == listen.BAD_CONFIG
    assert "server.tls.certificate" in caplog.text


@pytest.mark.parametrize("address", ["nonsense", "host:0", "unix:/" + "x" * 200])
def test_a_bad_address_in_the_config_is_named(address: str, caplog: pytest.LogCaptureFixture) -> None:
    assert main.serve(at(address)) == listen.BAD_CONFIG
    assert "`server.address`" in caplog.text


def test_a_bad_address_in_the_environment_is_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(addresses.ENVIRONMENT, "nonsense")
    assert main.serve(Config()) == listen.BAD_CONFIG
    assert addresses.ENVIRONMENT in caplog.text


def test_a_second_daemon_on_the_socket_is_refused(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with (folder / "d.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert main.serve(at(f"unix:{folder}/d.sock")) == listen.BUSY
    assert str(folder / "d.sock") in caplog.text


def test_a_place_where_nobody_can_listen(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "d.sock").mkdir()
    assert main.serve(at(f"unix:{folder}/d.sock")) == listen.FAILED
    assert "cannot listen" in caplog.text
    assert (folder / "d.sock").is_dir()


def test_a_port_that_is_taken(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main.serve(at(f"127.0.0.1:{taken.getsockname()[1]}")) == listen.FAILED
    assert "cannot listen" in caplog.text


def test_a_folder_that_cannot_be_made(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "file").touch()
    assert main.serve(at(f"unix:{folder}/file/d.sock")) == listen.FAILED
    assert caplog.records


async def test_build_gives_a_daemon_that_can_be_looked_at(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", str(folder))
    node, telemetry = main.build(Config(models=Models(folders=(str(folder),))))
    snapshot = telemetry.snapshot()
    assert snapshot.host.memory_total_bytes > 0
    assert [device.kind for device in snapshot.devices][:1] == ["cpu"]
    assert not snapshot.models
    await node.drain(0.1)
    telemetry.sensors.close()


@pytest.mark.parametrize(("draining", "closing"), [(False, False), (True, False), (False, True), (True, True)])
async def test_who_asks_for_health_is_sent_elsewhere_while_it_drains_or_ends(draining: bool, closing: bool) -> None:
    told: dict[str, int] = {}

    class Health:
        async def set(self, service: str, status: int) -> None:
            told[service] = status

    node = Node(Config(), Catalog([]), Ledger(), n_threads=1)
    node.draining, node.closing = draining, closing
    telling = asyncio.create_task(main._tell_health(node, Health()))
    await asyncio.sleep(0)
    telling.cancel()
    status = health_pb2.HealthCheckResponse
    expected = status.NOT_SERVING if draining or closing else status.SERVING
    assert told == dict.fromkeys((rpc.INFERENCE, rpc.JOBS, oip_service.SERVICE), expected)


async def test_jobs_start_when_the_devices_and_the_disk_are_known(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = Node(Config(), Catalog([folder]), Ledger(), 1)
    going = asyncio.Event()
    monkeypatch.setattr(node.durable, "go_on", going.set)
    disk, probe = (asyncio.get_running_loop().create_future() for _ in range(2))
    starting = asyncio.create_task(main._start_jobs(node, disk, probe))
    disk.set_exception(OSError("no disk"))
    await asyncio.sleep(0)
    assert not going.is_set()
    probe.set_result(None)
    await starting
    assert going.is_set()
    assert isinstance(disk.exception(), OSError)
