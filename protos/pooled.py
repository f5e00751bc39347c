"""What the clients ask of models that embed or rank, and what they make of the answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict

from . import inferd_pb2 as pb
from .answer import Timings, Usage, timings_of, usage_of
from .compose import guarded, plain_request, set_priority

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class QueueOptions(TypedDict, total=False):
    """How a request waits; what is None is left to the daemon."""

    priority: str | None  # interactive, normal, batch
    deadline_ms: int | None
    request_id: str | None


class Vectors(list[list[float]]):
    """One vector for each input, in order; and what they took."""

    def __init__(self, answer: pb.EmbedResponse) -> None:
        super().__init__(list(one.values) for one in answer.embeddings)
        self.request_id = answer.request_id
        self.model = answer.model
        self.usage: Usage = usage_of(answer.usage)
        self.timings: Timings = timings_of(answer.timings)


@dataclass(frozen=True, slots=True)
class Ranked:
    """One document by its place in what was sent."""

    index: int
    relevance_score: float


class Ranking(list[Ranked]):
    """The documents, best first; and what that took."""

    def __init__(self, answer: pb.RerankResponse) -> None:
        super().__init__(Ranked(result.index, result.relevance_score) for result in answer.results)
        self.request_id = answer.request_id
        self.model = answer.model
        self.usage: Usage = usage_of(answer.usage)
        self.timings: Timings = timings_of(answer.timings)


def embed_request(
    model: str,
    inputs: str | Sequence[str] | Sequence[Sequence[int]],
    normalize: bool | None,
    dimensions: int | None,
    options: QueueOptions,
) -> pb.EmbedRequest:
    """Build the request; a single str is one input. What no field can hold is InferdError("invalid")."""
    request = plain_request(pb.EmbedRequest, model=model, normalize=normalize, dimensions=dimensions)
    guarded("inputs", lambda: request.inputs.extend(_input(one) for one in _each(inputs)))
    _set_queue(request, options)
    return request


def rerank_request(
    model: str, query: str, documents: Sequence[str], top_n: int | None, options: QueueOptions
) -> pb.RerankRequest:
    """Build the request. What no field can hold is InferdError("invalid")."""
    request = plain_request(pb.RerankRequest, model=model, query=query, top_n=top_n)
    guarded("documents", lambda: request.documents.extend(_each(documents)))
    _set_queue(request, options)
    return request


def _each(texts: Any) -> Any:
    return [texts] if isinstance(texts, str) else texts


def _input(one: str | Sequence[int]) -> pb.EmbedInput:
    return pb.EmbedInput(text=one) if isinstance(one, str) else pb.EmbedInput(tokens=pb.Tokens(ids=one))


def _set_queue(request: pb.EmbedRequest | pb.RerankRequest, options: Mapping[str, Any]) -> None:
    request.priority = pb.INTERACTIVE
    for name, value in options.items():
        if name not in QueueOptions.__annotations__:
            raise TypeError(f"there is no option {name!r}")
        if value is None:
            continue
        if name == "priority":
            guarded(name, lambda value=value: set_priority(request, value))  # type: ignore[misc]
        else:
            guarded(name, lambda name=name, value=value: setattr(request, name, value))  # type: ignore[misc]
