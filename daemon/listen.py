"""Where the daemon listens: the gRPC server with its services, its address, and the lock on that."""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import os
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
from ..protos.errors import InferdError
from .api import oip_service, rpc
from .api.guard import LARGEST_BYTES, Reading

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .domain.config import Config
    from .node.node import Node
    from .node.telemetry import Telemetry

FAILED, BUSY, BAD_CONFIG = 5, 75, 78  # exit codes, of DESIGN's table
SOCKET_MODE = 0o660


class Refused(Exception):
    """The daemon cannot start; carries its exit code."""

    def __init__(self, exit_code: int, message: str) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def make_server(config: Config, node: Node, telemetry: Telemetry) -> tuple[grpc.aio.Server, Any]:
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


def bind(server: grpc.aio.Server, where: str) -> None:
    before = os.umask(0o177)  # nobody reaches the socket before its mode is set
    try:
        server.add_insecure_port(addresses.target(where))
    except RuntimeError:
        raise Refused(FAILED, f"cannot listen on {where}") from None
    finally:
        os.umask(before)
    if where.startswith("unix:"):
        os.chmod(where.removeprefix("unix:"), SOCKET_MODE)


def address_of(config: Config) -> str:
    """The config's, else the environment's, else the default socket."""
    field, given = "server.address", config.server.address
    if not given:
        field, given = addresses.ENVIRONMENT, os.environ.get(addresses.ENVIRONMENT) or str(addresses.default_socket())
    try:
        return addresses.normalize(given)
    except InferdError as error:
        raise Refused(BAD_CONFIG, f"`{field}`: {error}") from None


def check_reach(where: str) -> None:
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
def locked(where: str) -> Iterator[None]:
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
