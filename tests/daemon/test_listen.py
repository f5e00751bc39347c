"""Where the daemon listens, and that it does so alone; tests/daemon/test_main.py has what `serve` makes of it."""

from __future__ import annotations

import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc.aio
import msgspec
import pytest

from inferd.daemon import listen
from inferd.daemon.domain.access import Door, Role
from inferd.daemon.domain.config import Access, Config, Server, Tls
from inferd.protos import address as addresses

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def folder() -> Iterator[Path]:
    # A socket's path has at most 107 bytes: pytest's own folders can be longer.
    with tempfile.TemporaryDirectory(prefix="inferd-") as name:
        yield Path(name)


def at(address: str) -> Config:
    return Config(server=Server(address=address))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "localhost", "[::1]"])
def test_this_machine_is_no_outside(host: str) -> None:
    listen.check_reach(f"{host}:50051")


# doors

TLS = Tls(certificate="/c.pem", key="/k.pem")
MUTUAL = Tls(certificate="/c.pem", key="/k.pem", client_ca="/ca.pem")


def test_by_default_there_is_a_socket_and_one_for_admins_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(addresses.ENVIRONMENT, raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    assert listen.doors_of(Config()) == [
        Door("socket", "unix:/run/user/7/inferd/inferd.sock", Role.OPERATOR),
        Door("admin", "unix:/run/user/7/inferd/inferd-admin.sock", Role.ADMIN),
    ]


def test_admins_may_have_a_place_of_their_own_or_none() -> None:
    named = Config(server=Server(address="/d.sock", admin_address="/admins/a.sock"))
    assert listen.doors_of(named)[-1] == Door("admin", "unix:/admins/a.sock", Role.ADMIN)
    assert [door.name for door in listen.doors_of(Config(server=Server(address="/d", admin_address="none")))] == [
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
    assert listen.doors_of(config) == [door]


@pytest.mark.parametrize("address", ["0.0.0.0:1", "[::]:1", "example.org:1", "[::ffff:0.0.0.0]:1"])
def test_who_comes_from_outside_is_nobody_without_a_token_or_a_certificate(address: str) -> None:
    tcp = Server(address="/d.sock", tcp_address=address, tls=TLS)
    assert listen.doors_of(Config(server=tcp))[1] == Door("tcp", address, None, secure=True)
    mutual = Server(address="/d.sock", tcp_address=address, tls=MUTUAL)
    config = Config(server=mutual, access=Access(certificate_role="viewer"))
    assert listen.doors_of(config)[1] == Door("tcp", address, None, Role.VIEWER, secure=True)


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
    with pytest.raises(listen.Refused, match=f"`{field}") as caught:
        listen.doors_of(given)
    assert caught.value.exit_code == listen.BAD_CONFIG


@pytest.mark.parametrize(("folder_mode", "mode"), [(0o750, 0o600), (0o2750, 0o660)])
async def test_a_folder_that_is_setgid_hands_the_admins_socket_on(folder: Path, folder_mode: int, mode: int) -> None:
    admins = folder / "admins"
    admins.mkdir()
    admins.chmod(folder_mode)
    server = grpc.aio.server()
    listen.bind(server, Door("admin", f"unix:{admins}/a.sock", Role.ADMIN))
    assert stat.S_IMODE((admins / "a.sock").stat().st_mode) == mode
    listen.bind(server, Door("socket", f"unix:{admins}/d.sock", Role.OPERATOR))
    assert stat.S_IMODE((admins / "d.sock").stat().st_mode) == 0o660
    await server.stop(None)


def test_each_door_is_locked(folder: Path) -> None:
    doors = [Door(name, f"unix:{folder}/{name}.sock", Role.ADMIN) for name in ("a", "b")]
    with listen.all_locked(doors):
        with pytest.raises(listen.Refused), listen.locked(doors[1].address):
            pass
        assert {path.name for path in folder.iterdir()} == {"a.lock", "b.lock"}


def test_the_configs_address_wins_over_the_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(addresses.ENVIRONMENT, "/from/environment")
    assert listen.address_of(at("/from/config")) == "unix:/from/config"
    assert listen.address_of(Config()) == "unix:/from/environment"


def test_daemons_on_sockets_of_like_names_do_not_lock_each_other_out(folder: Path) -> None:
    with listen.locked(f"unix:{folder}/gpu.0"), listen.locked(f"unix:{folder}/gpu.1"):
        locks = {path.name for path in folder.iterdir()}
    assert locks == {"gpu.0.lock", "gpu.1.lock"}


def test_the_lock_ends_with_the_daemon_and_takes_its_socket_away(folder: Path) -> None:
    where = f"unix:{folder}/sub/d.sock"
    with listen.locked(where):
        (folder / "sub" / "d.sock").touch()
    assert not (folder / "sub" / "d.sock").exists()
    assert stat.S_IMODE((folder / "sub").stat().st_mode) & 0o007 == 0
    with listen.locked(where):
        pass
