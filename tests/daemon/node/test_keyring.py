"""How tokens come, hold and go, and that in doubt nobody gets in."""

from __future__ import annotations

import asyncio
import hashlib
import math
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from inferd.daemon.domain.access import Role
from inferd.daemon.domain.errors import Code, InferdError
from inferd.daemon.node import keyring as it
from inferd.daemon.node.keyring import Keyring
from inferd.daemon.system import tokens as files

if TYPE_CHECKING:
    from pathlib import Path


def opened(folder: Path) -> Keyring:
    keyring = Keyring()
    keyring.open(folder)
    return keyring


def refused(keyring: Keyring, text: str) -> str:
    with pytest.raises(InferdError) as caught:
        keyring.holder(text)
    assert caught.value.code is Code.UNAUTHENTICATED
    return caught.value.message


async def test_a_token_holds_after_a_restart_until_it_is_revoked(tmp_path: Path) -> None:
    keyring = opened(tmp_path)
    text, token = await keyring.create("ada", Role.USER, "", None)
    assert (token.name, token.tenant) == ("ada", "ada")
    assert keyring.holder(text) == (token, math.inf)
    keyring = opened(tmp_path)
    assert keyring.holder(text)[0] == token
    ended: list[str] = []
    keyring.on_revoked = ended.append
    assert await keyring.revoke("ada") == token
    assert ended == [token.id]
    assert await keyring.revoke("ada") is None
    refused(keyring, text)
    refused(opened(tmp_path), text)


async def test_one_that_is_being_kept_does_not_hold_yet(tmp_path: Path) -> None:
    keyring = opened(tmp_path)
    making = asyncio.create_task(keyring.create("ada", Role.USER, "t", None))
    while not (tmp_path / "tokens.json").exists():
        assert not list(keyring)
        await asyncio.sleep(0)
    await making
    assert [held.token.name for held in keyring] == ["ada"]


async def test_many_at_once_are_all_kept(tmp_path: Path) -> None:
    keyring = opened(tmp_path)
    made = await asyncio.gather(*(keyring.create(f"n{i}", Role.USER, "", None) for i in range(20)))
    await asyncio.gather(*(keyring.revoke(f"n{i}") for i in range(0, 20, 2)))
    kept = opened(tmp_path)
    assert sorted(held.token.name for held in kept) == sorted(f"n{i}" for i in range(1, 20, 2))
    for text, token in made[1::2]:
        assert kept.holder(text)[0] == token


async def test_an_end_is_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keyring = opened(tmp_path)
    text, token = await keyring.create("ada", Role.USER, "t", 60.0)
    _, left_s = keyring.holder(text)
    assert 59.0 < left_s <= 60.0
    assert token.expires_unix_s is not None
    monkeypatch.setattr(time, "time", lambda: token.expires_unix_s)
    assert refused(keyring, text) == "this token has expired"
    await keyring.create("bob", Role.USER, "t", None)
    assert [held.token.name for held in keyring] == ["bob"]


async def test_when_one_was_used_last_is_known_to_the_minute(tmp_path: Path) -> None:
    keyring = opened(tmp_path)
    text, _ = await keyring.create("ada", Role.USER, "t", None)
    (held,) = keyring
    used: list[float | None] = [held.last_used_unix_s]
    keyring.holder(text)
    used.append(held.last_used_unix_s)
    assert used[0] is None
    assert used[1] is not None
    assert used[1] % it.USED_S == 0


@pytest.mark.parametrize(
    ("name", "tenant", "ttl_s", "field"),
    [
        ("", "t", None, "name"),
        ("a" * 65, "t", None, "name"),
        ("a", "\n", None, "tenant"),
        ("a", "t", 0.5, "ttl_s"),
        ("a", "t", -1.0, "ttl_s"),
        ("a", "t", math.nan, "ttl_s"),
        ("a", "t", math.inf, "ttl_s"),
    ],
)
async def test_what_cannot_be_made_is_named(
    tmp_path: Path, name: str, tenant: str, ttl_s: float | None, field: str
) -> None:
    with pytest.raises(InferdError) as caught:
        await opened(tmp_path).create(name, Role.USER, tenant, ttl_s)
    assert (caught.value.code, caught.value.field) == (Code.INVALID, field)


async def test_there_are_only_so_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(it, "MAX_TOKENS", 1)
    keyring = opened(tmp_path)
    await keyring.create("ada", Role.USER, "t", None)
    with pytest.raises(InferdError, match="there are 1 tokens") as caught:
        await keyring.create("bob", Role.USER, "t", None)
    assert caught.value.code is Code.QUEUE_FULL


async def test_with_a_damaged_file_nobody_gets_in_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    text, _ = await opened(tmp_path).create("ada", Role.ADMIN, "t", None)
    path = tmp_path / "tokens.json"
    damaged = path.read_bytes()[:-20]
    path.write_bytes(damaged)
    bootstrap(tmp_path, monkeypatch, f"bob admin ops {hashlib.sha256(b'bob').hexdigest()}")
    keyring = opened(tmp_path)
    assert "no token holds" in caplog.text
    refused(keyring, text)
    refused(keyring, "bob")
    for attempt in (keyring.create("eve", Role.USER, "t", None), keyring.revoke("ada")):
        with pytest.raises(InferdError) as caught:
            await attempt
        assert caught.value.code is Code.INTERNAL
        assert str(tmp_path) not in caught.value.message
    assert path.read_bytes() == damaged


async def test_what_cannot_be_kept_is_not_made_but_is_revoked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keyring = opened(tmp_path)
    text, _ = await keyring.create("ada", Role.USER, "t", None)
    monkeypatch.setattr(files, "save", lambda kept, folder: False)
    with pytest.raises(InferdError, match="cannot be kept"):
        await keyring.create("bob", Role.USER, "t", None)
    assert [held.token.name for held in keyring] == ["ada"]
    with pytest.raises(InferdError, match="until the daemon ends"):
        await keyring.revoke("ada")
    refused(keyring, text)


def bootstrap(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    credentials = folder / "credentials"
    credentials.mkdir(exist_ok=True)
    (credentials / "tokens").write_text(text)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials))


async def test_the_services_tokens_hold_while_they_stand_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = f"bob admin ops {hashlib.sha256(b'bob').hexdigest()}\n"
    bootstrap(tmp_path, monkeypatch, line)
    keyring = opened(tmp_path)
    token, _ = keyring.holder("bob")
    assert (token.name, token.role, token.tenant) == ("bob", Role.ADMIN, "ops")
    await keyring.create("ada", Role.USER, "t", None)  # ours are kept without them
    bootstrap(tmp_path, monkeypatch, "")
    refused(opened(tmp_path), "bob")
    bootstrap(tmp_path, monkeypatch, line)
    keyring = opened(tmp_path)
    revoked = await keyring.revoke("bob")
    assert revoked is not None
    assert revoked.sha256 in line
    refused(keyring, "bob")
    refused(opened(tmp_path), "bob")  # although its line is still there
    assert [held.token.name for held in opened(tmp_path)] == ["ada"]


async def test_what_was_revoked_in_memory_alone_is_written_by_the_next_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keyring = opened(tmp_path)
    text, _ = await keyring.create("ada", Role.USER, "t", None)
    with monkeypatch.context() as full:
        full.setattr(files, "save", lambda kept, folder: False)
        with pytest.raises(InferdError, match="until the daemon ends"):
            await keyring.revoke("ada")
    opened(tmp_path).holder(text)  # the file has it still
    assert await keyring.revoke("ada") is None
    refused(opened(tmp_path), text)


async def test_who_leaves_while_a_token_is_written_undoes_no_revocation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keyring = opened(tmp_path)
    text, _ = await keyring.create("ada", Role.USER, "t", None)
    begun, go_on, save = threading.Event(), threading.Event(), files.save

    def slowly(kept: Any, folder: Any) -> bool:
        begun.set()
        assert go_on.wait(60)
        return save(kept, folder)

    monkeypatch.setattr(files, "save", slowly)
    creating = asyncio.create_task(keyring.create("bob", Role.USER, "t", None))
    await asyncio.to_thread(begun.wait, 60)
    creating.cancel()
    revoking = asyncio.create_task(keyring.revoke("ada"))
    await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await creating
    assert await revoking is not None
    refused(opened(tmp_path), text)


async def test_a_start_without_the_services_file_forgets_no_revocation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = f"bob admin ops {hashlib.sha256(b'bob').hexdigest()}\n"
    bootstrap(tmp_path, monkeypatch, line)
    await opened(tmp_path).revoke("bob")
    bootstrap(tmp_path, monkeypatch, "")
    await opened(tmp_path).create("ada", Role.USER, "t", None)
    bootstrap(tmp_path, monkeypatch, line)
    refused(opened(tmp_path), "bob")
