"""`inferd embed`, `rerank` and `tokenize`: vectors of texts, documents by how well they answer, tokens of a text."""

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .common import USAGE, Address, AsJson, Model, connect, fields_of, guarded, print_json, print_table
from .common import stop as end
from .run import PriorityOption, read_prompt

if TYPE_CHECKING:
    from ...protos.pooled import Ranking, Vectors

SHOWN_VALUES = 6  # of a vector, to people
SHOWN_CHARS = 60

Texts = Annotated[
    list[str] | None, typer.Argument(metavar="TEXT...", help="The texts; without any, each line of stdin is one.")
]
Text = Annotated[str | None, typer.Argument(metavar="TEXT", help="The text; - or a pipe reads stdin.")]
Query = Annotated[str, typer.Argument(metavar="QUERY", help="What is looked for.")]
Documents = Annotated[
    list[str] | None,
    typer.Argument(metavar="DOCUMENT...", help="The documents; without any, each line of stdin is one."),
]
Dimensions = Annotated[int | None, typer.Option(metavar="N", help="Keep only so many values of each vector.")]
Raw = Annotated[bool, typer.Option("--raw", help="Leave the vectors as long as the model makes them.")]
TopN = Annotated[int | None, typer.Option(metavar="N", help="Show only the best N.")]


@guarded
def embed(
    model: Model,
    texts: Texts = None,
    dimensions: Dimensions = None,
    raw: Raw = False,
    priority: PriorityOption = "interactive",
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Make a vector of each text."""
    given = _given(texts)
    normalize = False if raw else None
    with connect(address) as client:
        vectors = client.embed(model, given, dimensions=dimensions, normalize=normalize, priority=priority)
    if as_json:
        print_json({**_twin(vectors), "embeddings": list(vectors)})
        return
    rows = [
        (text[:SHOWN_CHARS], len(vector), " ".join(f"{value:.4f}" for value in vector[:SHOWN_VALUES]) + " ...")
        for text, vector in zip(given, vectors, strict=True)
    ]
    print_table(("TEXT", ">VALUES", "THE FIRST"), rows)


@guarded
def rerank(
    model: Model,
    query: Query,
    documents: Documents = None,
    top_n: TopN = None,
    priority: PriorityOption = "interactive",
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Say how well each document answers a query, the best first."""
    given = _given(documents)
    with connect(address) as client:
        ranking = client.rerank(model, query, given, top_n, priority=priority)
    if as_json:
        results = [{"index": it.index, "relevance_score": it.relevance_score} for it in ranking]
        print_json({**_twin(ranking), "results": results})
        return
    rows = [(f"{it.relevance_score:.4f}", it.index, given[it.index][:SHOWN_CHARS]) for it in ranking]
    print_table((">SCORE", ">INDEX", "DOCUMENT"), rows)


@guarded
def tokenize(model: Model, text: Text = None, address: Address = None, as_json: AsJson = False) -> None:
    """Show a text's tokens, as the model reads it."""
    given = read_prompt("-" if text is None else text, sys.stdin, as_json=as_json)
    with connect(address) as client:
        tokens = client.tokenize(model, given or "")
    if as_json:
        print_json({"model": model, "tokens": tokens})
    else:
        print(*tokens)


def _given(texts: list[str] | None) -> list[str]:
    """From the arguments, or a pipe."""
    if not texts and not sys.stdin.isatty():
        texts = [line for line in sys.stdin.read().splitlines() if line]
    if not texts:
        end(USAGE, "no text is given")
    return texts


def _twin(answer: "Vectors | Ranking") -> dict[str, Any]:
    """What the JSON of both says."""
    return {
        "request_id": answer.request_id,
        "model": answer.model,
        "usage": fields_of(answer.usage, ("prompt_tokens",)),
        "timings": fields_of(answer.timings, ("queue_ms", "prefill_ms", "e2e_ms")),
    }
