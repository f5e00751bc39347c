"""Requests of the Open Inference Protocol over a Node with the fake engine: what becomes of tensors and of texts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from inferd.daemon.api import oip as door
from inferd.daemon.api.oip_tensors import strings
from inferd.daemon.domain.errors import Code, InferdError
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
    import os

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
    (best,) = strings(answer.raw_output_contents[0])
    assert best.split(":")[1:] == ["0", "calm"]


async def test_a_text_is_written(house: House) -> None:
    answer = await door.infer(house.node, wire("writer", text("fake:tokens=3")), "t")
    (said,) = strings(answer.raw_output_contents[0])
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


async def test_a_daemon_that_drains_takes_nothing_new(house: House) -> None:
    house.node.closing = True
    with pytest.raises(InferdError) as caught:
        await door.infer(house.node, wire("affine", floats(1)), "t")
    assert caught.value.code is Code.SHUTTING_DOWN
