"""Which doors a config opens, and to whom."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from inferd.daemon.domain.access import Door, Role
from inferd.daemon.domain.config import Access, Config, Server, Tls
from inferd.daemon.system import doors
from inferd.protos import address as addresses

if TYPE_CHECKING:
    from pathlib import Path


def at(address: str) -> Config:
    return Config(server=Server(address=address))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "localhost", "[::1]"])
def test_this_machine_is_no_outside(host: str) -> None:
    doors.check_reach(f"{host}:50051")


# doors

TLS = Tls(certificate="/c.pem", key="/k.pem")
MUTUAL = Tls(certificate="/c.pem", key="/k.pem", client_ca="/ca.pem")


def test_by_default_there_is_a_socket_and_one_for_admins_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(addresses.ENVIRONMENT, raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    assert doors.doors_of(Config()) == [
        Door("socket", "unix:/run/user/7/inferd/inferd.sock", Role.OPERATOR),
        Door("admin", "unix:/run/user/7/inferd/inferd-admin.sock", Role.ADMIN, owners=True),
    ]


def test_the_services_admins_have_a_folder_that_says_who_they_are(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "admins").mkdir()
    monkeypatch.setattr(addresses, "SYSTEM_SOCKET", tmp_path / "inferd.sock")
    monkeypatch.setattr(addresses, "SYSTEM_ADMIN_SOCKET", tmp_path / "admins" / "admin.sock")
    config = Config(server=Server(address=f"unix:{tmp_path}/inferd.sock"))
    assert doors.doors_of(config)[-1] == Door("admin", f"unix:{tmp_path}/admins/admin.sock", Role.ADMIN)


def test_admins_may_have_a_place_of_their_own_or_none() -> None:
    named = Config(server=Server(address="/d.sock", admin_address="/admins/a.sock"))
    assert doors.doors_of(named)[-1] == Door("admin", "unix:/admins/a.sock", Role.ADMIN)
    assert [door.name for door in doors.doors_of(Config(server=Server(address="/d", admin_address="none")))] == [
        "socket"
    ]


@pytest.mark.parametrize(
    ("role", "tls", "door"),
    [
        ("operator", Tls(), Door("tcp", "localhost:1", Role.OPERATOR)),
        ("none", Tls(), Door("tcp", "localhost:1", None)),
        ("viewer", TLS, Door("tcp", "localhost:1", Role.VIEWER, secure=True)),
        ("operator", MUTUAL, Door("tcp", "localhost:1", None, Role.USER, secure=True)),
    ],
)
def test_who_comes_from_this_machine_is_what_the_config_says(role: Any, tls: Tls, door: Door) -> None:
    config = Config(server=Server(address="localhost:1", tls=tls), access=Access(loopback_role=role))
    assert doors.doors_of(config) == [door]


@pytest.mark.parametrize("address", ["0.0.0.0:1", "[::]:1", "example.org:1", "[::ffff:0.0.0.0]:1"])
def test_who_comes_from_outside_is_nobody_without_a_token_or_a_certificate(address: str) -> None:
    tcp = Server(address="/d.sock", tcp_address=address, tls=TLS)
    assert doors.doors_of(Config(server=tcp))[1] == Door("tcp", address, None, secure=True)
    mutual = Server(address="/d.sock", tcp_address=address, tls=MUTUAL)
    config = Config(server=mutual, access=Access(certificate_role="viewer"))
    assert doors.doors_of(config)[1] == Door("tcp", address, None, Role.VIEWER, secure=True)


@pytest.mark.parametrize(
    ("server", "field"),
    [
        (Server(tcp_address="0.0.0.0:1"), "server.tcp_address"),
        (Server(tcp_address="/d.sock"), "server.tcp_address"),
        (Server(tcp_address="nonsense"), "server.tcp_address"),
        (Server(tcp_address="tls:localhost:1"), "server.tcp_address"),
        (Server(admin_address="localhost:1"), "server.admin_address"),
        (Server(admin_address="/d.sock"), "server.admin_address"),
        (Server(tls=Tls(certificate="/c.pem")), "server.tls"),
        (Server(tls=Tls(key="/k.pem")), "server.tls"),
        (Server(tls=Tls(client_ca="/ca.pem")), "server.tls"),
    ],
)
def test_doors_that_cannot_be_are_named(server: Server, field: str) -> None:
    given = Config(server=msgspec.structs.replace(server, address="/d.sock"))
    with pytest.raises(doors.BadDoor, match=f"`{field}"):
        doors.doors_of(given)


def test_the_configs_address_wins_over_the_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(addresses.ENVIRONMENT, "/from/environment")
    assert doors.address_of(at("/from/config")) == "unix:/from/config"
    assert doors.address_of(Config()) == "unix:/from/environment"
