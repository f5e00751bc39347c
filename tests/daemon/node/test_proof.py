"""A model serves when its files are what they should be, and not before."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from typing import TYPE_CHECKING

import pytest

from inferd.daemon.domain.errors import Code
from inferd.daemon.domain.model import ModelState
from inferd.daemon.node.proof import Proof
from inferd.tests.daemon.node.house import LIMIT_S, House, load_failure

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from inferd.daemon.domain.config import Verify

    Open = Callable[..., House]


async def seen(proof: Proof) -> None:
    assert proof._looking is not None
    await proof._looking


async def test_without_doubt_nothing_is_waited_for() -> None:
    told: list[str] = []
    Proof().when_proven(lambda: told.append("ready"))
    assert told == ["ready"]


@pytest.mark.parametrize("changed", [None, "/m"])
async def test_ready_waits_for_the_proof(changed: str | None) -> None:
    told: list[str] = []
    looked = threading.Event()

    def look() -> str | None:
        assert looked.wait(LIMIT_S)
        return changed

    proof = Proof()
    proof.begin(look, lambda: told.append("refuted"))
    proof.when_proven(lambda: told.append("ready"))
    assert told == []
    looked.set()
    await seen(proof)
    proof.when_proven(lambda: told.append("again"))
    assert told == (["ready", "again"] if changed is None else ["refuted", "refuted"])


async def test_what_cannot_be_looked_at_is_not_believed() -> None:
    told: list[str] = []

    def look() -> str | None:
        raise OSError("the disk is gone")

    proof = Proof()
    proof.begin(look, lambda: told.append("refuted"))
    await seen(proof)
    assert told == ["refuted"]


@pytest.mark.parametrize("looks", [False, True])
@pytest.mark.parametrize("same", [False, True])
async def test_what_changes_meanwhile_is_not_what_was_looked_at(looks: bool, same: bool) -> None:
    told: list[str] = []
    proof = Proof()
    proof.bind(lambda: same, lambda: told.append("changed"))
    if looks:
        proof.begin(lambda: None, lambda: told.append("refuted"))
    proof.when_proven(lambda: told.append("ready"))
    if looks:
        await seen(proof)
    assert told == ["ready" if same else "changed"]


async def test_a_load_that_is_over_hears_nothing() -> None:
    told: list[str] = []
    proof = Proof()
    proof.begin(lambda: "/m", lambda: told.append("refuted"))
    proof.when_proven(lambda: told.append("ready"))
    proof.drop()
    await seen(proof)
    proof.when_proven(lambda: told.append("late"))
    assert told == []


async def test_a_file_that_is_not_the_imported_one_is_refused(house: House, folder: Path) -> None:
    house.node.fleet.imports.record(str(folder / "alpha.gguf"), "0f" * 32)
    error = await load_failure(house)
    assert (error.code, error.message) == (
        Code.MODEL_CORRUPT,
        "alpha: the file is another one than was imported; pull it again, or copy it",
    )
    assert house.state() is ModelState.FAILED
    house.node.fleet.imports.forget(str(folder / "alpha.gguf"))
    await house.load("beta")


async def test_one_that_is_serves(open_house: Open, folder: Path) -> None:
    house = open_house()
    path = folder / "alpha.gguf"
    house.node.fleet.imports.record(str(path), hashlib.sha256(path.read_bytes()).hexdigest())
    assert await house.answer()
    assert house.node.fleet.imports.doubtful([str(path)], "stamp") == []


async def test_one_that_is_another_one_for_a_moment_is_refused(
    open_house: Open, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker may have opened what lay there between two looks."""
    house = open_house()
    path, imports = folder / "alpha.gguf", house.node.fleet.imports
    imports.record(str(path), hashlib.sha256(path.read_bytes()).hexdigest())
    looked = imports.changed

    def swap(paths: list[str], verify: Verify) -> str | None:
        found = looked(paths, verify)
        path.rename(folder / "aside")
        path.write_bytes(b"another one")
        (folder / "aside").rename(path)
        return found

    with monkeypatch.context() as patched:
        patched.setattr(imports, "changed", swap)
        error = await load_failure(house)
    assert (error.code, error.message) == (
        Code.MODEL_CORRUPT,
        "alpha: the file was changed while it was loaded; ask again",
    )


async def test_one_that_is_told_to_go_meanwhile_goes(open_house: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    house = open_house()
    looked = threading.Event()
    imports = house.node.fleet.imports
    monkeypatch.setattr(imports, "doubtful", lambda paths, verify: ["x"])
    monkeypatch.setattr(imports, "changed", lambda paths, verify: None if looked.wait(LIMIT_S) else "x")
    resident = house.resident()
    loading = asyncio.create_task(house.load())
    await house.until(lambda: resident.proof._then is not None or resident.model.load_progress >= 1.0)
    loading.cancel()
    async with asyncio.timeout(LIMIT_S):
        await house.node.wishes.unload("alpha", force=True)
    looked.set()
    await seen(resident.proof)
    assert house.state() is ModelState.COLD
