"""The doors of the Open Inference Protocol for one request: tensors, or texts, to an answer or a stream of them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from ...backends.blob import Blob
from ...backends.messages import SamplingParams, Tensor
from ..domain.errors import Code, InferdError
from ..domain.inputs import Inputs, check_inputs
from ..domain.request import Request
from ..domain.tensors import Outputs, Tensors
from ..node import stream as words
from . import wire as inferd_wire
from .oip_envelope import TEXT, TEXT_INPUTS, envelope, to_generate, value_of
from .oip_models import VERSION, check_version
from .oip_tensors import class_counts, classes, packed_strings, response, strings, to_tensors

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Sequence

    from ...protos import oip_pb2 as oip
    from ..domain.model import Model
    from ..node.node import Node

    Parts = Sequence[tuple[Tensor, bytes]]

NO_TEXT: dict[str, Any] = {"params": SamplingParams(max_tokens=0), "max_tokens": 0}
LARGE_BYTES = 1 << 20  # from here on files are filled and read beside the loop
TEXT_OUTPUT, EMBEDDING, LOGITS = "text_output", "embedding", "logits"
FINAL = "triton_final_response"
EMPTY_FINAL = "triton_enable_empty_final_response"


async def infer(node: Node, wire: oip.ModelInferRequest, tenant: str) -> oip.ModelInferResponse:
    """One answer. Raises InferdError."""
    answers = [answer async for answer in stream_infer(node, wire, tenant, pieces=False)]
    return answers[0]


async def stream_infer(
    node: Node, wire: oip.ModelInferRequest, tenant: str, *, pieces: bool = True
) -> AsyncGenerator[oip.ModelInferResponse, None]:
    """All answers to one request; with `pieces` a text comes as it is written. Raises InferdError."""
    check_version(wire.model_version)
    node.refuse_when_closing()
    model = node.fleet.get(wire.model_name).model
    tensors, parts = to_tensors(wire)
    names = {tensor.name for tensor in tensors}
    given = list(zip(tensors, parts, strict=True))
    task = model.plan.task
    own = task == "infer" or TEXT in {port.name for port in model.facts.inputs}
    if own or TEXT not in names or not names <= TEXT_INPUTS:
        yield await _tensors(node, wire, tenant, model, given)
    elif task in ("embed", "classify"):
        yield await _texts(node, wire, tenant, model, given)
    else:
        async for answer in _generate(node, wire, tenant, given, pieces=pieces):
            yield answer


async def _tensors(
    node: Node, wire: oip.ModelInferRequest, tenant: str, model: Model, given: Parts
) -> oip.ModelInferResponse:
    counts, parts = class_counts(wire), [data for _, data in given]
    large = sum(map(len, parts)) >= LARGE_BYTES
    blob = await asyncio.to_thread(Blob.of, parts) if large else Blob.of(parts)
    try:
        asked = Tensors([tensor for tensor, _ in given], blob, tuple(output.name for output in wire.outputs))
        events = await _all(node, Request(**envelope(wire, tenant, node.jobs), **NO_TEXT, tensors=asked))
    finally:
        blob.close()
    found = await _read(next(event for event in events if isinstance(event, Outputs)))
    n_rows, labels = asked.n_rows if model.facts.batched else 1, model.facts.labels
    answers = [
        classes(tensor, data, counts[tensor.name], n_rows, labels) if tensor.name in counts else (tensor, data)
        for tensor, data in found
    ]
    return response(wire, VERSION, answers)


async def _read(outputs: Outputs) -> list[tuple[Tensor, bytes]]:
    """The outputs with their bytes."""
    blob = outputs.blob
    try:
        data = await asyncio.to_thread(blob.read) if blob.n_bytes >= LARGE_BYTES else blob.read()
    except OSError:
        raise InferdError(Code.INTERNAL, "the worker's answer was cut short") from None
    finally:
        blob.close()
    if len(outputs.tensors) == 1:
        return [(outputs.tensors[0], data)]
    found, at = [], 0
    for tensor in outputs.tensors:
        found.append((tensor, data[at : at + tensor.n_bytes]))
        at += tensor.n_bytes
    return found


async def _all(node: Node, request: Request) -> list[words.StreamEvent]:
    """Every event of a request that is answered as a whole. Raises InferdError."""
    stream = node.submit(request)
    events: list[words.StreamEvent] = []
    try:
        while taken := await stream.take():
            events += taken
    finally:
        node.hang_up(stream)
    return events


async def _texts(
    node: Node, wire: oip.ModelInferRequest, tenant: str, model: Model, given: Parts
) -> oip.ModelInferResponse:
    """A vector of each text, or the logits of its labels."""
    classifies = model.plan.task == "classify"
    items: list[str | list[int]] = [text for tensor, data in given if tensor.name == TEXT for text in strings(data)]
    inputs = Inputs(items, classify=classifies)
    check_inputs(inputs)
    request = Request(**envelope(wire, tenant, node.jobs), **NO_TEXT, inputs=inputs)
    vectors = next(event for event in await _all(node, request) if isinstance(event, words.Vectors))
    name = LOGITS if classifies else EMBEDDING
    shape = [vectors.n, len(vectors.data) // 4 // vectors.n]
    answer = Tensor(name, "FP32", shape, len(vectors.data)), vectors.data
    if n_best := class_counts(wire).get(name, 0):
        answer = classes(*answer, n_best, vectors.n, model.facts.labels)
    return response(wire, VERSION, [answer])


async def _generate(
    node: Node, wire: oip.ModelInferRequest, tenant: str, given: Parts, *, pieces: bool
) -> AsyncIterator[oip.ModelInferResponse]:
    asked = to_generate(wire, given)
    request = inferd_wire.to_requests(asked, tenant, envelope(wire, tenant, node.jobs))[0]
    stream = node.submit(request)
    stream.read_by(asyncio.current_task())
    said: list[str] = []
    try:
        while events := await stream.take():
            for event in events:
                if isinstance(event, words.Text):
                    if pieces and event.text:
                        yield response(wire, VERSION, [_text(event.text)], **{FINAL: False})
                    said.append(event.text)
                elif isinstance(event, words.Finished):
                    yield _end(wire, event, "" if pieces else "".join(said))
    finally:
        node.hang_up(stream)


def _text(text: str) -> tuple[Tensor, bytes]:
    data = packed_strings([text.encode()])
    return Tensor(TEXT_OUTPUT, "BYTES", [1], len(data)), data


def _end(wire: oip.ModelInferRequest, event: words.Finished, text: str) -> oip.ModelInferResponse:
    """The last answer: why it ended; without outputs where the client wants an empty one."""
    empty = EMPTY_FINAL in wire.parameters and value_of(wire.parameters[EMPTY_FINAL]) is True and not text
    figures: dict[str, Any] = {
        "finish_reason": event.reason.value,
        "prompt_tokens": event.prompt_tokens,
        "cached_tokens": event.cached_tokens,
        "completion_tokens": event.completion_tokens,
        FINAL: True,
    }
    return response(wire, VERSION, [] if empty else [_text(text)], **figures)
