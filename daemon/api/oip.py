"""The doors of the Open Inference Protocol for one request: tensors, or texts, to an answer or a stream of them."""

from __future__ import annotations

import asyncio
from array import array
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from ...backends.blob import Blob
from ...backends.messages import SamplingParams, Tensor
from ...backends.tensors import pack_strings
from ..domain.errors import Code, InferdError
from ..domain.inputs import Inputs, check_inputs
from ..domain.request import Request
from ..domain.tensors import Outputs, Tensors
from ..node import stream as words
from . import wire as inferd_wire
from .oip_envelope import STREAM, TEXT, TEXT_INPUTS, envelope, flag, texts, to_generate, value_of
from .oip_models import VERSION, check_version
from .oip_tensors import check_outputs, class_counts, classes, response, to_tensors

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from ...protos import oip_pb2 as oip
    from ..domain.model import Model
    from ..node.node import Node

    Parts = list[tuple[Tensor, bytes]]

T = TypeVar("T")
NO_TEXT: dict[str, Any] = {"params": SamplingParams(max_tokens=0), "max_tokens": 0}
LARGE_BYTES = 1 << 20  # from here on tensors are looked at beside the loop
TEXT_OUTPUT, EMBEDDING, LOGITS, OFFSETS = "text_output", "embedding", "logits", "offsets"
LABELS: dict[str, Literal["", "classify", "tag"]] = {"classify": "classify", "tag": "tag"}
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
    model = _model(node, wire, tenant)
    given: Parts = list(zip(*await _beside(wire.ByteSize(), to_tensors, wire), strict=True))
    names = {tensor.name for tensor, _ in given}
    task = model.plan.task
    # A ranker reads pairs of texts, for which there is no name here: it is asked for with its own tensors, or `Rerank`.
    own = task in ("infer", "rank") or TEXT in {port.name for port in model.facts.inputs}
    if own or TEXT not in names or not names <= TEXT_INPUTS:
        answer = await _tensors(node, wire, tenant, model, given)
    else:
        _check_length(given, node.config.server.max_message_bytes)
        if task not in ("embed", "classify", "tag"):
            async with aclosing(_generate(node, wire, tenant, given, pieces=pieces)) as answers:
                async for answer in answers:
                    yield answer
            return
        answer = await _texts(node, wire, tenant, model, given)
    if pieces:
        answer.parameters[FINAL].bool_param = True  # by which who reads a stream tells the last one
    yield answer


def _model(node: Node, wire: oip.ModelInferRequest, tenant: str) -> Model:
    """What is refused before there is a request counts like one. Raises InferdError."""
    try:
        check_version(wire.model_version)
        node.refuse_new()
        return node.fleet.get(wire.model_name).model
    except InferdError as error:
        node.turned_away(tenant, error)
        raise


def _check_length(given: Parts, most: int) -> None:
    """Texts are no longer than at the other doors. Raises InferdError."""
    if (n_bytes := sum(len(data) for _, data in given)) > most:
        message = f"inputs have {n_bytes:,} bytes together, at most {most:,} of text are allowed"
        raise InferdError(Code.INVALID, message, field="inputs", highest=most)


async def _beside(n_bytes: int, work: Callable[..., T], *arguments: object) -> T:
    """What takes long is done in a thread, so that the loop goes on."""
    return await asyncio.to_thread(work, *arguments) if n_bytes >= LARGE_BYTES else work(*arguments)


async def _tensors(
    node: Node, wire: oip.ModelInferRequest, tenant: str, model: Model, given: Parts
) -> oip.ModelInferResponse:
    counts, wanted = class_counts(wire), tuple(output.name for output in wire.outputs)
    tensors = [tensor for tensor, _ in given]
    blob = await _to_blob([data for _, data in given])
    given.clear()  # long ones are in a file now, and need not be here as well while they wait
    try:
        asked = Tensors(tensors, blob, wanted, model.facts.batched)
        events = await _all(node, Request(**envelope(wire, tenant, node.jobs), **NO_TEXT, tensors=asked))
    finally:
        blob.close()
    outputs = next(event for event in events if isinstance(event, Outputs))
    found = await _read(outputs)
    if counts:
        found = await _beside(outputs.blob.n_bytes, _best, found, counts, asked.n_rows, model.facts.labels)
    return response(wire, VERSION, found)


def _best(found: Parts, counts: dict[str, int], n_rows: int, labels: tuple[str, ...]) -> Parts:
    """Outputs that are wanted as classes become these."""
    return [
        classes(tensor, data, counts[tensor.name], n_rows, labels) if tensor.name in counts else (tensor, data)
        for tensor, data in found
    ]


async def _to_blob(parts: list[bytes]) -> Blob:
    """A file that is there only when nobody waits for it any more is closed. Raises InferdError."""
    making = asyncio.ensure_future(_beside(sum(map(len, parts)), Blob.of, parts))
    try:
        return await asyncio.shield(making)
    except asyncio.CancelledError:
        making.add_done_callback(lambda done: None if done.cancelled() or done.exception() else done.result().close())
        raise
    except OSError:
        message = "there is no memory, or no file, left for the tensors of this request"
        raise InferdError(Code.OVERLOADED, message, retry_after_ms=1000, reason="tensors") from None


async def _read(outputs: Outputs) -> Parts:
    """The outputs with their bytes."""
    blob = outputs.blob
    try:
        data = await _beside(blob.n_bytes, blob.read)
    except OSError:
        raise InferdError(Code.INTERNAL, "the worker's answer was cut short") from None
    finally:
        blob.close()
    if len(outputs.tensors) == 1:
        return [(outputs.tensors[0], data)]
    found: Parts = []
    at = 0
    for tensor in outputs.tensors:
        found.append((tensor, data[at : at + tensor.n_bytes]))
        at += tensor.n_bytes
    return found


async def _all(node: Node, request: Request) -> list[words.StreamEvent]:
    """Every event of a request that is answered as a whole. Raises InferdError."""
    return await _events(node, node.submit(request))


async def _events(node: Node, stream: words.Stream) -> list[words.StreamEvent]:
    """All up to the end. Raises InferdError."""
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
    """A vector of each text, or the logits of its labels; or those of each token, and where that is in the text."""
    task = model.plan.task
    name = EMBEDDING if task == "embed" else LOGITS
    check_outputs(wire, name, *([OFFSETS] if task == "tag" else []))
    items: list[str | list[int]] = [
        text for tensor, data in given if tensor.name == TEXT for text in texts(tensor, data)
    ]
    if task == "tag" and len(items) != 1:
        raise InferdError(Code.INVALID, f"{TEXT} must have one element, not {len(items)}", field=TEXT)
    inputs = Inputs(items, labels=LABELS.get(task, ""))
    check_inputs(inputs)
    request = Request(**envelope(wire, tenant, node.jobs), **NO_TEXT, inputs=inputs)
    stream = node.submit(request)
    vectors = next(event for event in await _events(node, stream) if isinstance(event, words.Vectors))
    n_rows = len(stream.job.offsets) // 2 if task == "tag" else vectors.n
    answer = Tensor(name, "FP32", [n_rows, len(vectors.data) // 4 // n_rows], len(vectors.data)), vectors.data
    if n_best := class_counts(wire).get(name, 0):
        answer = classes(*answer, n_best, n_rows, model.facts.labels)
    if task != "tag":
        return response(wire, VERSION, [answer])
    places = array("q", stream.job.offsets).tobytes()
    both = {name: answer, OFFSETS: (Tensor(OFFSETS, "INT64", [n_rows, 2], len(places)), places)}
    return response(wire, VERSION, [both[one] for one in [output.name for output in wire.outputs] or both])


async def _generate(
    node: Node, wire: oip.ModelInferRequest, tenant: str, given: Parts, *, pieces: bool
) -> AsyncGenerator[oip.ModelInferResponse, None]:
    check_outputs(wire, TEXT_OUTPUT)
    asked = to_generate(wire, given)
    if flag(given, STREAM) is False or (STREAM in wire.parameters and value_of(wire.parameters[STREAM]) is False):
        pieces = False
    request = inferd_wire.to_requests(asked, tenant, envelope(wire, tenant, node.jobs))[0]
    stream = node.submit(request)
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
    data = pack_strings([text.encode()])
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
