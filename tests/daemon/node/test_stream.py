"""What one client reads: in order, merged when it is slow, and the end comes after everything before it."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.backends.messages import SamplingParams, TokenLogprob
from inferd.daemon.domain.errors import Code, InferdError
from inferd.daemon.domain.request import Job, Priority, Request
from inferd.daemon.domain.tools import CallPiece
from inferd.daemon.node.stream import Queued, Resumed, Stream, Text

if TYPE_CHECKING:
    from inferd.daemon.node.stream import StreamEvent

REQUEST = Request("r", "m", SamplingParams(max_tokens=1), Priority.NORMAL, "t", prompt="x")


def stream() -> Stream:
    return Stream(Job(REQUEST, 0.0, 0))


def text(it: Stream, index: int, word: str, logprobs: list[TokenLogprob] | None = None) -> None:
    it.push_text(index, word, [index], logprobs)


async def turn() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_reader_waits_for_the_first_event() -> None:
    it = stream()
    taking = asyncio.create_task(it.take())
    await turn()
    assert not taking.done()
    it.push(Resumed("x"))
    assert await taking == [Resumed("x")]


async def test_calls_that_wait_are_joined() -> None:
    it = stream()
    it.push_text(0, "a", [0], None, [CallPiece(0, "i", "f", "{")])
    it.push_text(1, "", [1], None, [CallPiece(0, arguments="}"), CallPiece(1, "j", "g")])
    (event,) = await it.take()
    assert event == Text(0, "a", [0, 1], None, [CallPiece(0, "i", "f", "{}"), CallPiece(1, "j", "g")])


async def test_text_that_waits_is_joined() -> None:
    it = stream()
    text(it, 0, "a ", [TokenLogprob(0, -1.0, "a ")])
    text(it, 1, "b ", [TokenLogprob(1, -2.0, "b ")])
    it.push_text(2, "", [2, 3], None)
    (event,) = await it.take()
    assert event == Text(0, "a b ", [0, 1, 2, 3], [TokenLogprob(0, -1.0, "a "), TokenLogprob(1, -2.0, "b ")])


async def test_what_was_taken_does_not_grow_any_more() -> None:
    it = stream()
    text(it, 0, "a")
    (first,) = await it.take()
    text(it, 1, "b")
    (second,) = await it.take()
    assert (first, second) == (Text(0, "a", [0], None), Text(1, "b", [1], None))


async def test_text_is_not_joined_across_another_event() -> None:
    it = stream()
    text(it, 0, "a")
    it.push(Resumed("x"))
    text(it, 1, "b")
    assert await it.take() == [Text(0, "a", [0], None), Resumed("x"), Text(1, "b", [1], None)]


async def test_log_probabilities_join_a_text_that_had_none() -> None:
    it = stream()
    text(it, 0, "a")
    text(it, 1, "b", [TokenLogprob(1, -1.0, "b")])
    assert await it.take() == [Text(0, "ab", [0, 1], [TokenLogprob(1, -1.0, "b")])]


async def test_only_the_newest_place_in_the_queue_is_told() -> None:
    it = stream()
    for position in (3, 2, 1):
        it.push(Queued("r", position, "slot"))
    assert await it.take() == [Queued("r", 1, "slot")]


async def test_the_end_comes_after_what_waits_and_stays() -> None:
    it = stream()
    text(it, 0, "a")
    it.close()
    assert len(await it.take()) == 1
    assert await it.take() == []
    assert await it.take() == []


async def test_an_error_comes_after_what_waits_and_stays() -> None:
    it = stream()
    text(it, 0, "a")
    it.close(InferdError(Code.DEADLINE, "late"))
    assert len(await it.take()) == 1
    for _ in range(2):
        with pytest.raises(InferdError, match="late"):
            await it.take()


async def test_the_end_wakes_a_reader_that_waits() -> None:
    it = stream()
    taking = asyncio.create_task(it.take())
    await turn()
    it.close()
    assert await taking == []


async def test_the_first_end_counts_and_nothing_follows_it() -> None:
    it = stream()
    it.close(InferdError(Code.CANCELLED, "first"))
    it.close()
    it.close(InferdError(Code.DEADLINE, "second"))
    text(it, 0, "late")
    it.push(Resumed("late"))
    with pytest.raises(InferdError, match="first"):
        await it.take()


async def test_a_reader_that_gave_up_can_come_back() -> None:
    it = stream()
    taking = asyncio.create_task(it.take())
    await turn()
    taking.cancel()
    await turn()
    text(it, 0, "a")
    assert len(await it.take()) == 1


async def test_a_reader_stands_still_while_it_is_busy_with_what_it_took() -> None:
    it = stream()
    assert it.stalled_s(1e9) == 0.0
    text(it, 0, "a")
    assert it.stalled_s(1e9) == 0.0  # nobody has come for it yet; that is not the client's doing
    before_s = time.monotonic()
    await it.take()
    assert before_s + 6.0 - time.monotonic() <= it.stalled_s(before_s + 6.0) <= 6.0
    text(it, 1, "b")
    text(it, 2, "c")
    assert it.stalled_s(before_s + 60.0) > 50.0
    await it.take()
    again = asyncio.create_task(it.take())
    await turn()
    assert it.stalled_s(before_s + 60.0) == 0.0  # it waits for us
    it.close()
    await again


async def test_a_reader_that_stands_still_can_be_cut() -> None:
    it = stream()

    async def client_that_takes_nothing() -> None:
        it.read_by(asyncio.current_task())
        await it.take()
        await asyncio.get_running_loop().create_future()

    reading = asyncio.create_task(client_that_takes_nothing())
    text(it, 0, "a")
    await turn()
    it.cut(InferdError(Code.SLOW_CONSUMER, "too slow"))
    with pytest.raises(asyncio.CancelledError):
        await reading
    with pytest.raises(InferdError, match="too slow"):
        await it.take()


@given(st.lists(st.sampled_from(["text", "text", "resumed", "take"]), max_size=30))
def test_whenever_it_reads_a_reader_gets_every_token_once_and_in_order(steps: list[str]) -> None:
    async def play() -> list[StreamEvent]:
        it, taken, index = stream(), [], 0
        for step in steps:
            if step == "text":
                text(it, index, f"{index} ")
                index += 1
            elif step == "resumed":
                it.push(Resumed(str(index)))
            elif it._events:
                taken += await it.take()
        it.close()
        while events := await it.take():
            taken += events
        return taken

    events = asyncio.run(play())
    n_texts = steps.count("text")
    texts = [event for event in events if isinstance(event, Text)]
    assert [token for event in texts for token in event.tokens] == list(range(n_texts))
    assert "".join(event.text for event in texts) == "".join(f"{i} " for i in range(n_texts))
    assert all(event.index == event.tokens[0] for event in texts)
    pushed_after = [str(steps[:i].count("text")) for i, step in enumerate(steps) if step == "resumed"]
    assert [event.why for event in events if isinstance(event, Resumed)] == pushed_after
