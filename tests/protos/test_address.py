"""Where a client looks for the daemon."""

from __future__ import annotations

import grp
import os
import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from inferd.protos import address
from inferd.protos.errors import InferdError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("unix:/run/a.sock", "unix:/run/a.sock"),
        ("unix:///run/a.sock", "unix:/run/a.sock"),
        ("/run/a.sock", "unix:/run/a.sock"),
        ("localhost:50051", "localhost:50051"),
        ("tls:example.org:443", "tls:example.org:443"),
        ("tls:[::1]:443", "tls:[::1]:443"),
        ("[::1]:50051", "[::1]:50051"),
    ],
)
def test_ways_to_write_an_address(written: Any, meant: Any) -> None:
    assert address.normalize(written) == meant


def test_a_relative_path_is_made_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert address.normalize("./a.sock") == address.normalize("unix:a.sock") == f"unix:{tmp_path}/a.sock"


@pytest.mark.parametrize(
    "written", ["localhost", "localhost:", ":50051", "host:0", "host:65536", "host:x", "::1:1", "tls:", "tls:host"]
)
def test_anything_else_is_refused(written: Any) -> None:
    with pytest.raises(InferdError, match="bad address") as caught:
        address.normalize(written)
    assert (caught.value.code, caught.value.field) == ("invalid", "address")


def test_a_socket_path_has_a_limit() -> None:
    with pytest.raises(InferdError, match="at most 107 bytes"):
        address.normalize("/" + "x" * 107)
    assert address.normalize("/" + "x" * 106)


def test_explicit_wins_over_environment_wins_over_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(address, "SYSTEM_SOCKET", tmp_path / "nowhere")
    environ = {"INFERD_ADDRESS": "host:1", "XDG_RUNTIME_DIR": "/run/user/1"}
    assert address.resolve("host:2", environ) == "host:2"
    assert address.resolve(None, environ) == "host:1"
    assert address.resolve(None, {"XDG_RUNTIME_DIR": "/run/user/1"}) == "unix:/run/user/1/inferd/inferd.sock"
    assert address.resolve(None, {}) == f"unix:{tmp_path}/nowhere"


def test_the_machines_daemon_is_found_when_the_user_runs_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    system, environ = tmp_path / "system.sock", {"XDG_RUNTIME_DIR": str(tmp_path)}
    system.touch()
    monkeypatch.setattr(address, "SYSTEM_SOCKET", system)
    assert address.resolve(None, environ) == f"unix:{system}"
    own = address.default_socket(environ)
    own.parent.mkdir()
    own.touch()
    assert address.resolve(None, environ) == f"unix:{own}"


def test_the_default_socket_of_the_machine() -> None:
    assert address.default_socket({}) == Path("/run/inferd/inferd.sock")


def test_grpc_gets_a_percent_encoded_path() -> None:
    assert address.target("unix:/a b%") == "unix:/a%20b%25"
    assert address.target("host:1") == "host:1"


def test_only_a_socket_needs_an_authority() -> None:
    assert ("grpc.default_authority", "localhost") in address.channel_options("unix:/a", 2)
    assert "grpc.default_authority" not in dict(address.channel_options("host:1", 2))


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that any user can reach, with a socket in it; what pytest makes is closed to others."""
    with tempfile.TemporaryDirectory(prefix="inferd-") as name, socket.socket(socket.AF_UNIX) as listening:
        Path(name).chmod(0o755)
        listening.bind(f"{name}/d.sock")
        yield Path(name)


def as_somebody(question: Callable[[], object]) -> bool:
    """Whether it holds for a user who is not root: in another process, as it cannot be undone."""
    if os.geteuid() != 0:
        return bool(question())
    pid = os.fork()
    if not pid:
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            os._exit(0 if question() else 1)
        finally:
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.parametrize("closed", ["", "d.sock"])
def test_a_socket_that_is_closed_to_us_is_its_groups(folder: Path, closed: str) -> None:
    where, group = f"unix:{folder}/d.sock", grp.getgrgid((folder / closed).stat().st_gid).gr_name
    (folder / "d.sock").chmod(0o777)
    assert as_somebody(lambda: address.closed_by(where) is None)
    (folder / closed).chmod(0)
    assert as_somebody(lambda: address.closed_by(where) == group)
    (folder / closed).chmod(0o700)


def test_nobody_is_kept_out_of_what_is_not_there(folder: Path) -> None:
    assert address.closed_by(f"unix:{folder}/none.sock") is None
    assert address.closed_by("host:1") is None


def test_the_machines_daemon_is_found_also_where_it_is_closed_to_us(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    monkeypatch.setattr(address, "SYSTEM_SOCKET", folder / "d.sock")
    folder.chmod(0)
    environs: tuple[dict[str, str], ...] = ({}, {"XDG_RUNTIME_DIR": "/nowhere"})
    for environ in environs:
        assert as_somebody(lambda: address.resolve(None, environ) == f"unix:{folder}/d.sock")  # noqa: B023
    folder.chmod(0o700)


def test_admins_are_taken_beside_the_daemons_socket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert address.admin_of("/d/inferd.sock", {}) == "unix:/d/inferd-admin.sock"
    assert address.admin_of("/d/gpu.0", {}) == "unix:/d/gpu.0-admin.sock"
    assert address.admin_of("tls:host:1", {}) == "tls:host:1"  # where only a token says who one is
    assert address.admin_beside("host:1") is None
    assert address.admin_beside("unix:/" + "x" * 105) is None
    monkeypatch.setattr(address, "SYSTEM_SOCKET", tmp_path / "inferd.sock")
    monkeypatch.setattr(address, "SYSTEM_ADMIN_SOCKET", tmp_path / "admins" / "admin.sock")
    assert address.admin_of(None, {}) == f"unix:{tmp_path}/inferd-admin.sock"
    (tmp_path / "admins").mkdir()
    assert address.admin_of(None, {}) == f"unix:{tmp_path}/admins/admin.sock"


def test_what_grpc_dials_knows_nothing_of_tls() -> None:
    assert address.target("tls:example.org:443") == "example.org:443"
