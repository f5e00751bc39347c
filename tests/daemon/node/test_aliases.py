"""Other names for models."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from inferd.daemon.domain.errors import Code
from inferd.daemon.domain.event import Kind
from inferd.daemon.domain.model import ModelState
from inferd.daemon.node import aliases
from inferd.daemon.node.aliases import Aliases
from inferd.daemon.node.planner import plan_load
from inferd.daemon.node.stream import Started
from inferd.daemon.system.state import save_json
from inferd.tests.daemon.node.house import House, failure, read

if TYPE_CHECKING:
    from pathlib import Path


async def test_a_request_by_another_name_is_one_of_the_model(house: House) -> None:
    assert await house.node.aliases.set("mine", "alpha") == ""
    events = await read(house.submit(model="mine"))
    assert [event.model for event in events if isinstance(event, Started)] == ["alpha"]
    assert house.state("alpha") is ModelState.READY
    assert list(house.node.fleet.deployments) == ["alpha"]
    assert list(house.node.scheduler.lanes) == ["alpha"]


async def test_all_that_takes_a_model_takes_its_other_name(house: House) -> None:
    await house.node.aliases.set("mine", "alpha")
    await house.load("mine")
    assert plan_load(house.node, "mine").model == "alpha"
    assert await house.node.tokenize("mine", prompt="ab") == [97, 98]
    assert house.node.controls.pin("mine", True) is False
    assert house.node.controls.pin("alpha", False) is True
    async with contextlib.aclosing(house.node.wishes.lease("mine")) as held:
        assert (await anext(held)).name == "alpha"
    assert await house.node.wishes.unload("mine", force=False) is True
    assert house.state("alpha") is ModelState.COLD


async def test_it_can_stand_for_another_one_and_be_taken_away(house: House) -> None:
    names = house.node.aliases
    assert await names.set("mine", "alpha") == ""
    assert await names.set("mine", "beta") == "alpha"
    assert (names.real("mine"), names.by_model()) == ("beta", {"beta": ["mine"]})
    assert await names.set("mine", "") == "beta"
    assert names.real("mine") == "mine"
    assert (await failure(names.set("mine", ""))).code is Code.NOT_FOUND
    assert house.told(Kind.ALIAS)[0] == "mine stands for alpha"


async def test_it_never_hides_a_model(house: House, folder: Path, gguf: Any) -> None:
    names = house.node.aliases
    error = await failure(names.set("beta", "alpha"))
    assert (error.code, error.field) == (Code.INVALID, "alias")
    await names.set("gamma", "alpha")
    (folder / "gamma.gguf").write_bytes(gguf.small(n_vocab=512).build())
    house.node.catalog.scan()
    assert names.real("gamma") == "gamma"
    assert await house.answer(model="gamma")
    assert "gamma" in house.node.fleet.deployments


async def test_one_stands_for_a_model_and_not_for_another_name(house: House) -> None:
    names = house.node.aliases
    await names.set("mine", "alpha")
    error = await failure(names.set("yours", "mine"))
    assert (error.code, error.field) == (Code.INVALID, "model")
    assert "'alpha'" in error.message
    error = await failure(names.set("yours", "nothing"))
    assert (error.code, error.field) == (Code.NOT_FOUND, "model")


@pytest.mark.parametrize("alias", ["", "A", "-a", "a/b", "../a", "a b", "a\n", "x" * 129, "é"])
async def test_it_is_a_name_like_any_other(house: House, alias: str) -> None:
    error = await failure(house.node.aliases.set(alias, "alpha"))
    assert (error.code, error.field) == (Code.INVALID, "alias")


async def test_there_are_only_so_many(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aliases, "MAX_ALIASES", 2)
    for name in ("one", "two", "two"):
        await house.node.aliases.set(name, "alpha")
    error = await failure(house.node.aliases.set("three", "alpha"))
    assert error.details == {"highest": 2}


async def test_a_model_that_has_gone_is_missed_by_its_own_name(house: House, folder: Path) -> None:
    await house.node.aliases.set("mine", "beta")
    (folder / "beta.gguf").unlink()
    error = await failure(read_of(house, "mine"))
    assert error.code is Code.NOT_FOUND
    assert "'beta'" in error.message


async def read_of(house: House, model: str) -> None:
    await read(house.submit(model=model))


# over restarts


async def test_they_are_kept(house: House, tmp_path: Path) -> None:
    names = house.node.aliases
    names.open(tmp_path)
    await names.set("mine", "alpha")
    again = Aliases(house.node)
    again.open(tmp_path)
    assert again.real("mine") == "alpha"
    await names.set("mine", "")
    again.open(tmp_path)
    assert again.real("mine") == "mine"


async def test_one_that_cannot_be_kept_is_none(house: House, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    house.node.aliases.open(tmp_path / "file")
    error = await failure(house.node.aliases.set("mine", "alpha"))
    assert error.code is Code.INTERNAL
    assert house.node.aliases.real("mine") == "mine"


@pytest.mark.parametrize("kept", [None, [], "x", {"a": 1}, {"../a": "alpha"}, {"a": "B"}, {"a": ["alpha"]}])
async def test_what_is_damaged_is_forgotten(house: House, tmp_path: Path, kept: Any) -> None:
    save_json("aliases", kept, tmp_path)
    house.node.aliases.open(tmp_path)
    assert house.node.aliases.real("a") == "a"
