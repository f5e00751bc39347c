"""The doors that the config opens, and as whom one comes in by each. What others can reach is never open to all."""

from __future__ import annotations

import ipaddress
import os
from typing import TYPE_CHECKING

from ...protos import address as addresses
from ...protos.errors import InferdError
from ..domain.access import Door, Role

if TYPE_CHECKING:
    from ..domain.config import Config

NONE = "none"  # in place of an address or a role


class BadDoor(Exception):
    """The config opens what cannot be, or must not; the message names the setting."""


def doors_of(config: Config) -> list[Door]:
    """All ways in that the config opens. Raises BadDoor."""
    tls = config.server.tls
    if bool(tls.certificate) != bool(tls.key) or (tls.client_ca and not tls.certificate):
        raise BadDoor("`server.tls`: certificate and key go together, and client_ca needs both")
    where = address_of(config)
    doors = [_door(config, "server.address", where)]
    if given := config.server.tcp_address:
        beside = _normalize("server.tcp_address", given)
        if beside.startswith("unix:"):
            raise BadDoor(f"`server.tcp_address`: {given} is no host:port")
        doors.append(_door(config, "server.tcp_address", beside))
    if (admin := _admin_address(config, where)) is not None:
        # Beside the daemon's own socket it may be in a folder that is a whole group's for that one.
        beside_it = os.path.dirname(admin) == os.path.dirname(where)
        doors.append(Door("admin", admin, Role.ADMIN, owners=beside_it and not config.server.admin_address))
    if len({door.address for door in doors}) < len(doors):
        raise BadDoor("`server.address`, `server.tcp_address` and `server.admin_address` must differ")
    return doors


def _door(config: Config, field: str, where: str) -> Door:
    if where.startswith("unix:"):
        return Door("socket", where, Role.OPERATOR)
    tls, access = config.server.tls, config.access
    secure = bool(tls.certificate)
    check_reach(where, field, secure=secure)
    if tls.client_ca:
        return Door("tcp", where, None, Role(access.certificate_role), secure=True)
    trusted = _is_loopback(where.rpartition(":")[0]) and access.loopback_role != NONE
    return Door("tcp", where, Role(access.loopback_role) if trusted else None, secure=secure)


def _admin_address(config: Config, where: str) -> str | None:
    given = config.server.admin_address
    if not given:
        return addresses.admin_beside(where)
    if given == NONE:
        return None
    admin = _normalize("server.admin_address", given)
    if not admin.startswith("unix:"):
        raise BadDoor(f"`server.admin_address`: {given} is no Unix socket")
    return admin


def address_of(config: Config) -> str:
    """The config's, else the environment's, else the default socket."""
    if given := config.server.address:
        return _normalize("server.address", given)
    given = os.environ.get(addresses.ENVIRONMENT) or str(addresses.default_socket())
    return _normalize(addresses.ENVIRONMENT, given)


def _normalize(field: str, given: str) -> str:
    try:
        where = addresses.normalize(given)
    except InferdError as error:
        raise BadDoor(f"`{field}`: {error}") from None
    if where.startswith(addresses.TLS):
        text = f"`{field}`: {given} is how clients write it; here host:port, with `server.tls.certificate` and `.key`"
        raise BadDoor(text)
    return where


def check_reach(where: str, field: str = "server.address", *, secure: bool = False) -> None:
    """TCP without TLS stays on this machine. Who comes from outside is nobody without a token or a certificate."""
    if not secure and not _is_loopback(where.rpartition(":")[0]):
        needs = "`server.tls.certificate` and `server.tls.key`; callers then need a token, or `server.tls.client_ca`"
        raise BadDoor(f"`{field}`: {where} is reachable from outside, which needs {needs}")


def _is_loopback(host: str) -> bool:
    """By the whole name: `localhost.example.org` and `127.example.org` are anybody's."""
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
