"""Embed and Rerank on the wire: requests checked field by field, vectors written as the bytes that they are."""

from __future__ import annotations

import math
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.daemon.api.pooled import to_embed, to_embeddings, to_rerank, to_results
from inferd.daemon.domain.errors import Code, InferdError
from inferd.daemon.domain.inputs import MAX_INPUTS
from inferd.daemon.domain.request import Priority
from inferd.daemon.node.stream import Vectors
from inferd.protos import inferd_pb2 as pb


def embed(*inputs: pb.EmbedInput, **fields: Any) -> pb.EmbedRequest:
    return pb.EmbedRequest(**{"model": "m", "inputs": inputs or (pb.EmbedInput(text="x"),), **fields})


def rerank(**fields: Any) -> pb.RerankRequest:
    return pb.RerankRequest(**{"model": "m", "query": "q", "documents": ["a", "b"], **fields})


def test_texts_and_tokens_in_one_request() -> None:
    both = embed(pb.EmbedInput(text="a"), pb.EmbedInput(tokens=pb.Tokens(ids=[1, 2])), normalize=False, dimensions=3)
    request = to_embed(both, "ada")
    assert request.inputs is not None
    assert (request.inputs.items, request.inputs.query) == (["a", [1, 2]], None)
    assert (request.inputs.normalize, request.inputs.dimensions, request.max_tokens) == (False, 3, 0)
    assert (request.model, request.tenant, request.priority) == ("m", "ada", Priority.INTERACTIVE)
    assert request.id.startswith("r")


def test_what_is_not_said_is_the_default() -> None:
    embedded, ranked = to_embed(embed(), "t").inputs, to_rerank(rerank(), "t").inputs
    assert embedded is not None
    assert (embedded.normalize, embedded.dimensions) == (None, None)
    assert ranked is not None
    assert (ranked.items, ranked.query, ranked.top_n) == (["a", "b"], "q", None)


def test_how_it_waits_is_said_as_with_generate() -> None:
    fields = {"priority": pb.BATCH, "deadline_ms": 7, "request_id": "e1"}
    for request in (to_embed(embed(**fields), "t"), to_rerank(rerank(**fields), "t")):
        assert (request.priority, request.deadline_ms, request.id) == (Priority.BATCH, 7, "e1")


@pytest.mark.parametrize(
    ("wire", "field"),
    [
        (embed(model=""), "model"),
        (embed(pb.EmbedInput(text="a"), pb.EmbedInput()), "inputs[1]"),
        (embed(pb.EmbedInput(text="")), "inputs[0]"),
        (embed(pb.EmbedInput(tokens=pb.Tokens())), "inputs[0]"),
        (embed(dimensions=0), "dimensions"),
        (embed(priority=9), "priority"),
        (embed(deadline_ms=0), "deadline_ms"),
        (embed(request_id="\n"), "request_id"),
        (pb.EmbedRequest(model="m"), "inputs"),
        (embed(*[pb.EmbedInput()] * (MAX_INPUTS + 1)), "inputs"),
        (rerank(documents=[""] * (MAX_INPUTS + 1)), "documents"),
        (rerank(query=""), "query"),
        (rerank(documents=[]), "documents"),
        (rerank(documents=["a", ""]), "documents[1]"),
        (rerank(top_n=0), "top_n"),
    ],
)
def test_the_first_wrong_field_is_named(wire: pb.EmbedRequest | pb.RerankRequest, field: str) -> None:
    with pytest.raises(InferdError) as error:
        to_embed(wire, "t") if isinstance(wire, pb.EmbedRequest) else to_rerank(wire, "t")
    assert (error.value.code, error.value.field) == (Code.INVALID, field)


@given(st.integers(1, 5), st.sampled_from([1, 2, 31, 32, 5000]), st.randoms(use_true_random=False))
def test_vectors_are_read_as_they_were_written(n: int, n_values: int, draw: Any) -> None:
    rows = [[draw.uniform(-1, 1) for _ in range(n_values)] for _ in range(n)]
    data = b"".join(struct.pack(f"={n_values}f", *row) for row in rows)
    written = pb.EmbedResponse(embeddings=to_embeddings(Vectors(n, data))).SerializeToString()
    read = [list(one.values) for one in pb.EmbedResponse.FromString(written).embeddings]
    assert read == [list(struct.unpack(f"={n_values}f", struct.pack(f"={n_values}f", *row))) for row in rows]
    plain = pb.EmbedResponse(embeddings=[pb.Embedding(values=row) for row in read])
    assert plain.SerializeToString() == written


def test_the_best_document_comes_first() -> None:
    scores = [0.5, math.nan, 2.0, 0.5, -1.0]
    vectors = Vectors(5, struct.pack("=5f", *scores))
    assert [result.index for result in to_results(vectors, None)] == [2, 0, 3, 4, 1]
    best = to_results(vectors, 2)
    assert [(result.index, result.relevance_score) for result in best] == [(2, 2.0), (0, 0.5)]
    assert len(to_results(vectors, 9)) == 5
