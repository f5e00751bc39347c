"""The doors to models that embed or rank: one answer, when all of it is there."""

from __future__ import annotations

from array import array
from math import isnan
from typing import TYPE_CHECKING

from ...backends.messages import SamplingParams
from ...protos import inferd_pb2 as pb
from ..domain.errors import Code, InferdError
from ..domain.inputs import Inputs, check_inputs, check_n_inputs
from ..domain.request import Request
from ..node import stream as words
from . import wire

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..node.node import Node

VALUES_FIELD = b"\x0a"  # field 1 of Embedding, with a length


async def embed(node: Node, request: pb.EmbedRequest, tenant: str) -> pb.EmbedResponse:
    asked = to_embed(request, tenant)
    vectors, finished = await answer(node, asked)
    return pb.EmbedResponse(
        request_id=asked.id,
        model=asked.model,
        embeddings=to_embeddings(vectors),
        usage=wire.usage(finished),
        timings=wire.timings(finished),
    )


async def rerank(node: Node, request: pb.RerankRequest, tenant: str) -> pb.RerankResponse:
    asked = to_rerank(request, tenant)
    scores, finished = await answer(node, asked)
    assert asked.inputs is not None
    return pb.RerankResponse(
        request_id=asked.id,
        model=asked.model,
        results=to_results(scores, asked.inputs.top_n),
        usage=wire.usage(finished),
        timings=wire.timings(finished),
    )


async def answer(node: Node, request: Request) -> tuple[words.Vectors, words.Finished]:
    """Take a request in and wait for its end. Raises InferdError."""
    stream = node.submit(request)
    events: list[words.StreamEvent] = []
    try:
        while taken := await stream.take():
            events += taken
    finally:
        node.hang_up(stream)
    vectors, finished = events[-2:]
    assert isinstance(vectors, words.Vectors)
    assert isinstance(finished, words.Finished)
    return vectors, finished


def to_embed(request: pb.EmbedRequest, tenant: str) -> Request:
    """Raises InferdError naming the first wrong field."""
    check_n_inputs("inputs", len(request.inputs))
    items: list[str | list[int]] = []
    for i, one in enumerate(request.inputs):
        match one.WhichOneof("input"):
            case "text":
                items.append(one.text)
            case "tokens":
                items.append(list(one.tokens.ids))
            case _:
                field = f"inputs[{i}]"
                raise InferdError(Code.INVALID, f"{field}: one of text or tokens must be given", field=field)
    normalize = request.normalize if request.HasField("normalize") else None
    dimensions = request.dimensions if request.HasField("dimensions") else None
    return _request(request, Inputs(items, normalize=normalize, dimensions=dimensions), tenant)


def to_rerank(request: pb.RerankRequest, tenant: str) -> Request:
    """Raises InferdError naming the first wrong field."""
    check_n_inputs("documents", len(request.documents))
    top_n = request.top_n if request.HasField("top_n") else None
    return _request(request, Inputs(list(request.documents), query=request.query, top_n=top_n), tenant)


def _request(request: pb.EmbedRequest | pb.RerankRequest, inputs: Inputs, tenant: str) -> Request:
    check_inputs(inputs)
    envelope = wire.envelope(request, tenant)
    return Request(**envelope, params=SamplingParams(max_tokens=0), max_tokens=0, inputs=inputs)


def to_embeddings(vectors: words.Vectors) -> list[pb.Embedding]:
    """Packed floats on the wire are the very bytes of a vector, so that nobody looks at each value."""
    n_bytes = len(vectors.data) // vectors.n
    head = VALUES_FIELD + _varint(n_bytes)
    data = memoryview(vectors.data)
    return [pb.Embedding.FromString(head + data[i : i + n_bytes]) for i in range(0, len(data), n_bytes)]


def to_results(scores: words.Vectors, top_n: int | None) -> list[pb.RerankResult]:
    """The best first; of equals the one that was named first."""
    values: Sequence[float] = array("f", scores.data)
    order = sorted(range(len(values)), key=lambda i: (isnan(values[i]), -values[i]))
    return [pb.RerankResult(index=i, relevance_score=values[i]) for i in order[:top_n]]


def _varint(n: int) -> bytes:
    """How protobuf writes a length."""
    out = bytearray()
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    return bytes((*out, n))
