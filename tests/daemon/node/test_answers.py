"""What workers say, heard by a Node over the fake engine."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from inferd.backends.messages import Delta, Stopped
from inferd.daemon.domain.errors import Code
from inferd.daemon.domain.model import ModelState
from inferd.daemon.domain.request import Phase
from inferd.daemon.node.stream import Resumed
from inferd.tests.daemon.node.house import (
    ENDLESS,
    LIMIT_S,
    SLOW,
    House,
    failure,
    finished,
    first_text,
    read,
    text,
    tokens,
    what_the_fake_says,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    Open = Callable[..., House]


async def test_a_parked_request_goes_on_with_the_same_words(slow_house: House) -> None:
    house = slow_house
    stream = house.submit("fake:tokens=40")
    events = await first_text(stream)
    job = stream.job
    house.node.answers.on_events(house.resident(), [Stopped(job.id, job.attempt, len(job.generated), parked=True)])
    assert (job.phase, job.attempt) == (Phase.RUNNING, 2)
    events += await read(stream)
    assert tokens(events) == what_the_fake_says(job)
    assert text(events).count(" ") == 40
    assert [event.why for event in events if isinstance(event, Resumed)] == ["kv_full"]
    assert finished(events).completion_tokens == 40


async def test_frames_of_an_attempt_that_is_over_do_not_exist(slow_house: House) -> None:
    house = slow_house
    stream = house.submit(ENDLESS)
    await first_text(stream)
    house.node.answers.on_events(house.resident(), [Stopped(stream.job.id, stream.job.attempt + 1, 0)])
    house.node.answers.on_events(house.resident(), [Stopped("nobody", 1, 0)])
    assert stream.job.phase is Phase.RUNNING


async def test_one_parked_while_its_model_drains_goes_on_in_the_next_worker(slow_house: House) -> None:
    house = slow_house
    stream = house.submit("fake:tokens=40")
    events = await first_text(stream)
    job, resident = stream.job, house.resident()
    pid = resident.model.pid
    unloading = asyncio.create_task(house.node.wishes.unload("alpha", force=False))
    await house.until(lambda: resident.model.state is ModelState.DRAINING)
    house.node.answers.on_events(resident, [Stopped(job.id, job.attempt, len(job.generated), parked=True)])
    async with asyncio.timeout(LIMIT_S):
        assert await unloading
    events += await read(stream)
    assert tokens(events) == what_the_fake_says(job)
    assert resident.model.pid != pid


async def test_a_request_that_gets_no_token_between_two_crashes_fails_and_the_others_go_on(open_house: Open) -> None:
    house = open_house(tokens_per_s=SLOW)
    beside = house.submit("fake:tokens=100")
    await first_text(beside)
    error = await failure(read(house.submit("fake:crash=0")))
    assert (error.code, error.retry_after_ms) == (Code.WORKER_CRASHED, 1000)
    assert "alpha" in error.message
    assert beside.job.live
    events = await read(beside)
    assert finished(events).completion_tokens == 100


async def test_a_worker_speaks_for_its_own_requests_only(slow_house: House) -> None:
    """It may have been taken over by its file, and ids of requests are no secret."""
    house = slow_house
    await house.load("beta")
    stream = house.submit(ENDLESS)
    await first_text(stream)
    job, forged = stream.job, [Delta(stream.job.id, stream.job.attempt, 0, [7] * 500, "forged")]
    house.node.answers.on_events(house.resident("beta"), forged)
    house.node.answers.on_events(house.resident("beta"), [Stopped(job.id, job.attempt, 0)])
    assert job.live
    assert job.generated.count(7) < 500
    assert "forged" not in text(await stream.take())
