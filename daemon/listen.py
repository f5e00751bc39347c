"""Where the daemon listens: its doors, a gRPC server with all services for each, and the locks on their sockets."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import stat
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha import reflection, reflection_pb2

from ..protos import address as addresses
from ..protos import inferd_pb2, oip_pb2
from .api import oip_service, rpc
from .api.access import Access, Gate
from .api.audited import Audited
from .api.guard import LARGEST_BYTES, Reading
from .api.tls import BadCertificate, Certificates
from .system import doors as ways_in
from .system.audit import Audit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from .domain.access import Door
    from .domain.config import Config
    from .node.node import Node
    from .node.telemetry import Telemetry

log = logging.getLogger(__name__)

FAILED, BUSY, BAD_CONFIG = 5, 75, 78  # exit codes, of DESIGN's table
SOCKET_MODE = 0o660
OWNER_MODE = 0o600
FOLDER_MODE = 0o750
LOOK_S = 1.0  # how often it is seen whether the sockets are there


class Refused(Exception):
    """The daemon cannot start; carries its exit code."""

    def __init__(self, exit_code: int, message: str) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Doors:
    """A server for each door, over the same node: gRPC does not tell by which socket a call came."""

    def __init__(
        self, config: Config, node: Node, telemetry: Telemetry, doors: Sequence[Door], audit: Audit | None = None
    ) -> None:
        """Raises Refused when the certificate cannot be used."""
        self.health = HealthServicer()
        self._audit = audit or Audit(None)
        self._credentials = _credentials(config) if any(door.secure for door in doors) else None
        gate = Gate(node.keyring, Audited(self._audit, node.controls.tenant_of))
        self._make: Callable[[Door], grpc.aio.Server] = lambda door: self._server(
            config, node, telemetry, Access(door, gate)
        )
        self._servers: dict[Door, grpc.aio.Server] = {door: self._make(door) for door in doors}
        self._closing = False
        self._past: list[grpc.aio.Server] = []  # whose sockets were removed; they serve who is connected

    async def open(self) -> None:
        """Raises Refused when nobody can listen there."""
        for door, server in self._servers.items():
            bind(server, door, self._credentials)
        for server in self._servers.values():
            await server.start()

    async def keep(self) -> None:
        """Until it closes: a socket whose file somebody removed is opened again."""
        while True:
            await asyncio.sleep(LOOK_S)
            if self._closing:
                return
            for door in filter(_is_gone, list(self._servers)):
                try:
                    await self._reopen(door)
                except (Refused, OSError) as error:
                    log.error("%s was removed, and cannot be opened again: %s", door.address, error)

    async def _reopen(self, door: Door) -> None:
        """By a new server: the old one would say that it listens again, and serve nobody."""
        Path(door.address.removeprefix("unix:")).parent.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        server = self._make(door)
        bind(server, door, self._credentials)
        await server.start()
        if self._closing:
            return await server.stop(None)
        self._past.append(self._servers[door])
        self._servers[door] = server
        return log.warning("%s was removed; it is there again", door.address)

    async def close(self, grace_s: float | None) -> None:
        self._closing = True  # a server that stops removes its socket, too
        await asyncio.gather(*(server.stop(grace_s) for server in (*self._past, *self._servers.values())))
        await asyncio.to_thread(self._audit.close)

    def _server(self, config: Config, node: Node, telemetry: Telemetry, access: Access) -> grpc.aio.Server:
        options = [
            ("grpc.max_receive_message_length", LARGEST_BYTES),  # of each method: see Reading
            ("grpc.max_concurrent_streams", config.server.max_streams_per_connection),
            ("grpc.so_reuseport", 0),
            ("grpc.http2.bdp_probe", 0),
        ]
        server = grpc.aio.server(options=options, interceptors=[access, Reading(config.server.max_message_bytes)])
        rpc.register(server, node, telemetry)
        oip_service.register(server, node, version("inferd"))
        health_pb2_grpc.add_HealthServicer_to_server(self.health, server)
        names = (*rpc.SERVICES, oip_service.SERVICE, "grpc.health.v1.Health", reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, server, pool=_described())
        return server


def _credentials(config: Config) -> Any:
    try:
        return Certificates(config.server.tls).credentials()
    except BadCertificate as error:
        raise Refused(BAD_CONFIG, str(error)) from None


def _described() -> DescriptorPool:
    """What reflection tells: our protocols, of which one is in no common pool."""
    pool = DescriptorPool()
    for file in (inferd_pb2, oip_pb2, health_pb2, reflection_pb2):
        pool.AddSerializedFile(file.DESCRIPTOR.serialized_pb)  # type: ignore[no-untyped-call]
    return pool


def bind(server: grpc.aio.Server, door: Door, credentials: Any = None) -> None:
    where, target = door.address, addresses.target(door.address)
    before = os.umask(0o177)  # nobody reaches the socket before its mode is set
    try:
        if door.secure:
            server.add_secure_port(target, credentials)
        else:
            server.add_insecure_port(target)
    except RuntimeError:
        raise Refused(FAILED, f"cannot listen on {where}") from None
    finally:
        os.umask(before)
    if where.startswith("unix:"):
        path = Path(where.removeprefix("unix:"))
        handed_on = door.name != "admin" or (not door.owners and _is_handed_on(path.parent))
        path.chmod(SOCKET_MODE if handed_on else OWNER_MODE)


def _is_gone(door: Door) -> bool:
    return door.address.startswith("unix:") and not os.path.lexists(door.address.removeprefix("unix:"))


def _is_handed_on(folder: Path) -> bool:
    """A folder that is setgid gives its sockets to its group: that is how an operator says who else is admin."""
    return bool(folder.stat().st_mode & stat.S_ISGID)


def doors_of(config: Config) -> list[Door]:
    """All ways in that the config opens. Raises Refused."""
    try:
        return ways_in.doors_of(config)
    except ways_in.BadDoor as error:
        raise Refused(BAD_CONFIG, str(error)) from None


@contextlib.contextmanager
def all_locked(doors: Sequence[Door]) -> Iterator[None]:
    """The sockets of all doors."""
    with contextlib.ExitStack() as locks:
        for door in doors:
            locks.enter_context(locked(door.address))
        yield


@contextlib.contextmanager
def locked(where: str) -> Iterator[None]:
    """One daemon per socket: gRPC would steal the path of a running one without a word."""
    if not where.startswith("unix:"):
        yield
        return
    path = Path(where.removeprefix("unix:"))
    path.parent.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
    with open(f"{path.with_suffix('') if path.suffix == '.sock' else path}.lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Refused(BUSY, f"a daemon is already serving on {where}") from None
        yield
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
