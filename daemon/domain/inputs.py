"""What is to be embedded or ranked, and its limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from .errors import Code, InferdError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ...backends.facts import Task
    from .model import Model
    from .request import Request

MAX_INPUTS = 2048  # as many as OpenAI takes
MAX_TOKENS = 4 * 2**20  # of all of them: a worker is told in one frame
MAX_ANSWER_BYTES = 63 * 2**20  # of vectors: messages of the daemon have at most 64 MiB
TOKEN_BYTES = 4  # of text that a token stands for, on the whole
MAX_ESTIMATE_BYTES = 4 * 2**20  # until they are read: a query counts with each document, and may not fill the queue


DOES: Mapping[Task, str] = {
    "generate": "generates text",
    "embed": "embeds texts",
    "rank": "ranks documents",
    "classify": "classifies texts",
    "tag": "labels the tokens of texts",
    "infer": "takes tensors",
}
CANNOT: Mapping[Task, str] = {
    "generate": "generate text",
    "embed": "embed",
    "rank": "rank",
    "classify": "classify",
    "tag": "label tokens",
    "infer": "take tensors",
}


@dataclass(frozen=True, slots=True)
class Inputs:
    """Texts or tokens, each to become one vector; with a `query` documents, each to become one score; or what is to be
    classified, each to become the logits of all labels."""

    items: Sequence[str | list[int]]
    query: str | None = None
    normalize: bool | None = None  # None: as the model says
    dimensions: int | None = None  # None: as many as the model has
    top_n: int | None = None  # of the documents, the best; None: all
    labels: Literal["", "classify", "tag"] = ""  # instead: logits of the labels of each as a whole, or of its tokens

    @property
    def task(self) -> Task:
        return self.labels or ("embed" if self.query is None else "rank")

    @property
    def field(self) -> str:
        """What the contract calls the items."""
        return "inputs" if self.query is None else "documents"

    @property
    def n_bytes(self) -> int:
        """Of all texts, as far as that is told; tokens count for as much text as they stand for."""
        asked = len((self.query or "").encode(errors="surrogatepass")) * len(self.items)
        said = sum(
            len(item.encode(errors="surrogatepass")) if isinstance(item, str) else TOKEN_BYTES * len(item)
            for item in self.items
        )
        return min(asked + said, MAX_ESTIMATE_BYTES)


def check_n_inputs(field: str, n: int) -> None:
    """Of the wire, before anything is made of them. Raises InferdError naming the field."""
    if not 1 <= n <= MAX_INPUTS:
        message = f"{field} must have 1 to {MAX_INPUTS:,} entries, not {n:,}"
        raise InferdError(Code.INVALID, message, field=field, highest=MAX_INPUTS)


def check_inputs(inputs: Inputs) -> None:
    """What can be said without the model. Raises InferdError naming the field."""
    field = inputs.field
    check_n_inputs(field, len(inputs.items))
    if inputs.query == "":
        raise InferdError(Code.INVALID, "query is empty", field="query")
    for i, item in enumerate(inputs.items):
        if not item:
            raise InferdError(Code.INVALID, f"{field}[{i}] is empty", field=f"{field}[{i}]")
    for name, value in (("dimensions", inputs.dimensions), ("top_n", inputs.top_n)):
        if value == 0:
            raise InferdError(Code.INVALID, f"{name} must be at least 1", field=name, lowest=1)


def check_task(request: Request, model: Model) -> None:
    """A model has one task, beside which it may take tensors. Raises InferdError naming the model."""
    can, inputs = model.plan.task, request.inputs
    if request.tensors is not None:
        if model.plan.task == "generate" or not model.facts.inputs:
            raise InferdError(Code.UNSUPPORTED, f"{model.name} takes texts, it does not take tensors", field="model")
        return
    wants: Task = "generate" if inputs is None else inputs.task
    if wants == can:
        return
    does = DOES[can]
    cannot = CANNOT[wants]
    message = f"{model.name} {does}, it does not {cannot}"
    if wants == "embed" and can == "generate" and model.facts.backend != "onnx":  # a graph's outputs are what they are
        message += ' (to have it embed, set pooling = "mean" or "last" for it in the config)'
    raise InferdError(Code.UNSUPPORTED, message, field="model")


def check_lengths(inputs: Inputs, lengths: Sequence[int], model: Model) -> None:
    """Every input must fit the model as a whole: nothing is cut off. Raises InferdError naming the input."""
    highest = longest_input(model)
    for i, n in enumerate(lengths):
        field = f"{inputs.field}[{i}]"
        if n == 0:
            raise InferdError(Code.INVALID, f"{field} has no tokens", field=field)
        if n > highest:
            pair = "" if inputs.query is None else " with the query"
            message = f"{field}{pair} has {n:,} tokens, but {model.name} takes at most {highest:,}"
            raise InferdError(Code.PROMPT_TOO_LONG, message, field=field, prompt_tokens=n, context_tokens=highest)
    if (n := sum(lengths)) > MAX_TOKENS:
        message = f"{inputs.field} have {n:,} tokens together, at most {MAX_TOKENS:,} are allowed"
        raise InferdError(Code.PROMPT_TOO_LONG, message, field=inputs.field, highest=MAX_TOKENS)
    _check_values(inputs, model)


def _check_values(inputs: Inputs, model: Model) -> None:
    n_values = model.facts.n_embd_out or model.facts.n_embd
    if inputs.dimensions is not None and inputs.dimensions > n_values:
        message = f"dimensions is {inputs.dimensions:,}, but vectors of {model.name} have {n_values:,}"
        raise InferdError(Code.INVALID, message, field="dimensions", highest=n_values)
    highest = MAX_ANSWER_BYTES // (4 * (inputs.dimensions or n_values))
    if inputs.query is None and len(inputs.items) > highest:
        message = f"{len(inputs.items):,} vectors are more than one answer takes; send at most {highest:,} inputs"
        raise InferdError(Code.INVALID, message, field="inputs", highest=highest)


def longest_input(model: Model) -> int:
    """In tokens; an encoder knows no positions beyond those that it was trained with."""
    return min(model.plan.n_ctx, model.facts.n_ctx_train)
