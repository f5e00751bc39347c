"""Rows of models: what each worker holds, and until when."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from inferd.tests.daemon.node.house import ENDLESS, SLOW, House, first_text
from inferd.tests.daemon.node.test_view import look

if TYPE_CHECKING:
    from collections.abc import Callable

    Open = Callable[..., House]


async def test_a_model_that_works(open_house: Open) -> None:
    house = open_house(options={"slots": 1, "context_tokens": 512}, tokens_per_s=SLOW)
    await first_text(house.submit(ENDLESS))
    house.submit()
    (model,) = look(house).models
    assert (model.name, model.state, model.backend, model.devices) == ("alpha", "ready", "fake", ("cpu",))
    assert (model.slots, model.running, model.waiting, model.context_tokens) == (1, 1, 1, 512)
    assert (model.pid, model.bytes, model.idle_s) == (house.resident().model.pid, 30 << 20, None)
    assert (model.unload_in_s, model.leases, model.task) == (None, 0, "generate")


async def test_each_worker_of_a_model_has_its_row_and_who_waits_is_counted_once(open_house: Open) -> None:
    house = open_house(gpus=2, tokens_per_s=SLOW, options={"slots": 1, "replicas": 2})
    for stream in [house.submit(ENDLESS), house.submit(ENDLESS)]:
        await first_text(stream)
    house.submit(ENDLESS)
    leases = house.node.scheduler.lanes["alpha"].leases
    leases["lease-1"] = 0.0
    assert [(row.name, row.devices, row.running, row.waiting, row.leases) for row in look(house).models] == [
        ("alpha", ("gpu0",), 1, 1, 1),
        ("alpha", ("gpu1",), 1, 0, 0),
    ]
    for job in house.node.jobs:
        house.node.cancel(job.id)
    leases.clear()


async def test_an_idle_model_says_when_it_goes_unless_it_stays(open_house: Open) -> None:
    house = open_house(options={"keep_alive_s": 50.0})
    await house.load()
    (row,) = look(house, after_s=10.0).models
    assert row.idle_s is not None
    assert row.idle_s == pytest.approx(10.0, abs=5.0)
    assert row.unload_in_s == pytest.approx(50.0 - row.idle_s)
    assert look(house, after_s=100.0).models[0].unload_in_s == 0.0
    house.node.scheduler.lanes["alpha"].pinned = True
    assert (look(house).models[0].pinned, look(house).models[0].unload_in_s) == (True, None)


async def test_bytes_have_parts_only_while_they_are_held(house: House) -> None:
    resident = house.resident()
    resident.footprint = msgspec.structs.replace(resident.footprint, weights_bytes=5, kv_bytes=7)
    cold = look(house).models[0]
    assert (cold.bytes, cold.weights_bytes, cold.kv_bytes) == (0, 0, 0)
    await house.load()
    loaded = look(house).models[0]
    assert (loaded.weights_bytes, loaded.kv_bytes) == (5, 7)
