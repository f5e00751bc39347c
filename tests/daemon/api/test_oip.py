"""Requests of the Open Inference Protocol over a Node with the fake engine: what becomes of tensors and of texts."""

from __future__ import annotations

import asyncio
import os
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from inferd.backends.blob import Blob
from inferd.backends.tensors import unpack_strings
from inferd.daemon.api import oip as door
from inferd.daemon.domain.errors import Code, InferdError
from inferd.daemon.domain.event import Kind
from inferd.protos import oip_pb2 as oip
from inferd.tests.daemon.node.house import House, build
from inferd.tests.models.random_onnx import Size, affine, classifier, encoder

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def house(tmp_path: Path, gguf: Any) -> AsyncIterator[House]:
    (tmp_path / "writer.gguf").write_bytes(gguf.small(n_vocab=512).build())
    affine(tmp_path / "affine.onnx")
    encoder(tmp_path / "minilm", Size())
    classifier(tmp_path / "moods", ["calm", "glad"], Size())
    made = build(tmp_path)
    yield made
    await made.close()


def wire(model: str, *inputs: dict[str, Any], **fields: Any) -> oip.ModelInferRequest:
    return oip.ModelInferRequest(**{"model_name": model, "inputs": inputs} | fields)


def text(*values: str) -> dict[str, Any]:
    contents = {"bytes_contents": [value.encode() for value in values]}
    return {"name": "text_input", "datatype": "BYTES", "shape": [len(values)], "contents": contents}


def floats(rows: int) -> dict[str, Any]:
    return {"name": "x", "datatype": "FP32", "shape": [rows, 4], "contents": {"fp32_contents": [0.0] * 4 * rows}}


async def test_tensors_become_tensors(house: House) -> None:
    answer = await door.infer(house.node, wire("affine", floats(2), id="a"), "t")
    assert [(one.name, list(one.shape)) for one in answer.outputs] == [("y", [2, 4]), ("total", [2])]
    assert len(house.node.jobs) == 0


async def test_only_what_is_wanted_comes_and_in_its_order(house: House) -> None:
    wanted = [{"name": "total"}, {"name": "y"}]
    answer = await door.infer(house.node, wire("affine", floats(1), outputs=wanted), "t")
    assert [one.name for one in answer.outputs] == ["total", "y"]


async def test_large_tensors_leave_no_file_behind(house: House) -> None:
    rows = 1 << 17
    request = wire(
        "affine", {"name": "x", "datatype": "FP32", "shape": [rows, 4]}, raw_input_contents=[bytes(16 * rows)]
    )
    await door.infer(house.node, request, "t")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        answer = await door.infer(house.node, request, "t")
        assert len(answer.raw_output_contents[0]) == 16 * rows
    assert len(os.listdir("/proc/self/fd")) == before


async def test_texts_become_vectors(house: House) -> None:
    answer = await door.infer(house.node, wire("minilm", text("a", "b", "c")), "t")
    assert (answer.outputs[0].name, list(answer.outputs[0].shape)) == ("embedding", [3, 64])


async def test_texts_get_labels(house: House) -> None:
    request = wire("moods", text("a"), outputs=[{"name": "logits"}])
    request.outputs[0].parameters["classification"].int64_param = 1
    answer = await door.infer(house.node, request, "t")
    (best,) = unpack_strings(answer.raw_output_contents[0])
    assert best.split(":")[1:] == ["0", "calm"]


async def test_a_text_is_written(house: House) -> None:
    answer = await door.infer(house.node, wire("writer", text("fake:tokens=3")), "t")
    (said,) = unpack_strings(answer.raw_output_contents[0])
    assert len(said.split()) == 3
    assert answer.parameters["completion_tokens"].int64_param == 3


async def test_an_empty_end_has_no_outputs(house: House) -> None:
    request = wire("writer", text("fake:tokens=3"))
    request.parameters["triton_enable_empty_final_response"].bool_param = True
    answers = [answer async for answer in door.stream_infer(house.node, request, "t")]
    assert len(answers[-1].outputs) == 0
    assert all(len(answer.outputs) == 1 for answer in answers[:-1])


async def test_who_leaves_ends_his_request(house: House) -> None:
    answers = door.stream_infer(house.node, wire("writer", text("fake:tokens=100000"), parameters={}), "t")
    await anext(answers)
    await answers.aclose()
    await house.until(lambda: len(house.node.jobs) == 0)


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (wire("nobody", floats(1)), Code.NOT_FOUND),
        (wire("affine", floats(1), model_version="2"), Code.NOT_FOUND),
        (wire("affine", text("a")), Code.INVALID),
        (wire("writer", floats(1)), Code.UNSUPPORTED),
        (wire("minilm", text("")), Code.INVALID),
        (wire("affine"), Code.INVALID),
    ],
)
async def test_what_cannot_be_is_refused(house: House, request_: oip.ModelInferRequest, code: Code) -> None:
    with pytest.raises(InferdError) as caught:
        await door.infer(house.node, request_, "t")
    assert caught.value.code is code


async def test_who_is_refused_before_there_is_a_request_is_counted_too(house: House) -> None:
    for request in (wire("nobody", floats(1)), wire("affine", floats(1), model_version="2")):
        with pytest.raises(InferdError):
            await door.infer(house.node, request, "t")
    house.node.draining = True
    with pytest.raises(InferdError):
        await door.infer(house.node, wire("affine", floats(1)), "t")
    assert (house.node.jobs.tenants.of("t").refused, house.node.jobs.meter.total.requests_refused) == (3, 3)
    assert len(house.told(Kind.REFUSED)) == 1, "the others come with the next second"


async def test_a_daemon_that_drains_takes_nothing_new(house: House) -> None:
    house.node.closing = True
    with pytest.raises(InferdError) as caught:
        await door.infer(house.node, wire("affine", floats(1)), "t")
    assert caught.value.code is Code.SHUTTING_DOWN


def large(rows: int = 1 << 17) -> oip.ModelInferRequest:
    return wire("affine", {"name": "x", "datatype": "FP32", "shape": [rows, 4]}, raw_input_contents=[bytes(16 * rows)])


async def test_who_leaves_while_a_file_is_filled_leaves_none_behind(house: House, monkeypatch: Any) -> None:
    begun, go_on, closed = threading.Event(), threading.Event(), asyncio.Event()

    class Watched(Blob):
        def close(self) -> None:
            super().close()
            closed.set()

    def of(parts: list[bytes]) -> Blob:
        begun.set()
        go_on.wait()
        return Watched(1, fd=os.dup(0))

    monkeypatch.setattr("inferd.daemon.api.oip.Blob", SimpleNamespace(of=of))
    task = asyncio.create_task(door.infer(house.node, large(), "t"))
    await asyncio.to_thread(begun.wait)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go_on.set()
    async with asyncio.timeout(10):
        await closed.wait()


async def test_without_a_file_a_request_is_sent_away(house: House, monkeypatch: Any) -> None:
    def of(parts: list[bytes]) -> Blob:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("inferd.daemon.api.oip.Blob", SimpleNamespace(of=of))
    with pytest.raises(InferdError) as caught:
        await door.infer(house.node, wire("affine", floats(1)), "t")
    assert caught.value.code is Code.OVERLOADED


async def test_looking_at_large_tensors_does_not_stop_the_loop(house: House) -> None:
    n = 1 << 20
    request = wire("affine", {"name": "x", "datatype": "BYTES", "shape": [n]}, raw_input_contents=[bytes(4 * n)])
    asking = asyncio.create_task(door.infer(house.node, request, "t"))
    turns = 0
    while not asking.done():
        await asyncio.sleep(0)
        turns += 1
    assert "must be FP32" in str(asking.exception())
    assert turns > 10


async def test_a_text_is_not_made_of_numbers(house: House) -> None:
    given = {"name": "text_input", "datatype": "INT64", "shape": [1]}
    for model in ("minilm", "moods", "writer"):
        request = wire(model, given, raw_input_contents=[b"\x02\0\0\0\xff\xff\xff\xff"])
        with pytest.raises(InferdError, match="text_input must be BYTES, not INT64"):
            await door.infer(house.node, request, "t")


async def test_a_text_is_no_longer_than_at_other_doors(house: House) -> None:
    with pytest.raises(InferdError, match="of text are allowed"):
        await door.infer(house.node, wire("writer", text("a" * (5 << 20))), "t")


async def test_outputs_that_texts_do_not_become_are_refused(house: House) -> None:
    for model in ("minilm", "moods", "writer"):
        with pytest.raises(InferdError, match="there is no output 'nothing'"):
            await door.infer(house.node, wire(model, text("a"), outputs=[{"name": "nothing"}]), "t")


async def test_every_last_answer_of_a_stream_says_so(house: House) -> None:
    for request in (wire("affine", floats(1)), wire("minilm", text("a"))):
        (answer,) = [answer async for answer in door.stream_infer(house.node, request, "t")]
        assert answer.parameters["triton_final_response"].bool_param
        assert not (await door.infer(house.node, request, "t")).parameters


async def test_a_stream_may_ask_for_the_whole_text(house: House) -> None:
    whole = {"name": "stream", "datatype": "BOOL", "shape": [1], "contents": {"bool_contents": [False]}}
    request = wire("writer", text("fake:tokens=3"), whole)
    (answer,) = [answer async for answer in door.stream_infer(house.node, request, "t")]
    assert len(next(unpack_strings(answer.raw_output_contents[0])).split()) == 3
    assert answer.parameters["triton_final_response"].bool_param
