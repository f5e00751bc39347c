"""What the audit log tells: who did what to what, and nothing that must not be told."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from inferd.daemon.api.audited import ACTIONS, TO_JOBS, TO_REQUESTS
from inferd.daemon.api.roles import LEAST
from inferd.daemon.domain.access import Role
from inferd.tests.daemon.api.doors import ENDLESS, Entrance, entrance, refused

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def doors(folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Entrance]:
    monkeypatch.setenv("STATE_DIRECTORY", str(folder / "state"))
    async with entrance(folder) as opened:
        yield opened


def told(doors: Entrance) -> list[dict[str, Any]]:
    doors.audit.close()
    path = doors.folder / "audit.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def brief(doors: Entrance) -> list[tuple[str, str, str]]:
    return [(line["method"], line["target"], line["outcome"]) for line in told(doors)]


def test_all_that_needs_an_operator_is_told() -> None:
    needs = {method for method, role in LEAST.items() if role in (Role.OPERATOR, Role.ADMIN)}
    assert set(ACTIONS) == needs
    assert {LEAST[method] for method in (*TO_REQUESTS, *TO_JOBS)} == {Role.USER}


async def test_what_an_operator_does_is_told_with_how_it_went(doors: Entrance) -> None:
    operator = doors.dial(tenant="ops")
    await operator.load("small").wait()
    await operator.pin("small")
    await operator.pin("small", pinned=False)
    await refused(operator.unload("nothing"))
    await operator.unload("small", force=True)
    await operator.drain()
    await operator.drain(draining=False)
    assert brief(doors) == [
        ("LoadModel", "small", "ok"),
        ("Pin", "small", "ok"),
        ("Pin", "small no more", "ok"),
        ("UnloadModel", "nothing", "NOT_FOUND"),
        ("UnloadModel", "small by force", "ok"),
        ("Drain", "on", "ok"),
        ("Drain", "off", "ok"),
    ]
    line = told(doors)[0]
    assert line["unix_s"] > 1e9
    assert {name: line[name] for name in ("who", "role", "tenant", "door", "peer")} == {
        "who": "socket", "role": "operator", "tenant": "ops", "door": "socket", "peer": "unix:",
    }  # fmt: skip


async def test_what_is_looked_at_and_what_one_asks_is_nobodys_business(doors: Entrance) -> None:
    client = doors.dial()
    await client.snapshot()
    await client.models()
    await client.generate("small", "fake:tokens=1").text()
    assert told(doors) == []


async def test_only_what_is_done_to_others_requests_is_told(doors: Entrance) -> None:
    ada = doors.dial("needy", await doors.token("user", "ada"))
    deltas = aiter(ada.generate("small", ENDLESS, request_id="r"))
    await anext(deltas)
    await ada.set_priority("r", "batch")
    await doors.dial(tenant="ada").set_priority("r", "interactive")  # who only says that it is ada
    await doors.dial(tenant="ops").set_priority("r", "normal")
    await doors.dial(tenant="ops").cancel("nothing")
    await doors.dial(tenant="ops").cancel("r")
    assert brief(doors)[1:] == [("SetPriority", "r", "ok"), ("SetPriority", "r", "ok"), ("Cancel", "r", "ok")]
    assert [(line["who"], line["tenant"]) for line in told(doors)[1:]] == [("socket", t) for t in ("ada", "ops", "ops")]


async def test_tokens_are_told_by_name_and_never_shown(doors: Entrance) -> None:
    token = await doors.token("user", "team", name="ada")
    admin = doors.dial("admin")
    await admin.tokens()
    assert not await admin.revoke_token(token)  # somebody mistook it for its id
    await admin.revoke_token("ada")
    assert brief(doors) == [
        ("CreateToken", "ada: user of team", "ok"),
        ("ListTokens", "", "ok"),
        ("RevokeToken", f"{token[:16]}...", "ok"),
        ("RevokeToken", "ada", "ok"),
    ]
    assert token.rpartition("_")[2][1:] not in (doors.folder / "audit.jsonl").read_text()


async def test_who_tries_more_than_it_may_is_told_but_cannot_fill_the_log(doors: Entrance) -> None:
    client = doors.dial("needy", await doors.token("user", name="eve"))
    for _ in range(30):
        await refused(client.drain())
        await refused(client.tokens())
    lines = [line for line in told(doors) if line["outcome"] == "PERMISSION_DENIED"]
    assert len(lines) == 10
    assert lines[0]["role"] == "user"
    assert lines[0]["who"] not in ("", "socket", "token")
