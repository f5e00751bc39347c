"""Inputs to embed or rank as jobs of a Node: like every job they wait, are parked, cancelled, and survive a crash."""

from __future__ import annotations

import asyncio
import struct
from typing import TYPE_CHECKING, Any

import pytest

from inferd.backends.fake_embedder import N_VALUES, vector
from inferd.daemon.domain.errors import Code
from inferd.daemon.domain.inputs import Inputs
from inferd.daemon.domain.request import Phase, Priority
from inferd.daemon.node.stream import Resumed, Started, Vectors
from inferd.tests.daemon.node.house import ENDLESS, LIMIT_S, House, build, failure, finished, read

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from inferd.daemon.node.stream import Stream, StreamEvent

    Open = Callable[..., House]


@pytest.fixture
async def open_house(tmp_path: Path, gguf: Any) -> AsyncIterator[Open]:
    """`alpha` generates, `embedder` and `ranker` do what they are called."""
    for name, pooling in (("alpha", None), ("embedder", 1), ("ranker", 4)):
        file = gguf.small(n_vocab=512)
        if pooling:
            file.keys["llama.pooling_type"] = gguf.u32(pooling)
            file.tensors["cls.output.weight"] = ((64, 1), 0)
        (tmp_path / f"{name}.gguf").write_bytes(file.build())
    houses: list[House] = []

    def open_one(prefill_tokens_per_s: float = 0.0, **sections: Any) -> House:
        houses.append(build(tmp_path, prefill_tokens_per_s=prefill_tokens_per_s, **sections))
        return houses[-1]

    yield open_one
    for house in houses:
        await house.close()


def ask(house: House, *items: str | list[int], model: str = "embedder", **fields: Any) -> Stream:
    inputs = {name: fields.pop(name) for name in ("query", "normalize", "dimensions") if name in fields}
    return house.submit(None, model, max_tokens=0, inputs=Inputs(items, **inputs), **fields)


def vectors(events: list[StreamEvent]) -> list[tuple[float, ...]]:
    (told,) = (event for event in events if isinstance(event, Vectors))
    n = len(told.data) // 4 // told.n
    return list(struct.iter_unpack(f"={n}f", told.data))


def expected(text: str) -> tuple[float, ...]:
    values = vector(list(text.encode()), N_VALUES, normalize=True)
    return struct.unpack(f"={N_VALUES}f", struct.pack(f"={N_VALUES}f", *values))


async def test_texts_and_tokens_become_vectors_in_order(open_house: Open) -> None:
    house = open_house()
    events = await read(ask(house, "one", list(b"two"), "three"))
    assert vectors(events) == [expected("one"), expected("two"), expected("three")]
    end = finished(events)
    assert (end.prompt_tokens, end.completion_tokens, end.cached_tokens) == (11, 0, 0)
    assert 0 <= end.queue_ms <= end.e2e_ms
    total = house.node.meter.total
    assert (total.prompt_tokens, total.computed_tokens, total.delivered_tokens) == (11, 11, 11)
    assert total.wasted_tokens == {}
    assert not house.node.meter.ttft_ms, "it has no first token"


async def test_documents_get_scores(open_house: Open) -> None:
    house = open_house()
    events = await read(ask(house, "a", "b", model="ranker", query="q"))
    assert vectors(events) == [
        pytest.approx(vector(list(pair), 1, normalize=False), abs=1e-6) for pair in (b"q\na", b"q\nb")
    ]


@pytest.mark.parametrize(
    ("items", "model", "fields", "code", "field"),
    [
        (["x", "y" * 257], "embedder", {}, Code.PROMPT_TOO_LONG, "inputs[1]"),
        (["x", "y" * 255], "ranker", {"query": "q"}, Code.PROMPT_TOO_LONG, "documents[1]"),
        ([[1], [1, 512]], "embedder", {}, Code.INVALID, "inputs[1].tokens[1]"),
        (["x"], "embedder", {"dimensions": 65}, Code.INVALID, "dimensions"),
        (["x" * (4 << 20), "y"], "embedder", {}, Code.INVALID, "inputs"),
    ],
)
async def test_what_does_not_fit_is_refused(
    open_house: Open, items: list[Any], model: str, fields: dict[str, Any], code: Code, field: str
) -> None:
    house = open_house(options={"context_tokens": 256})
    error = await failure(read(ask(house, *items, model=model, **fields)))
    assert (error.code, error.field) == (code, field)
    assert house.node.scheduler.lanes[model].waiting == []


async def test_a_model_is_not_asked_for_what_it_does_not_do(open_house: Open) -> None:
    house = open_house()
    for model, fields in (("alpha", {}), ("ranker", {}), ("embedder", {"query": "q"}), ("alpha", {"query": "q"})):
        error = await failure(_ask(house, model, fields))
        assert (error.code, error.field) == (Code.UNSUPPORTED, "model")
    for model in ("embedder", "ranker"):
        with pytest.raises(Exception, match="does not generate text"):
            house.submit("hi", model)
    assert len(house.node.jobs) == 0


async def test_the_operator_may_have_a_model_embed_that_generates(open_house: Open, tmp_path: Path) -> None:
    house = open_house(options={"pooling": "last"})
    assert vectors(await read(ask(house, "x", model="alpha"))) == [expected("x")]
    assert vectors(await read(ask(house, "x", model="ranker", query="q"))), "a head is a head"


async def test_many_share_the_slots_and_need_no_cells(open_house: Open) -> None:
    house = open_house(2000.0, options={"context_tokens": 256, "slots": 4})
    streams = [ask(house, *(f"{i} {j}" * 40 for j in range(5))) for i in range(4)]
    await soon(lambda: len(house.node.scheduler.places["embedder"].running) == 4)
    for stream in streams:
        assert len(vectors(await read(stream))) == 5


async def test_a_higher_class_makes_a_lower_one_wait_and_nothing_is_computed_twice(open_house: Open) -> None:
    house = open_house(500.0, options={"slots": 1})
    await house.load("embedder")
    texts = [f"{i:05}" * 4 for i in range(10)]
    batch = ask(house, *texts, priority=Priority.BATCH)
    job = batch.job
    await soon(lambda: job.n_embedded >= 2)
    urgent = ask(house, "now", priority=Priority.INTERACTIVE)
    assert vectors(await read(urgent)) == [expected("now")]
    assert 2 <= job.n_embedded < 10
    events = await read(batch)
    assert vectors(events) == [expected(text) for text in texts]
    assert [event.why for event in events if isinstance(event, Resumed)] == ["preempted"]
    assert next(event for event in events if isinstance(event, Started)).cached_tokens == 0
    total = house.node.meter.total
    assert (total.computed_tokens, total.delivered_tokens, total.wasted_tokens) == (203, 203, {})


async def test_a_crash_costs_only_what_was_under_way(open_house: Open) -> None:
    house = open_house()
    events = await read(ask(house, "one", "fake:crash", "three"))
    assert vectors(events) == [expected("one"), expected("fake:crash"), expected("three")]
    assert [event.why for event in events if isinstance(event, Resumed)] == ["worker_crashed"]


async def test_it_can_be_cancelled_in_mid_way(open_house: Open) -> None:
    house = open_house(100.0)
    stream = ask(house, *["x" * 20] * 50, request_id="e1")
    await soon(lambda: stream.job.phase is Phase.RUNNING)
    assert house.node.cancel("e1")
    assert (await failure(read(stream))).code is Code.CANCELLED
    await soon(lambda: len(house.node.jobs) == 0)
    assert vectors(await read(ask(house, "after"))) == [expected("after")]


async def test_a_deadline_ends_it(open_house: Open) -> None:
    house = open_house(100.0)
    await house.load("embedder")
    error = await failure(read(ask(house, *["x" * 20] * 50, deadline_ms=200)))
    assert error.code is Code.DEADLINE


async def test_what_was_measured_tells_when_a_deadline_cannot_be_kept(open_house: Open) -> None:
    house = open_house(1000.0, options={"slots": 1})
    for _ in range(3):
        await read(ask(house, *["x" * 50] * 4))
    error = await failure(_ask(house, "embedder", {"deadline_ms": 100}, *[[1] * 500] * 10))
    assert error.code is Code.OVERLOADED
    assert "100" in error.message or "0.1" in error.message


async def test_vectors_are_shown_as_what_they_are(open_house: Open) -> None:
    house = open_house(100.0)
    generating, embedding = house.submit(ENDLESS), ask(house, *["x" * 20] * 50)
    await soon(lambda: embedding.job.phase is Phase.RUNNING)
    assert embedding.job.reached >= 1000
    for stream in (generating, embedding):
        house.node.cancel(stream.job.id)


async def soon(condition: Callable[[], bool]) -> None:
    """A start or a vector is no change that is announced."""
    async with asyncio.timeout(LIMIT_S):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


async def _ask(house: House, model: str, fields: dict[str, Any], *items: Any) -> None:
    """A refusal at the desk is raised here, not by the stream."""
    await read(ask(house, *(items or ("x",)), model=model, **fields))
