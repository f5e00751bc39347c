"""What operators ask for while the daemon works."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING

import pytest

from inferd.daemon.domain.config import Turns
from inferd.daemon.domain.errors import Code, InferdError
from inferd.daemon.domain.event import Kind
from inferd.daemon.domain.model import ModelState
from inferd.daemon.domain.request import Priority
from inferd.daemon.node.stream import Queued, Resumed
from inferd.tests.daemon.node.house import (
    ENDLESS,
    SLOW,
    House,
    failure,
    finished,
    first_text,
    load_failure,
    read,
    tokens,
    what_the_fake_says,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Any

    Open = Callable[..., House]

BATCH, CHAT = Priority.BATCH, Priority.INTERACTIVE
AT_ONCE = Turns(min_resident_s=0.0)


# priority


async def test_one_that_is_moved_up_starts_before_the_others_and_is_told_its_place(open_house: Open) -> None:
    house = open_house(options={"slots": 1}, tokens_per_s=SLOW)
    busy = house.submit(ENDLESS, priority=CHAT)
    await first_text(busy)
    first = house.submit("fake:tokens=2", priority=BATCH, request_id="first")
    second = house.submit("fake:tokens=2", priority=BATCH, request_id="second")
    await asyncio.sleep(0)  # their prompts are tokens already
    assert house.node.controls.set_priority("second", Priority.NORMAL)
    house.node.tick(time.monotonic())
    for position, stream in enumerate((second, first)):
        event = (await stream.take())[-1]
        assert isinstance(event, Queued)
        assert (event.request_id, event.position, event.why) == (stream.job.id, position, "slot")
    house.node.cancel(busy.job.id)
    await read(second)
    await read(first)
    assert first.job.started_s is not None
    assert second.job.started_s is not None
    assert second.job.started_s < first.job.started_s
    assert house.told(Kind.PRIORITY_CHANGED) == ["second was moved from batch to normal"]


async def test_one_that_becomes_interactive_gets_a_slot_at_once_and_the_other_goes_on_later(open_house: Open) -> None:
    house = open_house(options={"slots": 1}, tokens_per_s=SLOW)
    batch = house.submit("fake:tokens=200", priority=BATCH)
    events = await first_text(batch)
    waits = house.submit("fake:tokens=2", priority=BATCH)
    assert house.node.controls.set_priority(waits.job.id, CHAT)
    assert finished(await read(waits)).completion_tokens == 2
    assert batch.job.live, "it was not waited for"
    events += await read(batch)
    assert tokens(events) == what_the_fake_says(batch.job)
    assert [event.why for event in events if isinstance(event, Resumed)] == ["preempted"]
    assert house.told(Kind.PREEMPTED) == [f"{batch.job.id} makes way for {waits.job.id}"]
    assert house.told(Kind.RESUMED) == [f"{batch.job.id} goes on where it stopped (preempted)"]


async def test_a_running_one_that_is_moved_down_makes_way(open_house: Open) -> None:
    house = open_house(options={"slots": 1}, tokens_per_s=SLOW)
    runs = house.submit(ENDLESS, priority=CHAT)
    await first_text(runs)
    waits = house.submit("fake:tokens=2", priority=CHAT)
    assert house.node.controls.set_priority(runs.job.id, BATCH)
    assert finished(await read(waits)).completion_tokens == 2
    assert runs.job.live
    house.node.cancel(runs.job.id)


async def test_all_choices_of_a_call_move_with_any_of_them(open_house: Open) -> None:
    house = open_house(options={"slots": 1}, tokens_per_s=SLOW)
    choices = [
        house.submit(ENDLESS, request_id=name, parent_id="" if name == "r" else "r", priority=BATCH, choice=i)
        for i, name in enumerate(("r", "r.1", "r.2"))
    ]
    other = house.submit(ENDLESS, priority=BATCH)
    assert house.node.controls.set_priority("r.1", CHAT)
    assert {stream.job.request.priority for stream in choices} == {CHAT}
    assert other.job.request.priority is BATCH
    assert house.node.controls.set_priority("r", Priority.NORMAL)
    assert {stream.job.request.priority for stream in choices} == {Priority.NORMAL}
    for stream in (*choices, other):
        house.node.cancel(stream.job.id)


async def test_what_is_over_or_there_already_is_not_moved(house: House) -> None:
    assert not house.node.controls.set_priority("nobody", CHAT)
    stream = house.submit(priority=CHAT)
    assert house.node.controls.set_priority(stream.job.id, CHAT)
    await read(stream)
    assert not house.node.controls.set_priority(stream.job.id, BATCH)
    assert house.told(Kind.PRIORITY_CHANGED) == []


async def test_one_whose_prompt_is_being_read_can_be_moved(house: House) -> None:
    stream = house.submit(None, prompt="fake:tokens=2", priority=BATCH)
    assert house.node.controls.set_priority(stream.job.id, CHAT)
    assert finished(await read(stream)).completion_tokens == 2


# cancelling


async def test_who_is_cancelled_by_its_id_is_told_of_and_a_client_that_leaves_is_not(slow_house: House) -> None:
    house = slow_house
    asked, left = house.submit(ENDLESS, request_id="asked"), house.submit(ENDLESS)
    assert house.node.controls.cancel("asked")
    assert not house.node.controls.cancel("asked")
    house.node.hang_up(left)
    assert (await failure(read(asked))).code is Code.CANCELLED
    assert house.told(Kind.CANCELLED) == ["asked was cancelled by its id"]


async def test_no_id_is_not_every_id(slow_house: House) -> None:
    house = slow_house
    stream = house.submit(ENDLESS)
    for call in (partial(house.node.controls.cancel, ""), partial(house.node.controls.set_priority, "", BATCH)):
        with pytest.raises(InferdError) as caught:
            call()
        assert (caught.value.code, caught.value.field) == (Code.INVALID, "request_id")
    assert not house.node.cancel("")
    assert stream.job.live
    assert stream.job.request.priority is Priority.NORMAL
    house.node.cancel(stream.job.id)


# pins


async def test_a_pinned_model_makes_way_again_when_it_is_unpinned(open_house: Open) -> None:
    house = open_house(host_bytes=40 << 20, scheduler=AT_ONCE)
    assert not house.node.controls.pin("alpha", True)
    assert house.state() is ModelState.COLD  # a pin loads nothing
    await house.load("alpha")
    assert (await load_failure(house, "beta")).code is Code.NO_ROOM
    assert house.node.controls.pin("alpha", True)
    assert house.node.controls.pin("alpha", False)
    await house.load("beta")
    assert house.state("alpha") is ModelState.COLD
    house.node.events.tick()
    assert house.told(Kind.PINNED, Kind.UNPINNED) == ["alpha is pinned", "alpha is not pinned any more"]


async def test_who_waits_for_a_model_that_is_pinned_meanwhile_is_told_no(open_house: Open) -> None:
    house = open_house(host_bytes=40 << 20, tokens_per_s=SLOW, scheduler=AT_ONCE)
    runs = house.submit(ENDLESS, priority=CHAT)
    await first_text(runs)
    waits = house.submit(model="beta")
    house.node.controls.pin("alpha", True)
    assert (await failure(read(waits))).code is Code.NO_ROOM
    house.node.cancel(runs.job.id)


@pytest.mark.parametrize("configured", [True, False])
async def test_an_operators_word_outlives_the_file_and_wins_over_the_config(
    open_house: Open, folder: Path, gguf: Any, configured: bool
) -> None:
    house = open_house(options={"pinned": configured})
    before = house.resident()
    assert house.node.controls.pin("alpha", not configured) is configured
    (folder / "alpha.gguf").write_bytes(gguf.small(n_layers=3, n_vocab=600).build())
    assert house.resident() is not before
    assert house.node.scheduler.lanes["alpha"].pinned is not configured
    house.resident("beta")
    assert house.node.scheduler.lanes["beta"].pinned is configured


async def test_a_model_that_nobody_knows_cannot_be_pinned(house: House) -> None:
    with pytest.raises(InferdError) as caught:
        house.node.controls.pin("gamma", True)
    assert (caught.value.code, caught.value.field) == (Code.NOT_FOUND, "model")


# draining


async def test_while_it_drains_nothing_new_comes_in_and_what_is_here_goes_on(open_house: Open) -> None:
    house = open_house(options={"slots": 1}, tokens_per_s=SLOW)
    runs, waits = house.submit("fake:tokens=30"), house.submit("fake:tokens=2")
    cold = house.submit("fake:tokens=2", "beta")
    await first_text(runs)
    assert not house.node.controls.drain(True)
    assert house.node.draining
    with pytest.raises(InferdError) as caught:
        house.submit()
    assert (caught.value.code, caught.value.retry_after_ms) == (Code.DRAINING, 5000)
    assert (await load_failure(house)).code is Code.DRAINING
    assert (await failure(anext(house.node.wishes.lease("alpha")))).code is Code.DRAINING
    assert [finished(await read(stream)).completion_tokens for stream in (runs, waits, cold)] == [30, 2, 2]
    assert house.node.controls.drain(True)
    assert house.node.controls.drain(False)
    assert await house.answer()
    house.node.events.tick()
    assert house.told(Kind.DRAINING, Kind.SERVING) == ["no new request is taken in", "requests are taken in again"]


async def test_a_lease_and_a_load_from_before_go_on(open_house: Open) -> None:
    house = open_house(load_s=0.1)
    loading = house.node.wishes.load("alpha")
    await anext(loading)
    lease = house.node.wishes.lease("beta")
    assert (await anext(lease)).state is ModelState.READY
    house.node.controls.drain(True)
    async for model in loading:
        state = model.state
    assert state is ModelState.READY
    assert house.node.scheduler.lanes["beta"].leases
    await lease.aclose()


async def test_who_wants_to_know_of_it_is_told_when_it_changes(house: House) -> None:
    seen: list[bool] = []
    house.node.health.on_change = lambda: seen.append(house.node.draining)
    for draining in (True, True, False, False):
        house.node.controls.drain(draining)
    assert seen == [True, False]


async def test_a_daemon_that_ends_does_not_serve_again(house: House) -> None:
    house.node.controls.drain(True)
    await house.node.drain(0.0)
    with pytest.raises(InferdError) as caught:
        house.node.controls.drain(False)
    assert caught.value.code is Code.SHUTTING_DOWN
    assert house.told(Kind.DAEMON_STOPPING) == ["the daemon is shutting down"]


# whose


async def test_what_another_tenant_has_is_not_there_for_one(open_house: Open) -> None:
    house = open_house(options={"slots": 1}, tokens_per_s=SLOW)
    mine = house.submit(ENDLESS, request_id="r", tenant="mine")
    await first_text(mine)
    controls = house.node.controls
    assert (controls.tenant_of("r"), controls.tenant_of("nobody")) == ("mine", None)
    assert not controls.cancel("r", "theirs")
    assert not controls.set_priority("r", BATCH, "theirs")
    assert mine.job.live
    assert controls.set_priority("r", BATCH, "mine")
    assert controls.cancel("r", "mine")
    assert controls.tenant_of("r") is None
