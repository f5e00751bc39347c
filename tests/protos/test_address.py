"""Where a client looks for the daemon."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from inferd.protos import address
from inferd.protos.errors import InferdError


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("unix:/run/a.sock", "unix:/run/a.sock"),
        ("unix:///run/a.sock", "unix:/run/a.sock"),
        ("/run/a.sock", "unix:/run/a.sock"),
        ("localhost:50051", "localhost:50051"),
        ("[::1]:50051", "[::1]:50051"),
    ],
)
def test_ways_to_write_an_address(written: Any, meant: Any) -> None:
    assert address.normalize(written) == meant


def test_a_relative_path_is_made_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert address.normalize("./a.sock") == address.normalize("unix:a.sock") == f"unix:{tmp_path}/a.sock"


@pytest.mark.parametrize("written", ["localhost", "localhost:", ":50051", "host:0", "host:65536", "host:x", "::1:1"])
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
