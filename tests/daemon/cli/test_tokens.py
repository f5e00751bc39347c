"""Tokens from the command line: shown once, alone, and never in the clear on the way."""

from __future__ import annotations

import json
from typing import Any

import pytest

from inferd.protos import inferd_pb2 as pb
from inferd.protos.address import admin_of

TOKEN = "inferd_0a1b2c3d_secret"


@pytest.fixture
def admins(quiet_daemon: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The scripted daemon on the admins' socket of an address where nobody else is."""
    monkeypatch.setenv("INFERD_ADDRESS", quiet_daemon.address)
    quiet_daemon.address = admin_of(quiet_daemon.address)
    quiet_daemon.start()
    return quiet_daemon


@pytest.fixture
def inferd(admins: Any) -> Any:
    from typer.testing import CliRunner

    from inferd.daemon.cli.app import app

    return lambda *args: CliRunner().invoke(app, ["token", *args])


def test_the_token_alone_is_printed(inferd: Any, admins: Any) -> None:
    done = inferd("create", "ada", "--role", "viewer", "--tenant", "team-a", "--ttl", "30d")
    assert (done.exit_code, done.stdout) == (0, f"{TOKEN}\n")
    asked = admins.asked[0]
    assert (asked.name, asked.role, asked.tenant, asked.ttl_s) == ("ada", "viewer", "team-a", 30 * 86_400.0)
    shown = json.loads(inferd("create", "ada", "--json").stdout)
    assert (shown["token"], shown["role"], shown["tenant"], shown["expires_unix_s"]) == (TOKEN, "user", "ada", None)
    assert not admins.asked[1].HasField("ttl_s")


@pytest.mark.parametrize("ttl", ["30", "d", "-1d", "1w", "1e9d"])
def test_a_time_needs_its_unit(inferd: Any, admins: Any, ttl: str) -> None:
    done = inferd("create", "ada", f"--ttl={ttl}")
    assert (done.exit_code, admins.asked) == (2, [])
    assert "30d" in done.stderr


def test_tokens_are_listed(inferd: Any, admins: Any) -> None:
    admins.tokens.append(pb.TokenInfo(id="x", name="b\x1b[31m", role="admin", created_unix_s=1.5, expires_unix_s=1e9))
    table = inferd("list").stdout
    assert "0a1b2c3d" in table
    assert "2001-09-0" in table
    assert "\x1b" not in table
    rows = json.loads(inferd("list", "--json").stdout)["tokens"]
    assert [row["name"] for row in rows] == ["ada", "b\x1b[31m"]
    assert (rows[0]["expires_unix_s"], rows[0]["last_used_unix_s"]) == (None, None)
    admins.tokens.clear()
    assert inferd("list").stdout == "no tokens; make one with: inferd token create NAME\n"


def test_a_token_is_revoked(inferd: Any) -> None:
    assert inferd("revoke", "ada").stdout == "ada is revoked\n"
    gone = inferd("revoke", "bob")
    assert (gone.exit_code, gone.stderr) == (4, "inferd: there is no token bob, or more than one of that name\n")
    assert json.loads(inferd("revoke", "ada", "--json").stdout) == {"token": "ada", "revoked": True}
    assert inferd("revoke", "bob", "--json").exit_code == 4


def test_the_admins_socket_is_told_no_token_of_the_environment(
    inferd: Any, admins: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INFERD_TOKEN", "theirs")
    seen: list[dict[str, Any]] = []
    admins.refusal = lambda context: seen.append({item.key: item.value for item in context.invocation_metadata()})
    inferd("list")
    inferd("list", "--address", admins.address)
    assert [metadata.get("authorization") for metadata in seen] == [None, "Bearer theirs"]
