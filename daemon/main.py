"""Build the daemon, serve, and drain."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import ipaddress
import logging
import os
import resource
import signal
import socket
import time
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha import reflection, reflection_pb2

from ..backends.blob import Blob, give_back_freed_memory, keep_freed_memory
from ..protos import address as addresses
from ..protos import inferd_pb2, oip_pb2
from ..protos.errors import InferdError
from .api import oip_service, rpc
from .api.guard import LARGEST_BYTES, Reading
from .domain.event import Kind, Severity
from .node.disk import Disk
from .node.machine import Machine
from .node.node import Node
from .node.telemetry import Telemetry
from .node.tiers import Tiers
from .policy.corrections import Corrections
from .policy.ledger import Ledger
from .system.catalog import Catalog
from .system.digests import Digests
from .system.hardware import Sensors, detect, with_backends
from .system.probe import probe_backends
from .system.recorder import Arrivals, Decisions
from .system.state import load_json, save_json, state_folder

if TYPE_CHECKING:
    from .domain.config import Config

log = logging.getLogger("inferd")

OK, FAILED, BUSY, BAD_CONFIG = 0, 5, 75, 78
SOCKET_MODE = 0o660
GIVE_BACK_S = 3.0
HANG_UP_S = 1.0  # for streams that outlive the drain
CORRECTIONS = "corrections"  # what loads have taken, kept in the state folder


class Refused(Exception):
    """The daemon cannot start; carries its exit code."""

    def __init__(self, exit_code: int, message: str) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def serve(config: Config, log_level: str = "info") -> int:
    """Run until SIGTERM or SIGINT; returns the exit code of DESIGN's table."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # each run of computed blocks is an open file
    keep_freed_memory()
    logging.basicConfig(level=log_level.upper(), format="%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    try:
        where = _address(config)
        _check_reach(where)
        with _locked(where):
            return asyncio.run(_serve(config, where))
    except Refused as error:
        log.error("%s", error)
        return error.exit_code
    except Exception as error:
        if isinstance(error, (OSError, ValueError)):
            log.error("%s", error)
            return FAILED
        raise


async def _serve(config: Config, where: str) -> int:
    node, telemetry = build(config)
    stop = asyncio.Event()

    def on_signal() -> None:  # the second one does not wait for what runs
        node.hurry() if stop.is_set() else stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, on_signal)
    await asyncio.to_thread(node.catalog.scan)  # so that no request waits for the first look at every file
    server, health = _server(config, node, telemetry)
    _bind(server, where)
    await server.start()
    node.events.note(Severity.INFO, Kind.DAEMON_STARTED, f"inferd {version('inferd')} serves on {where}")
    await _set_health(health, health_pb2.HealthCheckResponse.SERVING)
    log.info("serving on %s", where)
    opening = asyncio.create_task(node.fleet.tiers.disk.open(config.cache, state_folder()), name="disk")
    eternal = [
        asyncio.create_task(telemetry.run(), name="telemetry"),
        asyncio.create_task(_probe(node, telemetry), name="probe"),
        asyncio.create_task(_keep_corrections(node), name="corrections"),
        asyncio.create_task(_tell_health(node, health), name="health"),
        asyncio.create_task(_give_back_memory(), name="memory"),
    ]
    await _until(stop, eternal)
    log.info("shutting down: %d requests are live", len(node.jobs))
    await _set_health(health, health_pb2.HealthCheckResponse.NOT_SERVING)
    await node.drain(config.server.drain_s)
    await server.stop(HANG_UP_S)
    save_json(CORRECTIONS, node.fleet.corrections.to_builtins())
    for task in (opening, *eternal):
        task.cancel()
    await asyncio.gather(opening, *eternal, return_exceptions=True)
    telemetry.sensors.close()
    log.info("bye")
    return OK


def build(config: Config) -> tuple[Node, Telemetry]:
    """The heart and its pulse, from the machine as it is now."""
    hardware = detect(vendor_libraries=False)
    machine = Machine(hardware, config.memory, hardware.memory, fake=config.fake.enabled, name=socket.gethostname())
    ledger = Ledger()
    machine.open_pools(ledger)
    bundled = Path(__file__).parent.parent / "backends" / "llama" / "demo.gguf"
    catalog = Catalog([_path(folder) for folder in config.models.folders], bundled)
    node = Node(config, catalog, ledger, hardware.cpu.threads)
    node.fleet.tiers = Tiers(Disk(), Digests(state_folder()))
    node.fleet.tiers.disk.on_refused = partial(node.events.note, Severity.WARNING, Kind.DISK)
    node.fleet.corrections = Corrections.from_builtins(load_json(CORRECTIONS))
    if config.records.arrivals_file:
        node.jobs.on_over = Arrivals(_path(config.records.arrivals_file), time.time() - time.monotonic()).on_over
    if config.records.decisions_file:
        node.scheduler.journal.sink = Decisions(_path(config.records.decisions_file)).note
    return node, Telemetry(node, machine, Sensors(hardware), version("inferd"))


def _path(given: str) -> Path:
    try:
        return Path(given).expanduser()
    except RuntimeError:
        raise Refused(BAD_CONFIG, f"{given}: there is no such user") from None


async def _keep_corrections(node: Node) -> None:
    """For ever: when something was learned it is kept, beside the loop, which does not wait for the disk."""
    learned = asyncio.Event()
    node.fleet.on_corrected = learned.set
    while True:
        await learned.wait()
        learned.clear()
        await asyncio.to_thread(save_json, CORRECTIONS, node.fleet.corrections.to_builtins())


async def _give_back_memory() -> None:
    """For ever: what large tensors left is kept for the next ones, until none have come for a while."""
    n_seen = n_given = 0
    while True:
        await asyncio.sleep(GIVE_BACK_S)
        if n_seen == Blob.n_files != n_given:
            n_given = n_seen
            await asyncio.to_thread(give_back_freed_memory)
        n_seen = Blob.n_files


async def _probe(node: Node, telemetry: Telemetry) -> None:
    """What the engines make of devices beside the CPU; takes seconds, so it runs beside the serving."""
    machine = telemetry.machine
    if machine.needs_probe():
        try:
            hardware = await asyncio.to_thread(detect)
            backends = await asyncio.to_thread(probe_backends)
        except Exception:
            return log.exception("looking at the devices failed; models run on the CPU")
        machine.hardware = with_backends(hardware, backends)
        telemetry.sensors = Sensors(machine.hardware)
        machine.open_pools(node.ledger)
        node.fleet.gpus = machine.for_models(node.ledger)
    return None


async def _until(stop: asyncio.Event, eternal: list[asyncio.Task[None]]) -> None:
    """Wait for the signal; an eternal task that dies is an error worth ending for."""
    waiting = asyncio.create_task(stop.wait(), name="stop")
    pulse = eternal[0]
    done, _ = await asyncio.wait({waiting, pulse}, return_when=asyncio.FIRST_COMPLETED)
    if pulse in done:
        waiting.cancel()
        pulse.result()


def _server(config: Config, node: Node, telemetry: Telemetry) -> tuple[grpc.aio.Server, Any]:
    options = [
        ("grpc.max_receive_message_length", LARGEST_BYTES),  # of each method: see Reading
        ("grpc.max_concurrent_streams", config.server.max_streams_per_connection),
        ("grpc.so_reuseport", 0),
        ("grpc.http2.bdp_probe", 0),
    ]
    server = grpc.aio.server(options=options, interceptors=[Reading(config.server.max_message_bytes)])
    rpc.register(server, node, telemetry)
    oip_service.register(server, node, version("inferd"))
    health = HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    names = (*rpc.SERVICES, oip_service.SERVICE, "grpc.health.v1.Health", reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server, pool=_described())
    return server, health


def _described() -> DescriptorPool:
    """What reflection tells: our protocols, of which one is in no common pool."""
    pool = DescriptorPool()
    for file in (inferd_pb2, oip_pb2, health_pb2, reflection_pb2):
        pool.AddSerializedFile(file.DESCRIPTOR.serialized_pb)  # type: ignore[no-untyped-call]
    return pool


async def _set_health(health: Any, status: int) -> None:
    for service in ("", *rpc.SERVICES, oip_service.SERVICE):
        await health.set(service, status)


async def _tell_health(node: Node, health: Any) -> None:
    """For ever: who balances loads by health sends nothing here while nothing new is taken in."""
    switched = asyncio.Event()
    node.controls.on_draining = switched.set
    status = health_pb2.HealthCheckResponse
    while True:
        told = status.NOT_SERVING if node.draining or node.closing else status.SERVING
        for service in (rpc.INFERENCE, oip_service.SERVICE):
            await health.set(service, told)
        await switched.wait()
        switched.clear()


def _bind(server: grpc.aio.Server, where: str) -> None:
    before = os.umask(0o177)  # nobody reaches the socket before its mode is set
    try:
        server.add_insecure_port(addresses.target(where))
    except RuntimeError:
        raise Refused(FAILED, f"cannot listen on {where}") from None
    finally:
        os.umask(before)
    if where.startswith("unix:"):
        os.chmod(where.removeprefix("unix:"), SOCKET_MODE)


def _address(config: Config) -> str:
    """The config's, else the environment's, else the default socket."""
    field, given = "server.address", config.server.address
    if not given:
        field, given = addresses.ENVIRONMENT, os.environ.get(addresses.ENVIRONMENT) or str(addresses.default_socket())
    try:
        return addresses.normalize(given)
    except InferdError as error:
        raise Refused(BAD_CONFIG, f"`{field}`: {error}") from None


def _check_reach(where: str) -> None:
    """TCP without TLS and authentication stays on this machine."""
    if not where.startswith("unix:") and not _is_loopback(where.rpartition(":")[0]):
        text = f"`server.address`: {where} is reachable from outside, which needs TLS and authentication"
        raise Refused(BAD_CONFIG, text)


def _is_loopback(host: str) -> bool:
    """By the whole name: `localhost.example.org` and `127.example.org` are anybody's."""
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


@contextlib.contextmanager
def _locked(where: str) -> Any:
    """One daemon per socket: gRPC would steal the path of a running one without a word."""
    if not where.startswith("unix:"):
        yield
        return
    path = Path(where.removeprefix("unix:"))
    path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    with open(f"{path.with_suffix('') if path.suffix == '.sock' else path}.lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Refused(BUSY, f"a daemon is already serving on {where}") from None
        yield
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
