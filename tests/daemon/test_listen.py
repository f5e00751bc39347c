"""Where the daemon listens, and that it does so alone; tests/daemon/test_main.py has what `serve` makes of it."""

from __future__ import annotations

import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import grpc.aio
import pytest

from inferd.daemon import listen
from inferd.daemon.domain.access import Door, Role

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def folder() -> Iterator[Path]:
    # A socket's path has at most 107 bytes: pytest's own folders can be longer.
    with tempfile.TemporaryDirectory(prefix="inferd-") as name:
        yield Path(name)


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
    # One that nobody asked for stands beside the daemon's, which may be a whole group's.
    listen.bind(server, Door("admin", f"unix:{admins}/b.sock", Role.ADMIN, owners=True))
    assert stat.S_IMODE((admins / "b.sock").stat().st_mode) == 0o600
    await server.stop(None)


def test_each_door_is_locked(folder: Path) -> None:
    doors = [Door(name, f"unix:{folder}/{name}.sock", Role.ADMIN) for name in ("a", "b")]
    with listen.all_locked(doors):
        with pytest.raises(listen.Refused), listen.locked(doors[1].address):
            pass
        assert {path.name for path in folder.iterdir()} == {"a.lock", "b.lock"}


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
