"""Models are born when wanted, and make way for each other."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from inferd.daemon.domain.config import ClassOptions, Turns
from inferd.daemon.domain.errors import Code
from inferd.daemon.domain.event import Kind
from inferd.daemon.domain.model import ModelState
from inferd.daemon.domain.request import Priority
from inferd.daemon.node.plans import Gpu
from inferd.daemon.node.stream import Resumed
from inferd.daemon.system.workgroups import Group
from inferd.tests.daemon.node.house import (
    ENDLESS,
    GIB,
    SLOW,
    House,
    first_text,
    load_failure,
    read,
    tokens,
    what_the_fake_says,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Open = Callable[..., House]


AT_ONCE = Turns(min_resident_s=0.0)


# loading


async def test_a_model_without_room_is_refused_with_both_numbers(open_house: Open) -> None:
    house = open_house(host_bytes=1 << 20)
    error = await load_failure(house)
    assert (error.code, error.details["free_bytes"]) == (Code.NO_ROOM, 1 << 20)


async def test_room_for_one_serves_one_after_the_other(open_house: Open) -> None:
    house = open_house(host_bytes=40 << 20, scheduler=AT_ONCE)
    for model in ("alpha", "beta", "alpha"):
        await house.load(model)
    assert house.state("beta") is ModelState.COLD
    assert house.node.meter.total.evictions == 2
    assert house.told(Kind.MODEL_EVICTED) == ["alpha makes way for beta", "beta makes way for alpha"]


async def test_workers_and_prompt_helpers_are_born_in_groups(open_house: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    house = open_house()
    born: list[str] = []

    def begin(name: str, limit_bytes: int, n_pids: int) -> Group:
        born.append(name.partition("/")[0])
        return Group()

    monkeypatch.setattr(house.node.fleet.groups, "begin", begin)
    await house.load()
    assert await house.node.fleet.get("alpha").prompter.prepare(prompt="hi")
    assert born == ["alpha", "alpha"]


async def test_what_loads_took_corrects_what_the_next_one_reserves(house: House) -> None:
    resident = house.resident()
    plain = resident.bytes_on["host"]
    resident.footprint = msgspec.structs.replace(resident.footprint, host_anon_bytes=plain - 1000)
    await house.load()
    resident.widest_prompt = resident.model.plan.n_ubatch
    house.node.fleet.observe({"alpha": {"host": plain + 5000}})
    assert house.node.fleet.estimate_error(resident) == pytest.approx(-6000 / (plain + 6000))
    assert await house.node.wishes.unload("alpha", force=False)
    await house.load()
    assert house.node.ledger.reservations["alpha"].bytes_on["host"] == plain + 6000


async def test_a_pinned_model_does_not_make_way(open_house: Open) -> None:
    house = open_house(host_bytes=40 << 20, options={"pinned": True}, scheduler=AT_ONCE)
    await house.load("alpha")
    assert (await load_failure(house, "beta")).code is Code.NO_ROOM


async def test_a_busy_model_makes_way_after_the_longest_wait_and_what_ran_goes_on_later(open_house: Open) -> None:
    turns = Turns(min_resident_s=0.0, interactive=ClassOptions(max_wait_s=1.0))
    house = open_house(host_bytes=40 << 20, tokens_per_s=SLOW, scheduler=turns)
    runs = house.submit("fake:tokens=200", priority=Priority.INTERACTIVE)
    events = await first_text(runs)
    assert await house.answer("fake:tokens=2", model="beta", priority=Priority.INTERACTIVE)
    assert runs.job.live, "it was not waited for"
    events += await read(runs)
    assert tokens(events) == what_the_fake_says(runs.job)
    assert [event.why for event in events if isinstance(event, Resumed)] == ["evicted"]


async def test_a_file_that_was_replaced_while_its_model_was_cold_is_read_again(
    house: House, folder: Path, gguf: Any
) -> None:
    before = house.resident()
    assert house.resident() is before
    (folder / "alpha.gguf").write_bytes(gguf.small(n_layers=3, n_vocab=600).build())
    after = house.resident()
    assert after is not before
    assert (after.model.facts.n_layers, after.model.facts.n_vocab) == (3, 600)
    await house.load()
    (folder / "alpha.gguf").write_bytes(gguf.small().build())
    assert house.resident() is after  # it is in use


async def test_a_model_whose_draft_model_is_not_there_is_refused_and_says_so(open_house: Open) -> None:
    house = open_house(options={"draft_model": "gamma"})
    error = await load_failure(house)
    assert error.code is Code.MODEL_FAILED
    assert error.message == "alpha: draft_model: there is no model 'gamma'"


async def test_gpus_that_are_found_later_are_used_by_the_next_load(house: House) -> None:
    assert house.resident().model.plan.devices == ()
    house.node.ledger.add_pool("gpu0", 8 * GIB, 0)
    house.node.fleet.gpus = {"gpu0": Gpu(8 * GIB, "CUDA0")}
    assert house.resident().model.plan.devices == ("gpu0",)


async def test_prompts_that_are_being_read_survive_an_unload(house: House) -> None:
    first = asyncio.create_task(house.node.tokenize("alpha", prompt="hi"))
    await asyncio.sleep(0)
    await house.node.wishes.unload("alpha", force=False)
    assert await first == list(b"hi")
    helper = house.deployment().prompter._process
    assert helper is not None
    assert helper.pid is not None
    os.kill(helper.pid, signal.SIGSTOP)
    second = asyncio.create_task(house.node.tokenize("alpha", prompt="ho"))
    await asyncio.sleep(0)
    await house.node.wishes.unload("alpha", force=False)
    house.node.tick(time.monotonic() + 1e6)
    os.kill(helper.pid, signal.SIGCONT)
    assert await second == list(b"ho")
    await house.node.wishes.unload("alpha", force=False)
    assert await house.node.tokenize("alpha", prompt="hi") == list(b"hi")


async def test_the_prompt_helper_of_a_cold_model_goes_after_the_keep_alive(open_house: Open) -> None:
    house = open_house(options={"keep_alive_s": 50.0})
    await house.node.tokenize("alpha", prompt="hi")
    prompter = house.deployment().prompter
    house.node.tick(time.monotonic() + 49)
    assert list(house.node.ledger.reservations) != []
    house.node.tick(time.monotonic() + 51)
    await prompter.wait()
    assert house.node.ledger.reservations == {}


# cores


async def test_workers_that_compute_side_by_side_divide_the_cores(slow_house: House) -> None:
    it, fleet = slow_house, slow_house.node.fleet
    fleet.n_threads = 2
    for name in ("alpha", "beta"):
        await it.load(name)
        resident = it.resident(name)
        resident.model.plan = msgspec.structs.replace(resident.model.plan, n_threads=2)
        resident.n_threads = 2
    streams = [it.submit(ENDLESS, name) for name in ("alpha", "beta")]
    for stream in streams:
        await first_text(stream)
    assert [resident.n_threads for resident in fleet] == [1, 1]
    it.node.cancel(streams[1].job.id)
    await it.until(lambda: it.resident("alpha").n_threads == 2)
    it.node.cancel(streams[0].job.id)


async def test_a_worker_with_exact_numerics_keeps_its_threads(slow_house: House) -> None:
    it, fleet = slow_house, slow_house.node.fleet
    fleet.n_threads = 2
    for name, numerics in (("alpha", "exact"), ("beta", "fast")):
        await it.load(name)
        resident = it.resident(name)
        resident.model.plan = msgspec.structs.replace(resident.model.plan, n_threads=2, numerics=numerics)
        resident.n_threads = 2
    streams = [it.submit(ENDLESS, name) for name in ("alpha", "beta")]
    for stream in streams:
        await first_text(stream)
    assert [resident.n_threads for resident in fleet] == [2, 1]
    for stream in streams:
        it.node.cancel(stream.job.id)
