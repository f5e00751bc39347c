"""What may be embedded or ranked, and by which model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.backends.messages import SamplingParams
from inferd.daemon.domain.errors import Code, InferdError
from inferd.daemon.domain.inputs import (
    MAX_ESTIMATE_BYTES,
    MAX_INPUTS,
    Inputs,
    check_inputs,
    check_lengths,
    check_task,
    longest_input,
)
from inferd.daemon.domain.model import Model
from inferd.daemon.domain.request import Priority, Request
from inferd.tests.daemon.domain.test_model import FACTS, PLAN

if TYPE_CHECKING:
    from inferd.backends.facts import Pooling, Task


def model(pooling: Pooling = "mean", n_ctx: int = 256, n_embd_out: int = 8) -> Model:
    facts = msgspec.structs.replace(FACTS, n_embd_out=n_embd_out)
    task: Task = "rank" if pooling == "rank" else "embed" if pooling else "generate"
    return Model("m", facts, msgspec.structs.replace(PLAN, pooling=pooling, task=task, n_ctx=n_ctx), keep_alive_s=1.0)


def refused(error: pytest.ExceptionInfo[InferdError]) -> tuple[Code, str | None]:
    return error.value.code, error.value.field


@pytest.mark.parametrize(
    ("inputs", "field"),
    [
        (Inputs([]), "inputs"),
        (Inputs(["x"] * (MAX_INPUTS + 1)), "inputs"),
        (Inputs(["x", ""]), "inputs[1]"),
        (Inputs(["x", []]), "inputs[1]"),
        (Inputs(["x"], dimensions=0), "dimensions"),
        (Inputs([], query="q"), "documents"),
        (Inputs(["x", ""], query="q"), "documents[1]"),
        (Inputs(["x"], query=""), "query"),
        (Inputs(["x"], query="q", top_n=0), "top_n"),
    ],
)
def test_what_is_wrong_is_named(inputs: Inputs, field: str) -> None:
    with pytest.raises(InferdError) as error:
        check_inputs(inputs)
    assert refused(error) == (Code.INVALID, field)


@given(
    st.lists(st.one_of(st.text(min_size=1), st.lists(st.integers(0, 9), min_size=1)), min_size=1), st.text(min_size=1)
)
def test_the_rest_is_taken_and_its_bytes_are_counted(items: list[str | list[int]], query: str) -> None:
    inputs = Inputs(items)
    check_inputs(inputs)
    texts = [item if isinstance(item, str) else "1234" * len(item) for item in items]
    assert inputs.n_bytes == len("".join(texts).encode())
    asked = Inputs(items, query=query)
    check_inputs(asked)
    assert asked.n_bytes == inputs.n_bytes + len(items) * len(query.encode())


TASKS: dict[str, tuple[Pooling, Inputs | None]] = {
    "generate": ("", None),
    "embed": ("last", Inputs(["x"])),
    "rank": ("rank", Inputs(["x"], query="q")),
}


@pytest.mark.parametrize("wants", TASKS)
@pytest.mark.parametrize("can", TASKS)
def test_a_model_does_one_thing(wants: str, can: str) -> None:
    inputs = TASKS[wants][1]
    request = Request("r", "m", SamplingParams(max_tokens=0), Priority.NORMAL, "t", inputs=inputs)
    if wants == can:
        check_task(request, model(TASKS[can][0]))
        return
    with pytest.raises(InferdError) as error:
        check_task(request, model(TASKS[can][0]))
    assert refused(error) == (Code.UNSUPPORTED, "model")
    assert error.value.message.startswith("m ")
    assert ("in the config" in error.value.message) == (wants == "embed" and can == "generate")


def test_a_graph_that_generates_cannot_be_made_to_embed() -> None:
    graph = model("")
    graph.facts = msgspec.structs.replace(graph.facts, backend="onnx")
    request = Request("r", "m", SamplingParams(max_tokens=0), Priority.NORMAL, "t", inputs=TASKS["embed"][1])
    with pytest.raises(InferdError, match=r"it does not embed$"):
        check_task(request, graph)


def test_nothing_is_cut_off() -> None:
    check_lengths(Inputs(["a", "b"]), [256, 1], model())
    with pytest.raises(InferdError, match="takes at most 256") as error:
        check_lengths(Inputs(["a", "b"]), [1, 257], model())
    assert refused(error) == (Code.PROMPT_TOO_LONG, "inputs[1]")
    assert error.value.details == {"prompt_tokens": 257, "context_tokens": 256}
    with pytest.raises(InferdError, match=r"documents\[0\] with the query") as error:
        check_lengths(Inputs(["a"], query="q"), [257], model("rank"))
    with pytest.raises(InferdError, match="no tokens") as error:
        check_lengths(Inputs(["a"]), [0], model())
    assert refused(error) == (Code.INVALID, "inputs[0]")


def test_all_together_have_a_limit_too() -> None:
    big = model(n_ctx=8192)
    big.facts = msgspec.structs.replace(big.facts, n_ctx_train=8192)
    check_lengths(Inputs(["a"] * 512), [8192] * 512, big)
    with pytest.raises(InferdError, match="4,202,496 tokens together") as error:
        check_lengths(Inputs(["a"] * 513), [8192] * 513, big)
    assert refused(error) == (Code.PROMPT_TOO_LONG, "inputs")


def test_no_longer_than_the_model_was_trained_for() -> None:
    assert longest_input(model(n_ctx=512)) == 256
    assert longest_input(model(n_ctx=128)) == 128


def test_a_vector_has_only_so_many_values_and_an_answer_so_many_vectors() -> None:
    check_lengths(Inputs(["a"], dimensions=8), [1], model())
    with pytest.raises(InferdError, match="dimensions is 9") as error:
        check_lengths(Inputs(["a"], dimensions=9), [1], model())
    assert refused(error) == (Code.INVALID, "dimensions")
    many, lengths = Inputs(["a"] * MAX_INPUTS), [1] * MAX_INPUTS
    check_lengths(many, lengths, model(n_embd_out=4096))
    with pytest.raises(InferdError, match="send at most 1,008 inputs") as error:
        check_lengths(many, lengths, model(n_embd_out=16_384))
    assert refused(error) == (Code.INVALID, "inputs")
    check_lengths(Inputs(["a"] * MAX_INPUTS, dimensions=256), lengths, model(n_embd_out=16_384))
    check_lengths(Inputs(["a"] * MAX_INPUTS, query="q"), lengths, model("rank", n_embd_out=16_384))


def test_a_query_with_many_documents_is_estimated_within_a_limit() -> None:
    assert Inputs(["d"] * MAX_INPUTS, query="q" * 17_000).n_bytes == MAX_ESTIMATE_BYTES
    assert Inputs(["d"] * 3, query="qq").n_bytes == 9
