"""Models are born when wanted, drained when not, and forgiven after a pause."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from inferd.backends.messages import LoadFailed
from inferd.daemon.domain.config import ClassOptions, Turns
from inferd.daemon.domain.errors import Code, InferdError
from inferd.daemon.domain.model import ModelState
from inferd.daemon.domain.request import Priority
from inferd.daemon.node import resident as residents
from inferd.daemon.node.plans import Gpu
from inferd.daemon.node.stream import Resumed
from inferd.tests.daemon.node.house import (
    ENDLESS,
    GIB,
    SLOW,
    House,
    finished,
    first_text,
    load_failure,
    read,
    text,
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


async def test_a_load_that_ran_out_of_memory_is_tried_once_more_with_less(open_house: Open) -> None:
    house = open_house(load_s=2.0)
    waits = house.submit()
    resident = house.resident()
    n_cells = resident.model.plan.kv_cells
    await house.until(lambda: resident.model.pid is not None)
    assert resident.model.pid is not None
    resident.note_load_failure(LoadFailed("memory", "x"))
    os.kill(resident.model.pid, signal.SIGKILL)
    assert text(await read(waits))
    assert resident.model.plan.kv_cells == n_cells // 2
    assert resident.model.failures == 0


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


# failing


@pytest.fixture
def no_process(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Workers are run by this program; an empty name gives Python back."""
    python = sys.executable
    return lambda program: monkeypatch.setattr(sys, "executable", program or python)


async def test_a_worker_that_dies_while_loading_fails_all_who_wait(
    house: House, no_process: Callable[[str], None]
) -> None:
    no_process("/bin/false")
    first, second = house.submit(), house.submit()
    for stream in (first, second):
        with pytest.raises(InferdError, match=r"ended while loading \(exit status 1\)") as caught:
            await read(stream)
        assert caught.value.code is Code.MODEL_FAILED
    model = house.resident().model
    assert (model.state, model.failures) == (ModelState.FAILED, 1)
    assert house.node.ledger.reservations == {}


async def test_a_model_in_back_off_refuses_at_once_and_says_how_long(
    house: House, no_process: Callable[[str], None]
) -> None:
    no_process("/no/such/program")
    assert (await load_failure(house)).code is Code.MODEL_FAILED
    for _ in range(2):
        with pytest.raises(InferdError, match="No such file") as caught:
            house.submit()
        assert caught.value.code is Code.MODEL_FAILED
        assert caught.value.retry_after_ms is not None
        assert 0 < caught.value.retry_after_ms <= 1000
    assert (await load_failure(house)).retry_after_ms is not None


async def test_after_the_back_off_a_model_is_tried_again_and_a_token_forgives_it(
    house: House, no_process: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(residents, "BACK_OFF_S", (0.02, 0.04))
    no_process("/no/such/program")
    model = house.resident().model
    for n_failures in (1, 2, 3):
        await load_failure(house)
        assert model.failures == n_failures
        await house.until(lambda: model.state is ModelState.COLD)
    no_process("")
    assert await house.answer()
    assert model.error == ""
    assert finished(await read(house.submit("fake:crash=1 fake:tokens=4"))).completion_tokens == 4
    assert model.failures == 0


async def test_a_crash_before_any_token_counts_as_a_failure(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(residents, "BACK_OFF_S", (0.02, 30.0))
    await house.load()
    with pytest.raises(InferdError, match="ended 2 times while this request ran"):
        await house.answer("fake:crash=0")
    await house.until(lambda: house.resident().model.state is ModelState.FAILED)
    model = house.resident().model
    assert (model.failures, "signal SIGABRT" in model.error) == (2, True)


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
