"""Where the daemon is, and how a channel to it is set up."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from .errors import InferdError

if TYPE_CHECKING:
    from collections.abc import Mapping

ENVIRONMENT = "INFERD_ADDRESS"
SYSTEM_SOCKET = Path("/run/inferd/inferd.sock")
SYSTEM_ADMIN_SOCKET = Path("/run/inferd-admin/admin.sock")
TLS = "tls:"  # before host:port
MAX_SOCKET_PATH_BYTES = 107  # sun_path, less its final zero
MAX_MESSAGE_BYTES = 64 * 2**20

ChannelOptions = list[tuple[str, int | str]]


def default_socket(environ: Mapping[str, str] = os.environ) -> Path:
    """The socket a daemon started by this user listens on when nothing else is said."""
    runtime = environ.get("XDG_RUNTIME_DIR")
    return Path(runtime) / "inferd" / "inferd.sock" if runtime else SYSTEM_SOCKET


def resolve(address: str | None = None, environ: Mapping[str, str] = os.environ) -> str:
    """The address to dial, as `normalize` writes it. Raises InferdError("invalid")."""
    chosen = address or environ.get(ENVIRONMENT)
    if chosen:
        return normalize(chosen)
    own = default_socket(environ)
    # A user's own daemon wins; where there is none, the machine's may be running.
    socket = SYSTEM_SOCKET if not _may_be_there(own) and _may_be_there(SYSTEM_SOCKET) else own
    return normalize(str(socket))


def admin_of(address: str | None = None, environ: Mapping[str, str] = os.environ) -> str:
    """Where the daemon of an address takes its admins. Raises InferdError("invalid")."""
    where = resolve(address, environ)
    return admin_beside(where) or where


def admin_beside(where: str) -> str | None:
    """The admins' socket where no config names one: beside the daemon's; None where that has none."""
    if where == f"unix:{SYSTEM_SOCKET}" and SYSTEM_ADMIN_SOCKET.parent.exists():
        return f"unix:{SYSTEM_ADMIN_SOCKET}"  # a service's admins are a group of their own
    if not where.startswith("unix:"):
        return None
    beside = f"{where.removesuffix('.sock')}-admin.sock"
    return beside if len(os.fsencode(beside.removeprefix("unix:"))) <= MAX_SOCKET_PATH_BYTES else None


def normalize(address: str) -> str:
    """Check one written address and bring it to `unix:/absolute/path`, `host:port` or `tls:host:port`."""
    if address.startswith(TLS):
        return TLS + _host_and_port(address.removeprefix(TLS), address)
    if address.startswith("unix:") or "/" in address:
        path = os.path.abspath(address.removeprefix("unix:"))
        path = "/" + path.lstrip("/")  # unix:///path has three
        if len(os.fsencode(path)) > MAX_SOCKET_PATH_BYTES:
            raise _invalid(address, f"a socket's path has at most {MAX_SOCKET_PATH_BYTES} bytes")
        return f"unix:{path}"
    return _host_and_port(address, address)


def _host_and_port(written: str, address: str) -> str:
    host, colon, port = written.rpartition(":")
    if not (colon and host and port.isascii() and port.isdigit() and 1 <= int(port) <= 65535):
        raise _invalid(address, "it must be unix:/path, /path, host:port or tls:host:port")
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise _invalid(address, "write an IPv6 address in brackets: [::1]:50051")
    return f"{host}:{port}"


def target(address: str) -> str:
    """What gRPC calls a resolved address, to dial it and to listen on it: a path is percent-encoded there."""
    if address.startswith("unix:"):
        return "unix:" + quote(address.removeprefix("unix:"))
    return address.removeprefix(TLS)


def closed_by(address: str) -> str | None:
    """The group that a Unix socket is for, when this user is not in it."""
    if not address.startswith("unix:"):
        return None
    path = Path(address.removeprefix("unix:"))
    closed = path.parent if not os.access(path.parent, os.X_OK) else path
    try:
        found = closed.stat()
    except OSError:  # not there, or further up than a group would help with
        return None
    if os.access(closed, os.X_OK if closed is not path else os.W_OK):
        return None
    import grp

    try:
        return grp.getgrgid(found.st_gid).gr_name
    except KeyError:
        return str(found.st_gid)


def _may_be_there(path: Path) -> bool:
    """Also where its folder is closed to us: then it is said so when it is dialled."""
    try:
        path.stat()
    except PermissionError:
        return True
    except OSError:
        return False
    return True


def channel_options(address: str, connect_timeout_s: float) -> ChannelOptions:
    """Options of every channel to a daemon."""
    options: ChannelOptions = [
        # Bound what is read ahead of a slow reader: some 1,100 small messages instead of 56,000.
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.lookahead_bytes", 16 * 1024),
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.enable_http_proxy", 0),
        ("grpc.enable_retries", 0),  # the client itself knows what may be tried again
        # Clients of one process share neither a connection nor its back-off.
        ("grpc.use_local_subchannel_pool", 1),
        # A daemon that has just started is found at once; one that accepts and says nothing is given up.
        ("grpc.initial_reconnect_backoff_ms", 50),
        ("grpc.max_reconnect_backoff_ms", 250),
        ("grpc.min_reconnect_backoff_ms", max(100, int(connect_timeout_s * 1000))),
    ]
    if address.startswith("unix:"):
        options.append(("grpc.default_authority", "localhost"))
    return options


def _invalid(address: str, why: str) -> InferdError:
    return InferdError("invalid", f"bad address {address!r}: {why}", details={"field": "address"})
