"""Build the daemon, serve, and drain."""

from __future__ import annotations

import asyncio
import contextlib
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

from grpc_health.v1 import health_pb2

from ..backends.blob import Blob, give_back_freed_memory, keep_freed_memory
from .api import jobs, oip_service, rpc
from .domain.errors import InferdError
from .domain.event import Kind, Severity
from .listen import BAD_CONFIG, FAILED, Doors, Refused, all_locked, doors_of
from .node.disk import Disk
from .node.machine import Machine
from .node.node import Node
from .node.reload import Reload
from .node.telemetry import Telemetry
from .node.tiers import Tiers
from .policy.corrections import Corrections
from .policy.ledger import Ledger
from .system.audit import Audit, audit_file
from .system.catalog import Catalog
from .system.digests import Digests
from .system.hardware import Sensors, detect, with_backends
from .system.imports import Imports
from .system.logbook import Logbook
from .system.probe import probe_backends
from .system.recorder import Arrivals, Decisions
from .system.service_manager import ServiceManager
from .system.settings import ConfigError, expanded, model_folders
from .system.state import load_json, save_json, state_folder, sweep
from .system.store import Store
from .system.sysfs import Root
from .system.workgroups import Groups

if TYPE_CHECKING:
    from collections.abc import Callable

    from .domain.access import Door
    from .domain.config import Config

log = logging.getLogger("inferd")

OK = 0
GIVE_BACK_S = 3.0
HANG_UP_S = 1.0  # for streams that outlive the drain
AFTER_DRAIN_S = 25.0  # until all processes are gone, or given up, and what they computed is on the disk
CORRECTIONS = "corrections"  # what loads have taken, kept in the state folder


def serve(config: Config, read: Callable[[], Config] | None = None) -> int:
    """Run until SIGTERM or SIGINT; returns the exit code of DESIGN's table.

    `read` reads the config again on SIGHUP, and raises ConfigError.
    """
    if not os.isatty(0):  # a terminal that closes sends it, too, and then ends the daemon
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until there is something that can be reloaded
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # each run of computed blocks is an open file
    keep_freed_memory()
    logging.basicConfig(level=config.log_level.upper(), handlers=[Logbook()])
    try:
        doors = doors_of(config)
        with all_locked(doors), contextlib.closing(ServiceManager()) as manager:
            return asyncio.run(_serve(config, doors, read or (lambda: config), manager))
    except Refused as error:
        log.error("%s", error)
        return error.exit_code
    except Exception as error:
        if isinstance(error, (OSError, ValueError)):
            log.error("%s", error)
            return FAILED
        raise


async def _serve(config: Config, ways_in: list[Door], read: Callable[[], Config], manager: ServiceManager) -> int:
    node, telemetry = build(config, read)
    stop = _obey(node, manager)
    telemetry.on_beat = partial(_beat, manager, node)
    await asyncio.to_thread(node.catalog.scan)  # so that no request waits for the first look at every file
    doors = Doors(config, node, telemetry, ways_in, Audit(audit_file()))
    node.durable.hold()
    node.durable.begin(Store(_path(config.jobs.folder) if config.jobs.folder else state_folder()), jobs.read_request)
    await doors.open()
    health, where = doors.health, " and ".join(door.address for door in ways_in)
    node.events.note(Severity.INFO, Kind.DAEMON_STARTED, f"inferd {version('inferd')} serves on {where}")
    await _set_health(health, health_pb2.HealthCheckResponse.SERVING)
    log.info("serving on %s", where)
    manager.ready()
    opening = asyncio.create_task(node.fleet.tiers.disk.open(config.cache, state_folder()), name="disk")
    probing = asyncio.create_task(_probe(node, telemetry), name="probe")
    eternal = [
        asyncio.create_task(telemetry.run(), name="telemetry"),
        asyncio.create_task(_start_jobs(node, opening, probing), name="jobs that wait"),
        probing,
        asyncio.create_task(_keep_corrections(node), name="corrections"),
        asyncio.create_task(_tell_health(node, health), name="health"),
        asyncio.create_task(_give_back_memory(), name="memory"),
        asyncio.create_task(doors.keep(), name="doors"),
    ]
    await _until(stop, eternal)
    log.info("shutting down: %d requests are live", len(node.jobs))
    manager.stopping(node.config.server.drain_s + AFTER_DRAIN_S)
    await _set_health(health, health_pb2.HealthCheckResponse.NOT_SERVING)
    await node.drain(node.config.server.drain_s)
    await node.durable.close()
    await doors.close(HANG_UP_S)
    save_json(CORRECTIONS, node.fleet.corrections.to_builtins())
    for task in (opening, *eternal):
        task.cancel()
    await asyncio.gather(opening, *eternal, return_exceptions=True)
    telemetry.sensors.close()
    log.info("bye")
    return OK


def _obey(node: Node, manager: ServiceManager) -> asyncio.Event:
    """Take signals from now on; the event is that of one that ends the daemon."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()

    def on_signal() -> None:  # the second one does not wait for what runs
        node.hurry() if stop.is_set() else stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    if node.reload is not None and not os.isatty(0):
        loop.add_signal_handler(signal.SIGHUP, partial(_reload_soon, node.reload, manager))
    return stop


def _beat(manager: ServiceManager, node: Node, now_s: float) -> None:
    """Once a second; one that helps nobody is not kept alive."""
    manager.status(node.health.line())
    if node.health.progressing:
        manager.alive(now_s)


_RELOADS: set[asyncio.Task[None]] = set()  # the loop keeps no task alive


def _reload_soon(reload: Reload, manager: ServiceManager) -> None:
    async def run() -> None:
        manager.reloading()
        with contextlib.suppress(InferdError):  # it has been told of, and the old config holds
            await reload()
        manager.ready()

    task = asyncio.get_running_loop().create_task(run(), name="reload")
    _RELOADS.add(task)
    task.add_done_callback(_RELOADS.discard)


def build(config: Config, read: Callable[[], Config] | None = None) -> tuple[Node, Telemetry]:
    """The heart and its pulse, from the machine as it is now."""
    hardware = detect(vendor_libraries=False)
    machine = Machine(hardware, config.memory, hardware.memory, fake=config.fake.enabled, name=socket.gethostname())
    ledger = Ledger()
    machine.open_pools(ledger)
    bundled = Path(__file__).parent.parent / "backends" / "llama" / "demo.gguf"
    try:
        catalog = Catalog(model_folders(config), bundled)
    except ConfigError as error:
        raise Refused(BAD_CONFIG, str(error)) from None
    node = Node(config, catalog, ledger, hardware.cpu.threads)
    sweep()
    node.aliases.open(state_folder())
    node.keyring.open(state_folder())
    digests = Digests(state_folder())
    node.fleet.tiers, node.fleet.imports = Tiers(Disk(), digests), Imports(digests, state_folder())
    node.fleet.groups = Groups.divide(Root())
    node.fleet.tiers.disk.on_refused = partial(node.events.note, Severity.WARNING, Kind.DISK)
    node.fleet.corrections = Corrections.from_builtins(load_json(CORRECTIONS))
    if config.records.arrivals_file:
        node.jobs.on_over = Arrivals(_path(config.records.arrivals_file), time.time() - time.monotonic()).on_over
    if config.records.decisions_file:
        node.scheduler.journal.sink = Decisions(_path(config.records.decisions_file)).note
    node.reload = Reload(node, machine, read or (lambda: config))
    return node, Telemetry(node, machine, Sensors(hardware), version("inferd"))


def _path(given: str) -> Path:
    try:
        return expanded(given, "records")
    except ConfigError as error:
        raise Refused(BAD_CONFIG, str(error)) from None


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


async def _start_jobs(node: Node, *first: asyncio.Future[None]) -> None:
    """When it is known what there is: a model that is loaded before its GPU is found, or its KV, goes without."""
    await asyncio.wait(first)
    node.durable.go_on()


async def _until(stop: asyncio.Event, eternal: list[asyncio.Task[None]]) -> None:
    """Wait for the signal; an eternal task that dies is an error worth ending for."""
    waiting = asyncio.create_task(stop.wait(), name="stop")
    pulse = eternal[0]
    done, _ = await asyncio.wait({waiting, pulse}, return_when=asyncio.FIRST_COMPLETED)
    if pulse in done:
        waiting.cancel()
        pulse.result()


async def _set_health(health: Any, status: int) -> None:
    for service in ("", *rpc.SERVICES, oip_service.SERVICE):
        await health.set(service, status)


async def _tell_health(node: Node, health: Any) -> None:
    """For ever: who balances loads by health sends nothing here while nothing new is taken in, or nothing is served."""
    switched = asyncio.Event()
    node.health.on_change = switched.set
    status = health_pb2.HealthCheckResponse
    while True:
        told = status.SERVING if node.health.serving else status.NOT_SERVING
        for service in (rpc.INFERENCE, rpc.JOBS, oip_service.SERVICE):
            await health.set(service, told)
        await switched.wait()
        switched.clear()
