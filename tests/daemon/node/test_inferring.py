"""Tensors as jobs of a Node: like every job they wait, are cancelled, and survive a crash."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from inferd.backends.blob import INLINE_BYTES, Blob
from inferd.backends.messages import Tensor
from inferd.daemon.domain.config import Queue
from inferd.daemon.domain.errors import Code, InferdError
from inferd.daemon.domain.request import Phase, Priority
from inferd.daemon.domain.tensors import Outputs, Tensors
from inferd.daemon.node.stream import Started
from inferd.tests.daemon.node.house import House, build, failure, finished, read
from inferd.tests.models.random_onnx import affine, echo

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from inferd.daemon.node.stream import Stream, StreamEvent

    Open = Callable[..., House]


@pytest.fixture
async def open_house(tmp_path: Path, gguf: Any) -> AsyncIterator[Open]:
    """`alpha` generates; `affine` and `echo` take tensors."""
    (tmp_path / "alpha.gguf").write_bytes(gguf.small(n_vocab=512).build())
    affine(tmp_path / "affine.onnx")
    echo(tmp_path / "echo.onnx")
    houses: list[House] = []

    def open_one(prefill_tokens_per_s: float = 0.0, **sections: Any) -> House:
        houses.append(build(tmp_path, prefill_tokens_per_s=prefill_tokens_per_s, **sections))
        return houses[-1]

    yield open_one
    for house in houses:
        await house.close()


def tensors(data: bytes = bytes(32), rows: int = 2, outputs: tuple[str, ...] = ()) -> Tensors:
    return Tensors([Tensor("x", "FP32", [rows, 4], len(data))], Blob.of([data]), outputs)


def ask(house: House, given: Tensors | None = None, model: str = "affine", **fields: Any) -> Stream:
    return house.submit(None, model, max_tokens=0, tensors=given or tensors(), **fields)


def outputs(events: list[StreamEvent]) -> Outputs:
    (told,) = (event for event in events if isinstance(event, Outputs))
    return told


async def test_outputs_come_before_the_end(open_house: Open) -> None:
    house = open_house()
    await house.load("affine")
    events = await read(ask(house))
    assert isinstance(events[0], Started)
    told = outputs(events)
    assert [(tensor.name, tensor.shape) for tensor in told.tensors] == [("y", [2, 4]), ("total", [2])]
    assert told.blob.read() == bytes(40)
    assert finished(events).prompt_tokens == 2


async def test_long_ones_cross_in_files_and_leave_none(open_house: Open) -> None:
    house = open_house()
    n = INLINE_BYTES
    given = Tensors([Tensor("x", "FP32", [n], 4 * n)], Blob.of([bytes(4 * n)]))
    for _ in range(3):
        told = outputs(await read(ask(house, given, "echo")))
        assert told.blob.fd is not None
        assert told.blob.read() == bytes(4 * n)
        told.blob.close()
    given.blob.close()


async def test_the_models_statistics_count_them(open_house: Open) -> None:
    house = open_house()
    for _ in range(3):
        await read(ask(house))
    figures = house.node.jobs.statistics.of("affine")
    assert (figures.inference_count, figures.execution_count, figures.success.count) == (6, 3, 3)


async def test_a_crash_is_not_seen(open_house: Open) -> None:
    house = open_house()
    events = await read(ask(house, tensors(b"fake:crash" + bytes(22))))
    assert outputs(events).blob.read() == bytes(40)


async def test_what_is_cancelled_gives_its_place_to_the_next(open_house: Open) -> None:
    house = open_house(prefill_tokens_per_s=20.0)
    first = ask(house, tensors(bytes(16 * 200), 200))
    await house.until(lambda: first.job.phase is Phase.RUNNING)
    house.node.cancel(first.job.id)
    assert (await failure(read(first))).code is Code.CANCELLED
    assert outputs(await read(ask(house, tensors(bytes(16), 1)))).tensors[0].shape == [1, 4]


async def test_a_deadline_ends_them(open_house: Open) -> None:
    house = open_house(prefill_tokens_per_s=20.0)
    late = ask(house, tensors(bytes(16 * 200), 200), deadline_ms=50)
    assert (await failure(read(late))).code is Code.DEADLINE


async def test_classes_are_served_in_their_order(open_house: Open) -> None:
    house = open_house(prefill_tokens_per_s=50.0, options={"slots": 1})
    ends: list[str] = []
    streams = {"busy": ask(house, tensors(bytes(160), 10))}
    await house.until(lambda: streams["busy"].job.phase is Phase.RUNNING)
    for name, priority in (("batch", Priority.BATCH), ("chat", Priority.NORMAL)):
        streams[name] = ask(house, tensors(bytes(16), 1), priority=priority)
    house.node.jobs.on_over = lambda job: ends.append(job.request.priority.value)
    for stream in streams.values():
        await read(stream)
    assert ends == ["normal", "normal", "batch"]


@pytest.mark.parametrize(
    ("given", "model", "code"),
    [
        (tensors(), "alpha", Code.UNSUPPORTED),
        (tensors(), "nobody", Code.NOT_FOUND),
        (tensors(outputs=("z",)), "affine", Code.INVALID),
    ],
)
async def test_what_the_model_does_not_take_is_refused_at_once(
    open_house: Open, given: Tensors, model: str, code: Code
) -> None:
    with pytest.raises(InferdError) as caught:
        ask(open_house(), given, model)
    assert caught.value.code is code


async def test_a_graph_writes_no_text(open_house: Open) -> None:
    with pytest.raises(InferdError, match="affine takes tensors, it does not generate text"):
        open_house().submit("hello", "affine")


async def test_an_answer_that_nobody_took_leaves_no_file(open_house: Open) -> None:
    house = open_house()
    n = INLINE_BYTES
    given = Tensors([Tensor("x", "FP32", [n], 4 * n)], Blob.of([bytes(4 * n)]))
    stream = ask(house, given, "echo")
    await house.until(lambda: stream.job.phase is Phase.DONE)
    (told,) = (event for event in stream._events if isinstance(event, Outputs))
    before = told.blob.fd
    house.node.hang_up(stream)
    assert before is not None
    assert told.blob.fd is None
    given.blob.close()


async def test_bytes_that_wait_or_run_are_bounded(open_house: Open) -> None:
    house = open_house(prefill_tokens_per_s=20.0, queue=Queue(max_tensor_bytes=5000))
    first = ask(house, tensors(bytes(16 * 200), 200))
    await house.until(lambda: first.job.phase is Phase.RUNNING)
    with pytest.raises(InferdError, match=r"3,200 bytes of tensors wait and 5,000 may") as caught:
        await read(ask(house, tensors(bytes(16 * 200), 200)))
    assert caught.value.code is Code.QUEUE_FULL
    waiting = ask(house, tensors(bytes(16 * 100), 100))
    assert house.node.scheduler.desk.tensor_bytes == 4800
    for stream in (waiting, first):
        house.node.cancel(stream.job.id)
    await house.until(lambda: house.node.scheduler.desk.tensor_bytes == 0)


async def test_who_gets_the_last_slot_at_once_is_not_told_to_wait(open_house: Open) -> None:
    house = open_house(options={"slots": 1})
    await house.load("affine")
    stream = ask(house)
    assert (stream.job.phase, stream.job.why) == (Phase.RUNNING, "")
    assert isinstance((await read(stream))[0], Started)
    records = house.node.scheduler.journal.about(stream.job.id)
    assert "queue" not in [record.kind for record in records]
