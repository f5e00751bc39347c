"""Where the daemon listens, and that it does so alone; tests/daemon/test_main.py has what `serve` makes of it."""

from __future__ import annotations

import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from inferd.daemon import listen
from inferd.daemon.domain.config import Config, Server
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
