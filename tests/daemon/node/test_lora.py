"""Requests with adapters at a Node: known by name, answered each by its own, and files that are checked when wanted."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from inferd.daemon.domain.config import ModelOptions
from inferd.daemon.domain.errors import Code, InferdError
from inferd.tests.daemon.node.house import House, build, load_failure

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def adapter(folder: Path, gguf: Any) -> Path:
    file = gguf()
    file.keys = {"general.type": gguf.string("adapter"), "adapter.type": gguf.string("lora")}
    file.keys["general.architecture"] = gguf.string("llama")
    file.tensors = {"blk.0.attn_q.weight.lora_a": ((64, 4), 0)}
    path = folder / "a.gguf"
    path.write_bytes(file.build())
    return path


@pytest.fixture
async def house(folder: Path) -> Any:
    house = build(folder, options={"adapters": {"a": "a.gguf"}})
    yield house
    await house.close()


async def test_each_gets_the_answer_of_its_adapter(house: House, adapter: Path) -> None:
    plain, with_a = await house.answer("fake:tokens=9"), await house.answer("fake:tokens=9", lora="a")
    assert plain != with_a
    assert await house.answer("fake:tokens=9", lora="a") == with_a
    stream = house.submit("x", lora="a")
    assert stream.job.cache_salt == "default\0a", "what is shared with others is shared by those with the same adapter"
    house.node.cancel(stream.job.id)
    assert [adapter.name for adapter in house.resident().plan.adapters] == ["a"]


async def test_a_name_that_nobody_gave_is_refused(house: House, adapter: Path) -> None:
    with pytest.raises(InferdError, match="its adapters are a") as error:
        house.submit("x", lora="b")
    assert (error.value.code, error.value.field) == (Code.NOT_FOUND, "lora")


async def test_a_file_that_is_missing_is_said_by_name(house: House) -> None:
    error = await load_failure(house)
    assert (error.code, error.field) == (Code.MODEL_CORRUPT, "model")
    assert error.message == "alpha: adapter 'a': there is no such file below a folder of models"


async def test_a_file_that_was_replaced_is_another_adapter_from_the_next_load_on(house: House, adapter: Path) -> None:
    await house.load()
    before = house.resident().plan.adapters
    os.utime(adapter, ns=(0, 1_000_000))
    assert house.resident().plan.adapters == before, "it is in use"
    await house.node.wishes.unload("alpha", force=False)
    assert house.resident().plan.adapters != before
    assert await house.answer(lora="a")


def test_bytes_of_adapters_are_reserved(folder: Path, adapter: Path) -> None:
    from inferd.backends import kinds
    from inferd.daemon.domain.config import Config, Models
    from inferd.daemon.node.plans import make_plan, make_plans
    from inferd.daemon.system.catalog import Catalog

    catalog = Catalog([folder])
    facts = catalog.scan()["alpha"].facts
    assert facts is not None
    config = Config(models=Models(defaults=ModelOptions(adapters={"a": "a.gguf"})))
    found = catalog.adapters({"a": "a.gguf"}, facts)
    (plan,) = make_plans("alpha", facts, config, 1, {}, None, found)
    plain = make_plan("alpha", facts, config, 1)
    more = kinds.footprint(facts, plan).bytes_on["host"] - kinds.footprint(facts, plain).bytes_on["host"]
    assert more == found[0].n_bytes == 1024
