"""The heart over the fake engine: what becomes of a request, whatever happens on its way."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest

from inferd.backends.messages import FinishReason
from inferd.daemon.domain.config import Queue, Server
from inferd.daemon.domain.errors import Code, InferdError
from inferd.daemon.domain.event import Kind, Severity
from inferd.daemon.domain.model import ModelState
from inferd.daemon.domain.request import Phase, Priority
from inferd.daemon.node.stream import Queued, Resumed, Started
from inferd.tests.daemon.node.house import (
    ENDLESS,
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

    from inferd.daemon.node.stream import Stream

    Open = Callable[..., House]


def refusal(house: House, *args: Any, **fields: Any) -> InferdError:
    with pytest.raises(InferdError) as caught:
        house.submit(*args, **fields)
    return caught.value


def running(house: House, *streams: Stream) -> bool:
    return all(stream.job.phase is Phase.RUNNING for stream in streams)


# a request's way


async def test_a_request_becomes_text(house: House) -> None:
    stream = house.submit("fake:tokens=7")
    events = await read(stream)
    started = next(event for event in events if isinstance(event, Started))
    assert (started.model, started.prompt_tokens, started.device, started.seed) == ("alpha", 13, "fake", 1)
    assert tokens(events) == what_the_fake_says(stream.job)
    assert text(events).count(" ") == 7
    end = finished(events)
    assert (end.reason, end.prompt_tokens, end.completion_tokens) == (FinishReason.STOP, 13, 7)
    assert 0 <= end.queue_ms <= end.ttft_ms <= end.e2e_ms
    assert len(house.node.jobs) == 0
    total = house.node.meter.total
    assert (total.prompt_tokens, total.generation_tokens, total.requests_finished) == (13, 7, 1)


async def test_two_models_work_side_by_side(house: House) -> None:
    ours, theirs = house.submit("fake:tokens=3"), house.submit("fake:tokens=5", "beta")
    assert finished(await read(ours)).completion_tokens == 3
    assert finished(await read(theirs)).completion_tokens == 5
    assert house.resident("alpha").model.pid != house.resident("beta").model.pid


async def test_max_tokens_ends_an_answer_and_without_it_the_context_does(open_house: Open) -> None:
    house = open_house(options={"context_tokens": 256})
    short = finished(await read(house.submit(ENDLESS, max_tokens=4)))
    assert (short.reason, short.completion_tokens) == (FinishReason.LENGTH, 4)
    whole = finished(await read(house.submit(ENDLESS)))
    assert (whole.reason, whole.completion_tokens) == (FinishReason.LENGTH, 256 - len(ENDLESS))
    most = finished(await read(house.submit(ENDLESS, max_tokens=256)))
    assert most.completion_tokens == 256 - len(ENDLESS)


async def test_those_who_wait_are_told_where_they_stand(open_house: Open) -> None:
    house = open_house(options={"slots": 1}, tokens_per_s=SLOW)
    busy = house.submit(ENDLESS)
    await first_text(busy)
    first, second = house.submit(), house.submit()
    await asyncio.sleep(0)
    house.node.tick(time.monotonic())
    house.node.tick(time.monotonic())
    assert await first.take() == [Queued(first.job.id, 0, "slot")]
    assert await second.take() == [Queued(second.job.id, 1, "slot")]


async def test_interactive_goes_before_batch(open_house: Open) -> None:
    house = open_house(options={"slots": 1})
    order: list[str] = []

    async def note(name: str, stream: Stream) -> None:
        await read(stream)
        order.append(name)

    batch = house.submit(priority=Priority.BATCH)
    chat = house.submit(priority=Priority.INTERACTIVE)
    await asyncio.gather(note("batch", batch), note("chat", chat))
    assert order == ["chat", "batch"]


# refusals


async def test_an_unknown_model_is_refused_at_once(house: House) -> None:
    error = refusal(house, model="gamma")
    assert (error.code, error.field) == (Code.NOT_FOUND, "model")
    assert "gamma" in error.message


async def test_a_file_that_nobody_can_read_is_refused_at_once(house: House, folder: Any) -> None:
    (folder / "broken.gguf").write_bytes(b"GGUF")
    assert refusal(house, model="broken").code is Code.MODEL_CORRUPT


async def test_an_id_that_is_in_use_is_refused_until_it_is_free(house: House) -> None:
    stream = house.submit(request_id="mine")
    error = refusal(house, request_id="mine")
    assert (error.code, error.field) == (Code.INVALID, "request_id")
    await read(stream)
    await house.answer(request_id="mine")


async def test_who_is_refused_at_the_door_is_told_of_whatever_model_it_names(house: House) -> None:
    messages = [refusal(house, model=f"m{i}", request_id=f"r{i}", tenant="t").message for i in range(3)]
    assert house.told(Kind.REFUSED) == [f"r0 was refused: {messages[0]}"]
    await house.node.drain(0.0)
    assert house.told(Kind.REFUSED)[1:] == [f"r2 was refused: {messages[2]}, and 1 more"], "nothing ticks after the end"
    (told, *_) = [event for event in house.node.events.after(0) if event.kind is Kind.REFUSED]
    assert (told.severity, told.model, told.request_id, told.tenant) == (Severity.WARNING, "", "r0", "t")
    assert house.node.jobs.tenants.of("t").refused == 3


async def test_a_full_queue_ends_the_stream_and_keeps_the_others(open_house: Open) -> None:
    house = open_house(queue=Queue(max_requests=2, max_requests_per_tenant=1))
    kept, greedy = house.submit(), house.submit()
    other, late = house.submit(tenant="other"), house.submit(tenant="third")
    assert (await failure(read(greedy))).code is Code.QUEUE_FULL
    error = await failure(read(late))
    assert (error.code, error.retry_after_ms is not None) == (Code.QUEUE_FULL, True)
    assert house.told(Kind.REFUSED)[-1] == f"{late.job.id} was refused: {error.message}"
    assert await read(kept)
    assert await read(other)


async def test_a_model_without_room_is_refused_with_both_numbers(open_house: Open) -> None:
    house = open_house(host_bytes=1 << 20)
    error = await failure(read(house.submit()))
    assert error.code is Code.NO_ROOM
    assert (error.details["needed_bytes"], error.details["free_bytes"]) == (30 << 20, 1 << 20)
    assert house.resident().model.state is ModelState.COLD


# cancelling


async def test_one_that_waits_can_be_cancelled(house: House) -> None:
    stream = house.submit()
    assert house.node.cancel(stream.job.id)
    assert (await failure(read(stream))).code is Code.CANCELLED
    assert not house.node.meter.queue_ms, "it never had a slot"
    assert not house.node.cancel(stream.job.id)
    assert len(house.node.jobs) == 0


async def test_a_cancelled_request_gives_its_slot_to_the_next(open_house: Open) -> None:
    house = open_house(options={"slots": 1}, tokens_per_s=SLOW)
    stream = house.submit(ENDLESS)
    await first_text(stream)
    behind = house.submit("fake:tokens=2")
    assert house.node.cancel(stream.job.id)
    assert (await failure(read(stream))).code is Code.CANCELLED
    assert refusal(house, request_id=stream.job.id).field == "request_id"  # the worker has not let go yet
    assert finished(await read(behind)).completion_tokens == 2
    assert house.node.meter.total.requests_cancelled == 1


async def test_who_finds_only_a_slot_of_a_cancelled_request_waits_for_it(open_house: Open) -> None:
    house = open_house(options={"slots": 1}, tokens_per_s=SLOW)
    stream = house.submit(ENDLESS, priority=Priority.BATCH)
    await first_text(stream)
    chat = house.submit("fake:tokens=2", priority=Priority.INTERACTIVE)
    house.node.cancel(stream.job.id)  # the worker has not let go yet when the prompt of the other one is read
    await asyncio.sleep(0)
    assert chat.job.prompt is not None
    assert finished(await read(chat)).completion_tokens == 2
    assert house.node.meter.total.preemptions == 0


async def test_hanging_up_cancels_and_after_the_end_does_nothing(slow_house: House) -> None:
    house = slow_house
    stream, other = house.submit(ENDLESS), house.submit("fake:tokens=1")
    await first_text(stream)
    house.node.hang_up(stream)
    assert stream.job.phase is Phase.CANCELLED
    await read(other)
    house.node.hang_up(other)
    assert other.job.phase is Phase.DONE
    await house.until(lambda: len(house.node.jobs) == 0)


async def test_a_deadline_ends_a_request_that_waits_and_one_that_runs(open_house: Open) -> None:
    house = open_house(options={"slots": 1}, tokens_per_s=SLOW)
    await house.load()
    runs, waits = house.submit(ENDLESS, deadline_ms=60), house.submit(ENDLESS, deadline_ms=30)
    for stream, limit_ms in ((waits, 30), (runs, 60)):
        error = await failure(read(stream))
        assert (error.code, error.field) == (Code.DEADLINE, "deadline_ms")
        assert str(limit_ms) in error.message
    assert house.told(Kind.DEADLINE_MISSED) == [f"{waits.job.id}: not finished 30 ms after arrival"]
    house.node.tick(time.monotonic())  # the second one in the same second is told then
    assert house.told(Kind.DEADLINE_MISSED)[1:] == [f"{runs.job.id}: not finished 60 ms after arrival"]
    in_time = house.submit("fake:tokens=1", deadline_ms=20_000)
    assert finished(await read(in_time)).reason is FinishReason.STOP


async def test_a_reader_that_stands_still_is_cut_and_its_slot_is_free_again(open_house: Open) -> None:
    house = open_house(options={"slots": 1}, server=Server(slow_consumer_s=30.0), tokens_per_s=SLOW)
    stream, standing = house.submit(ENDLESS), asyncio.Event()

    async def client_that_takes_nothing() -> None:
        try:
            stream.read_by(asyncio.current_task())
            await first_text(stream)
            standing.set()
            await asyncio.get_running_loop().create_future()
        finally:
            house.node.hang_up(stream)

    reading = asyncio.create_task(client_that_takes_nothing())
    await standing.wait()
    house.node.tick(time.monotonic() + 29)
    assert running(house, stream)
    house.node.tick(time.monotonic() + 31)
    assert stream.job.phase is Phase.CANCELLED
    with pytest.raises(asyncio.CancelledError):
        await reading
    error = await failure(read(stream))
    assert (error.code, "30 s" in error.message) == (Code.SLOW_CONSUMER, True)
    assert house.told(Kind.SLOW_CONSUMER) == [f"{stream.job.id} was cut: its reader took nothing for 30 s"]
    assert await house.answer()


# when workers die


async def test_what_ran_in_a_worker_that_crashed_goes_on_in_the_next_one(open_house: Open) -> None:
    house = open_house(tokens_per_s=SLOW)
    stays = house.submit("fake:tokens=20", "beta")
    crashes, beside = house.submit("fake:crash=5 fake:tokens=30"), house.submit("fake:tokens=40")
    waits = house.submit("fake:tokens=4")
    for stream in (crashes, beside):
        events = await read(stream)
        assert tokens(events) == what_the_fake_says(stream.job)
        assert [event.why for event in events if isinstance(event, Resumed)] == ["worker_crashed"]
    assert finished(await read(waits)).completion_tokens == 4
    assert finished(await read(stays)).completion_tokens == 20
    assert house.resident().model.failures == 0  # it had produced something


async def test_an_interactive_request_finds_a_slot_and_the_parked_one_goes_on_with_the_same_words(
    open_house: Open,
) -> None:
    house = open_house(options={"slots": 1}, tokens_per_s=SLOW)
    batch = house.submit("fake:tokens=200", priority=Priority.BATCH)
    events = await first_text(batch)
    chat = await read(house.submit("fake:tokens=2", priority=Priority.INTERACTIVE))
    assert batch.job.live, "it was not waited for"
    assert finished(chat).completion_tokens == 2
    events += await read(batch)
    assert tokens(events) == what_the_fake_says(batch.job)
    assert [event.why for event in events if isinstance(event, Resumed)] == ["preempted"]
    assert house.node.meter.total.preemptions == 1


async def test_a_newer_request_with_the_same_key_ends_the_older_ones(open_house: Open) -> None:
    house = open_house(options={"slots": 2}, tokens_per_s=SLOW)
    typed = [house.submit(ENDLESS, supersede_key="editor") for _ in range(4)]
    last = house.submit("fake:tokens=3", supersede_key="editor")
    codes = {(await failure(read(stream))).code for stream in typed}
    assert codes == {Code.SUPERSEDED}
    assert len(tokens(await read(last))) == 3


async def test_who_waits_for_a_slot_is_told_when_it_gets_one(open_house: Open) -> None:
    house = open_house(options={"slots": 1}, tokens_per_s=SLOW)
    for _ in range(3):
        await house.answer("fake:tokens=20", params={"ignore_eos": True}, max_tokens=20)
    busy = house.submit("fake:tokens=200", max_tokens=200)
    await first_text(busy)
    waits = house.submit(max_tokens=5)
    (told,) = await waits.take()
    assert isinstance(told, Queued)
    assert told.eta_ms is not None
    low_ms, high_ms = told.eta_ms
    assert 0 < low_ms < high_ms
    assert low_ms < 20_000  # ten times what is left of the other
    house.node.cancel(busy.job.id)


async def test_the_way_to_the_first_slot_is_measured_once_a_request(open_house: Open) -> None:
    house = open_house(options={"slots": 1}, tokens_per_s=SLOW)
    batch = house.submit("fake:tokens=50", priority=Priority.BATCH)
    await first_text(batch)
    await house.answer("fake:tokens=2", priority=Priority.INTERACTIVE)
    end = finished(await read(batch))
    assert batch.job.attempt == 2
    first_ms, _ = house.node.meter.queue_ms
    assert first_ms == end.queue_ms


async def test_what_was_computed_is_delivered_or_counted_as_wasted(open_house: Open) -> None:
    house = open_house(options={"slots": 1}, tokens_per_s=SLOW)
    batch = house.submit("fake:tokens=200", priority=Priority.BATCH)
    await first_text(batch)
    await house.answer("fake:tokens=2", priority=Priority.INTERACTIVE)
    await read(batch)
    gone = house.submit(ENDLESS)
    await first_text(gone)
    house.node.hang_up(gone)
    await house.until(lambda: len(house.node.jobs) == 0)
    total = house.node.meter.total
    assert total.computed_tokens - total.delivered_tokens == sum(total.wasted_tokens.values())
    assert total.wasted_tokens["preempted"] >= len("fake:tokens=200")
    assert set(total.wasted_tokens) <= {"preempted", "cancelled"}


async def test_pressure_on_memory_is_told_when_its_grade_changes(house: House) -> None:
    for psi, now_s in ((0.0, 1.0), (25.0, 2.0), (25.0, 3.0), (0.0, 4.0), (0.0, 15.0), (0.0, 26.0)):
        house.node.on_pressure(psi, now_s)
    assert house.told(Kind.PRESSURE) == [
        "pressure on memory: from normal to no_loads",
        "pressure on memory: from no_loads to no_prefetch",
        "pressure on memory: from no_prefetch to normal",
    ]
    assert [event.severity for event in house.node.events.after(0)] == [*2 * [Severity.WARNING], Severity.INFO]


# keep-alive, drain


async def test_an_idle_model_goes_after_its_keep_alive_and_comes_back(open_house: Open) -> None:
    house = open_house(options={"keep_alive_s": 50.0})
    await house.answer()
    house.node.tick(time.monotonic() + 49)
    assert house.state() is ModelState.READY
    house.node.tick(time.monotonic() + 51)
    assert house.state() is ModelState.DRAINING
    await house.until(lambda: house.state() is ModelState.COLD)
    assert house.node.ledger.reservations == {}
    assert await house.answer()


async def test_a_busy_model_does_not_go(open_house: Open) -> None:
    house = open_house(options={"keep_alive_s": 0.0}, tokens_per_s=SLOW)
    stream = house.submit(ENDLESS)
    await first_text(stream)
    house.node.tick(time.monotonic() + 5)
    assert running(house, stream)


async def test_draining_lets_everybody_finish_and_nobody_in(open_house: Open) -> None:
    house = open_house(options={"slots": 1}, tokens_per_s=SLOW)
    stream, waits = house.submit("fake:tokens=30"), house.submit("fake:tokens=2")
    await first_text(stream)
    draining = asyncio.create_task(house.node.drain(20.0))
    await asyncio.sleep(0)
    error = refusal(house)
    assert (error.code, error.retry_after_ms) == (Code.SHUTTING_DOWN, 5000)
    with pytest.raises(InferdError, match="shutting down"):
        await house.load("beta")
    assert finished(await read(stream)).completion_tokens == 30
    assert finished(await read(waits)).completion_tokens == 2
    await draining
    assert house.node.ledger.reservations == {}


async def test_draining_does_not_wait_for_batch_work(open_house: Open) -> None:
    house = open_house(options={"slots": 2}, tokens_per_s=SLOW)
    batch, other = house.submit(ENDLESS, priority=Priority.BATCH), house.submit("fake:tokens=5")
    await first_text(batch)
    await house.node.drain(20.0)
    assert (await failure(read(batch))).code is Code.SHUTTING_DOWN
    assert finished(await read(other)).completion_tokens == 5


async def test_who_is_still_there_after_the_limit_is_told_why(slow_house: House) -> None:
    house = slow_house
    runs, waits = house.submit(ENDLESS), house.submit(None, prompt="still being read")
    await first_text(runs)
    await house.node.drain(0.0)
    for stream in (runs, waits):
        assert stream.job.phase in (Phase.CANCELLED, Phase.DONE)
    assert (await failure(read(runs))).code is Code.SHUTTING_DOWN
