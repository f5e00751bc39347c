"""Loads, leases and unloads as the doors ask for them."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from typing import TYPE_CHECKING

import pytest

from inferd.backends import process
from inferd.daemon.domain.config import Turns
from inferd.daemon.domain.errors import Code, InferdError
from inferd.daemon.domain.model import ModelState
from inferd.daemon.node import resident as residents
from inferd.tests.daemon.node.house import ENDLESS, SLOW, House, finished, first_text, load_failure, read

if TYPE_CHECKING:
    from collections.abc import Callable

    Open = Callable[..., House]


AT_ONCE = Turns(min_resident_s=0.0)


async def test_a_load_is_told_from_cold_to_ready(open_house: Open) -> None:
    house = open_house(load_s=0.1)
    states, progress = [], []
    async for model in house.node.wishes.load("alpha"):
        states.append(model.state)
        progress.append(model.load_progress)
    assert (states[0], states[-1]) == (ModelState.LOADING, ModelState.READY)
    assert progress == sorted(progress)
    assert progress[-1] == 1.0
    model = house.resident().model
    assert model.load_ms >= 100
    assert model.ready is not None
    assert model.booked_bytes == house.node.ledger.booked_bytes("host") > 0


async def test_a_model_that_is_ready_is_not_loaded_again(house: House) -> None:
    pid = (await house.load()).model.pid
    assert (await house.load()).model.pid == pid


async def test_many_who_want_a_model_get_one_worker(house: House) -> None:
    loaded = await asyncio.gather(*(house.load() for _ in range(5)), house.answer())
    assert loaded[:5] == [house.resident()] * 5
    assert list(house.node.ledger.reservations) == ["alpha"]


async def test_who_reads_slowly_how_a_load_goes_misses_nothing(house: House) -> None:
    news = house.node.wishes.load("alpha")
    model = await anext(news)
    await house.load()  # all the changes happen while nobody asks for them
    async with asyncio.timeout(10):
        assert [it.state async for it in news] == [ModelState.READY]
    assert model.state is ModelState.READY


async def test_a_lease_keeps_a_model_while_others_want_its_memory(open_house: Open) -> None:
    house = open_house(host_bytes=40 << 20, scheduler=AT_ONCE)
    lease = house.node.wishes.lease("alpha")
    assert (await anext(lease)).state is ModelState.READY
    waits = house.submit(model="beta")
    house.node.tick(time.monotonic() + 1000)
    assert house.state("alpha") is ModelState.READY
    await lease.aclose()
    await read(waits)
    assert house.state("alpha") is ModelState.COLD


async def test_a_lease_whose_model_was_lost_gets_it_again(open_house: Open) -> None:
    house = open_house()
    lease = house.node.wishes.lease("alpha")
    first = (await anext(lease)).pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    again = await anext(lease)
    assert again.state is ModelState.READY
    assert again.pid != first
    await lease.aclose()


@pytest.mark.parametrize("force", [False, True])
async def test_unloading_ends_the_leases_of_a_model(house: House, force: bool) -> None:
    lease = house.node.wishes.lease("alpha")
    assert (await anext(lease)).state is ModelState.READY
    held = asyncio.create_task(anext(lease))
    assert await house.node.wishes.unload("alpha", force=force)
    with pytest.raises(InferdError, match="alpha was unloaded"):
        await held
    await house.until(lambda: house.state() is ModelState.COLD)
    assert not house.node.scheduler.lanes["alpha"].leases
    again = house.node.wishes.lease("alpha")
    assert (await anext(again)).state is ModelState.READY
    await again.aclose()


async def test_names_that_are_not_there_are_refused(house: House) -> None:
    assert (await load_failure(house, "gamma")).code is Code.NOT_FOUND
    with pytest.raises(InferdError, match="no model"):
        await house.node.wishes.unload("gamma", force=False)


async def test_unloading_waits_for_what_runs_and_keeps_what_waits(open_house: Open) -> None:
    house = open_house(options={"slots": 1}, tokens_per_s=SLOW)
    runs = house.submit("fake:tokens=30")
    await first_text(runs)
    model, pid = house.resident().model, house.resident().model.pid
    unloading = asyncio.create_task(house.node.wishes.unload("alpha", force=False))
    await house.until(lambda: model.state is ModelState.DRAINING)
    waits = house.submit("fake:tokens=2")
    assert finished(await read(runs)).completion_tokens == 30
    assert await unloading
    assert finished(await read(waits)).completion_tokens == 2
    assert model.pid != pid


async def test_unloading_by_force_ends_what_runs(slow_house: House) -> None:
    house = slow_house
    runs = house.submit(ENDLESS)
    await first_text(runs)
    assert await house.node.wishes.unload("alpha", force=True)
    with pytest.raises(InferdError, match="alpha was unloaded") as caught:
        await read(runs)
    assert caught.value.code is Code.CANCELLED
    assert house.resident().model.state is ModelState.COLD
    assert house.node.ledger.reservations == {}


async def test_force_comes_through_while_the_model_drains(slow_house: House) -> None:
    house = slow_house
    runs = house.submit(ENDLESS)
    await first_text(runs)
    gentle = asyncio.create_task(house.node.wishes.unload("alpha", force=False))
    await house.until(lambda: house.resident().model.state is ModelState.DRAINING)
    assert runs.job.live
    assert await house.node.wishes.unload("alpha", force=True)
    assert await gentle
    assert house.node.meter.total.requests_cancelled == 1


async def test_a_model_that_loads_can_be_unloaded(open_house: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "KILL_AFTER_S", 0.1)  # one that loads does not listen
    house = open_house(load_s=60.0)
    news = house.node.wishes.load("alpha")
    await anext(news)
    assert house.state() is ModelState.LOADING
    assert await house.node.wishes.unload("alpha", force=False)
    assert house.state() is ModelState.COLD


async def test_a_cold_model_is_not_unloaded(house: House) -> None:
    assert not await house.node.wishes.unload("alpha", force=True)


async def test_a_load_asked_for_while_the_model_drains_comes_after_that(slow_house: House) -> None:
    house = slow_house
    runs = house.submit("fake:tokens=30")
    await first_text(runs)
    unloading = asyncio.create_task(house.node.wishes.unload("alpha", force=False))
    await house.until(lambda: house.resident().model.state is ModelState.DRAINING)
    await house.load()
    assert finished(await read(runs)).completion_tokens == 30
    assert await unloading


async def test_a_load_does_not_wait_for_a_place_that_drains_while_another_one_is_free(open_house: Open) -> None:
    house = open_house(gpus=2, tokens_per_s=SLOW, options={"slots": 1})
    await house.load()
    runs = house.submit(ENDLESS)
    await first_text(runs)
    unloading = asyncio.create_task(house.node.wishes.unload("alpha", force=False))
    await house.until(lambda: house.state() is ModelState.DRAINING)
    assert (await house.load()).model.plan.devices == ("gpu1",)
    assert runs.job.live
    house.node.cancel(runs.job.id)
    assert await unloading


async def test_a_forced_unload_does_not_load_the_model_elsewhere(open_house: Open) -> None:
    house = open_house(gpus=2, tokens_per_s=SLOW, options={"slots": 1})
    lease = house.node.wishes.lease("alpha")
    await anext(lease)
    held = asyncio.create_task(anext(lease))
    runs = house.submit(ENDLESS, request_id="root")
    await first_text(runs)
    waits = house.submit(ENDLESS, request_id="root.1", parent_id="root", choice=1)
    assert await house.node.wishes.unload("alpha", force=True)
    for ending in (read(runs), read(waits), held):
        with pytest.raises(InferdError):
            await ending
    assert house.node.ledger.reservations == {}


async def test_an_error_of_long_ago_is_nothing_to_the_next_load(
    open_house: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = open_house(tokens_per_s=SLOW)
    monkeypatch.setattr(residents, "BACK_OFF_S", (0.01,))
    monkeypatch.setattr(sys, "executable", "/no/such/program")
    await load_failure(house)
    monkeypatch.undo()
    await house.until(lambda: house.state() is ModelState.COLD)
    runs = house.submit(ENDLESS)
    await first_text(runs)
    unloading = asyncio.create_task(house.node.wishes.unload("alpha", force=False))
    await house.until(lambda: house.state() is ModelState.DRAINING)
    loading = asyncio.create_task(house.load())
    await asyncio.sleep(0)
    house.node.cancel(runs.job.id)
    assert (await loading).model.state is ModelState.READY
    assert await unloading
