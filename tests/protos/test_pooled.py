"""What the clients ask of models that embed or rank, and what they make of the answers."""

from __future__ import annotations

from typing import Any, cast

import pytest

from inferd import AsyncClient, Client, InferdError
from inferd.protos import inferd_pb2 as pb
from inferd.protos.pooled import Ranked, embed_request, rerank_request


def said(request: pb.EmbedRequest) -> list[str | list[int]]:
    return [one.text if one.HasField("text") else list(one.tokens.ids) for one in request.inputs]


def test_one_text_several_or_tokens() -> None:
    assert said(embed_request("m", "a", None, None, {})) == ["a"]
    assert said(embed_request("m", ["a", "b"], None, None, {})) == ["a", "b"]
    assert said(embed_request("m", [[1, 2], [3]], None, None, {})) == [[1, 2], [3]]


def test_options_are_sent_and_what_is_none_is_not() -> None:
    request = embed_request("m", "a", False, 8, {"priority": "batch", "deadline_ms": 5, "request_id": None})
    assert (request.normalize, request.dimensions, request.priority, request.deadline_ms) == (False, 8, pb.BATCH, 5)
    plain = rerank_request("m", "q", ["a"], None, {})
    assert not plain.HasField("top_n")
    assert plain.priority == pb.INTERACTIVE


@pytest.mark.parametrize(
    ("inputs", "dimensions", "options", "named"),
    [
        ([1.5], None, {}, "inputs"),
        ([[-1]], None, {}, "inputs"),
        (["a"], -1, {}, "dimensions"),
        (["a"], None, {"priority": "urgent"}, "priority"),
        (["a"], None, {"deadline_ms": "x"}, "deadline_ms"),
    ],
)
def test_what_no_field_can_hold_is_named(inputs: Any, dimensions: Any, options: Any, named: str) -> None:
    with pytest.raises(InferdError) as error:
        embed_request("m", inputs, None, dimensions, options)
    assert (error.value.code, error.value.details) == ("invalid", {"field": named})
    with pytest.raises(TypeError, match="no option 'seed'"):
        embed_request("m", "a", None, None, cast(Any, {"seed": 1}))


def test_vectors_come_as_lists_with_what_they_took(daemon: Any) -> None:
    with Client(daemon.address) as client:
        vectors = client.embed("demo", ["a", "b"], dimensions=2)
    assert vectors == [[0.0, 0.5], [1.0, 0.5]]
    assert (vectors.request_id, vectors.model) == ("r1", "demo")
    assert (vectors.usage.prompt_tokens, vectors.timings.e2e_ms) == (5, 30)
    assert daemon.asked[-1].dimensions == 2


def test_documents_come_best_first(daemon: Any) -> None:
    with Client(daemon.address) as client:
        ranking = client.rerank("demo", "q", ["a", "b", "c"], top_n=2)
    assert ranking == [Ranked(2, 0.5), Ranked(1, -0.5)]
    assert (ranking.request_id, ranking.usage.prompt_tokens) == ("r1", 5)
    assert (daemon.asked[-1].query, list(daemon.asked[-1].documents)) == ("q", ["a", "b", "c"])


async def test_the_asyncio_client_does_the_same(daemon: Any) -> None:
    async with AsyncClient(daemon.address) as client:
        assert await client.embed("demo", "a") == [[0.0, 0.5]]
        assert await client.rerank("demo", "q", ["a"]) == [Ranked(0, 0.5)]
