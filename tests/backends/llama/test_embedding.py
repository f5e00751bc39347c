"""Vectors of a real engine against llama.cpp called by hand, against pooling by hand, and beside other requests."""

from __future__ import annotations

import ctypes
import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import llama_cpp.llama_cpp as c
import numpy as np
import pytest

from inferd.backends.llama.gguf import read_facts
from inferd.backends.llama.loading import load_embedder
from inferd.backends.messages import Embed, Embedded, Finished, FinishReason, Started, Stopped
from inferd.tests.models.random_bert import Encoder, write_random_bert
from inferd.tests.models.random_gguf import SHAPES, write_random_gguf
from inferd.tests.models.random_recurrent import write_random_lfm2, write_random_mamba

from .engines import plan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from inferd.backends.facts import Pooling
    from inferd.backends.llama.embedding import EmbeddingEngine
    from inferd.backends.messages import Event

    Floats = np.ndarray[Any, Any]

pytestmark = pytest.mark.llama

POOLINGS: list[tuple[str, Pooling]] = [
    ("encoder", "mean"),
    ("encoder", "cls"),
    ("encoder", "rank"),
    ("decoder", "last"),
    ("decoder", "mean"),
    ("decoder", "cls"),
    ("sliding", "last"),
    ("sliding", "mean"),
    ("recurrent", "last"),
    ("recurrent", "mean"),
    ("hybrid", "last"),
]


@pytest.fixture(scope="module")
def file_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    folder = tmp_path_factory.mktemp("embedders")

    def write(kind: str, pooling: str) -> Path:
        path = folder / f"{kind}-{pooling}.gguf"
        if path.exists():
            return path
        if kind == "encoder":
            write_random_bert(path, Encoder(pooling))
        elif kind == "recurrent":
            write_random_mamba(path)
        elif kind == "hybrid":
            write_random_lfm2(path)
        else:
            shape = SHAPES["tiny" if kind == "decoder" else "tiny-gemma3"]
            write_random_gguf(path, replace(shape, pooling=pooling), "f32")
        return path

    return write


@dataclass
class Opened:
    """An engine, and llama.cpp's own answer beside it."""

    path: Path
    pooling: Pooling
    engine: EmbeddingEngine

    @property
    def n_vocab(self) -> int:
        return self.engine.ready.n_vocab

    def inputs(self, *lengths: int, seed: int = 1) -> list[list[int]]:
        draw = random.Random(seed)
        return [[draw.randrange(5, self.n_vocab) for _ in range(n)] for n in lengths]

    def hear(self) -> list[Event]:
        events: list[Event] = []
        while self.engine.busy():
            events += self.engine.step()
        return events

    def vectors(self, *orders: Embed) -> dict[str, Floats]:
        for order in orders:
            self.engine.embed(order)
        told: dict[str, list[Floats]] = {}
        for event in self.hear():
            assert not isinstance(event, Finished) or event.reason is FinishReason.STOP, event
            if isinstance(event, Embedded):
                told.setdefault(event.job, []).append(np.frombuffer(event.vectors, np.float32).reshape(event.n, -1))
        return {job: np.concatenate(parts) for job, parts in told.items()}

    def alone(self, tokens: list[int], **changes: Any) -> Floats:
        (vector,) = self.vectors(Embed("alone", 1, [tokens], **changes))["alone"]
        return np.asarray(vector)


@pytest.fixture
def open_engine(file_of: Callable[[str, str], Path]) -> Iterator[Callable[..., Opened]]:
    opened: list[Opened] = []

    def open_one(kind: str, pooling: Pooling, **changes: Any) -> Opened:
        path = file_of(kind, pooling)
        shape = {"n_ctx": 512, "kv_cells": 512, "n_ubatch": 512 if kind == "encoder" else 128, "pooling": pooling}
        opened.append(Opened(path, pooling, load_embedder(plan(path, **(shape | changes)), lambda _: None)))
        return opened[-1]

    yield open_one
    for one in opened:
        one.engine.close()


def by_hand(path: Path, tokens: list[int], pooling: int, n_values: int) -> Floats:
    """llama.cpp alone with one text: its pooled vector, or with no pooling (0) the last hidden state of every token."""
    model = c.llama_model_load_from_file(bytes(path), c.llama_model_default_params())
    params = c.llama_context_default_params()
    params.n_ctx = params.n_batch = params.n_ubatch = 512
    params.n_threads = params.n_threads_batch = 1
    params.embeddings, params.pooling_type = True, pooling
    context = c.llama_init_from_model(model, params)
    ids = (c.llama_token * len(tokens))(*tokens)
    assert c.llama_decode(context, c.llama_batch_get_one(ids, len(tokens))) == 0
    if pooling:
        pointer, n = c.llama_get_embeddings_seq(context, 0), n_values
    else:
        pointer, n = c.llama_get_embeddings(context), n_values * len(tokens)
    address = ctypes.addressof(pointer.contents)
    vector = np.frombuffer(ctypes.string_at(address, 4 * n), np.float32).reshape(-1, n_values)
    c.llama_free(context)
    c.llama_model_free(model)
    return vector


def unit(vector: Floats) -> Floats:
    unit: Floats = vector / np.linalg.norm(vector)
    return unit


def same(one: Floats, other: Floats) -> bool:
    """Up to the last bits of sums that were added up in another order."""
    if one.size == 1:
        return abs(float(one[0]) - float(other[0])) < 0.01
    return bool(unit(one) @ unit(other) >= 0.9999)


@pytest.mark.parametrize(("kind", "pooling"), POOLINGS)
def test_vectors_are_those_of_llama_cpp_whoever_is_beside(
    open_engine: Callable[..., Opened], kind: str, pooling: Pooling
) -> None:
    """Short ones share a call; one of 300 tokens takes several in a decoder, whose calls have 128 rows."""
    opened = open_engine(kind, pooling)
    numbers = {"mean": 1, "cls": 2, "last": 3, "rank": 4}
    inputs = opened.inputs(1, 7, 300, 64, 2, 127, 65, 40, 512)
    together = opened.vectors(Embed("a", 1, inputs[:4], False), Embed("b", 1, inputs[4:], False))
    for tokens, vector in zip(inputs, np.concatenate([together["a"], together["b"]]), strict=True):
        (expected,) = by_hand(opened.path, tokens, numbers[pooling], len(vector))
        assert same(vector, expected), len(tokens)
        if pooling != "rank":
            assert np.linalg.norm(vector) == pytest.approx(np.linalg.norm(expected), rel=0.01)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_pooling_is_what_its_name_says(open_engine: Callable[..., Opened], pooling: Pooling) -> None:
    opened = open_engine("encoder", pooling)
    (tokens,) = opened.inputs(50)
    states = by_hand(opened.path, tokens, 0, 64)
    expected = states.mean(axis=0) if pooling == "mean" else states[0]
    assert same(opened.alone(tokens), expected)
    assert not same(opened.alone(tokens), states[-1])


def test_the_last_token_stands_for_a_text(open_engine: Callable[..., Opened]) -> None:
    opened = open_engine("decoder", "last")
    (tokens,) = opened.inputs(50)
    assert same(opened.alone(tokens), by_hand(opened.path, tokens, 0, 64)[-1])


@pytest.mark.parametrize(("kind", "pooling"), [("encoder", "mean"), ("decoder", "last"), ("sliding", "mean")])
def test_calls_of_the_same_shape_give_the_same_bits(
    open_engine: Callable[..., Opened], kind: str, pooling: Pooling
) -> None:
    opened = open_engine(kind, pooling)
    (one,), others = opened.inputs(30), opened.inputs(20, 40, seed=2)
    first = opened.vectors(Embed("a", 1, [others[0], one]))["a"][1]
    again = opened.vectors(Embed("a", 1, [others[0], one]))["a"][1]
    assert first.tobytes() == again.tobytes()
    assert same(opened.vectors(Embed("a", 1, [others[1]]), Embed("b", 1, [one]))["b"][0], first)


@pytest.mark.parametrize(("kind", "pooling"), [("encoder", "mean"), ("decoder", "last")])
def test_exact_numerics_give_the_same_bits_in_any_company(
    open_engine: Callable[..., Opened], kind: str, pooling: Pooling
) -> None:
    opened = open_engine(kind, pooling, numerics="exact")
    inputs = opened.inputs(30, 5, 100, 64, 300)
    alone = [opened.alone(tokens).tobytes() for tokens in inputs]
    others = Embed("b", 1, opened.inputs(9, 90, 77, seed=2))
    together = opened.vectors(others, Embed("a", 1, inputs))["a"]
    assert [vector.tobytes() for vector in together] == alone


def test_vectors_are_cut_and_normalized(open_engine: Callable[..., Opened]) -> None:
    opened = open_engine("encoder", "mean")
    (tokens,) = opened.inputs(20)
    raw, cut = opened.alone(tokens, normalize=False), opened.alone(tokens, dimensions=8)
    assert np.linalg.norm(raw) != pytest.approx(1.0, abs=0.01)
    assert cut == pytest.approx(unit(raw[:8]), abs=1e-5)


def test_a_score_is_what_the_head_says_and_never_normalized(open_engine: Callable[..., Opened]) -> None:
    opened = open_engine("encoder", "rank")
    scores = opened.vectors(Embed("a", 1, opened.inputs(*range(5, 45, 5))))["a"]
    assert scores.shape == (8, 1)
    assert len({abs(float(score)) for score in scores[:, 0]}) == 8, "of a length of 1 they would all be 1"


def test_orders_of_a_rank_take_turns_and_higher_ranks_go_first(open_engine: Callable[..., Opened]) -> None:
    opened = open_engine("decoder", "last", n_ubatch=64)
    many, few, urgent = opened.inputs(*[30] * 6), opened.inputs(30, 30), opened.inputs(30, 30)
    for order in (Embed("many", 1, many), Embed("few", 1, few), Embed("urgent", 1, urgent, rank=2)):
        opened.engine.embed(order)
    told = [(event.job, event.n) for event in opened.hear() if isinstance(event, Embedded)]
    # Two inputs to a call: the urgent ones, then one of each, and what is left.
    assert told[0] == ("urgent", 2)
    assert sorted(told[1:3]) == sorted(told[3:5]) == [("few", 1), ("many", 1)]
    assert told[5:] == [("many", 2), ("many", 2)]


def test_what_can_never_be_computed_ends_at_once_and_names_the_input(open_engine: Callable[..., Opened]) -> None:
    opened = open_engine("encoder", "mean", n_ctx=1024, kv_cells=1024, n_ubatch=1024)
    assert opened.engine.ready.n_ctx == 512, "the model has no positions beyond"
    for tokens, said in (([5] * 513, "has 513 tokens"), ([], "has 0 tokens"), ([-1], "beyond"), ([67], "beyond")):
        opened.engine.embed(Embed("a", 1, [[5], tokens]))
        (end,) = opened.hear()
        assert isinstance(end, Finished)
        assert (end.reason, end.error_field) == (FinishReason.ERROR, "inputs[1]")
        assert said in end.error


def test_an_order_says_what_it_took(open_engine: Callable[..., Opened]) -> None:
    opened = open_engine("decoder", "last")
    opened.engine.embed(Embed("a", 1, opened.inputs(300, 20), known_tokens=7))
    first, *_, end = opened.hear()
    assert first == Started("a", 1, 327, 7)
    assert isinstance(end, Finished)
    assert (end.n_computed, end.completion_tokens) == (320, 0)
    assert end.prefill_ms > 0
    stats = opened.engine.stats()
    assert (stats.running, stats.prefill_tokens, stats.decode_tokens) == (0, 320, 0)
    opened.engine.embed(Embed("a", 2, [], known_tokens=7))
    assert [type(event) for event in opened.hear()] == [Started, Finished]


def test_a_cancel_between_the_calls_of_a_long_input(open_engine: Callable[..., Opened]) -> None:
    opened = open_engine("decoder", "mean")
    long, short = opened.inputs(500, 60)
    alone = opened.alone(short)
    opened.engine.embed(Embed("a", 1, [long]))
    opened.engine.embed(Embed("b", 1, [short]))
    assert [type(event) for event in opened.engine.step()] == [Started]
    opened.engine.cancel("a", 1)
    opened.engine.cancel("a", 1)
    events = opened.hear()
    assert events[0] == Stopped("a", 1, 0, n_computed=128)
    (told,) = (event for event in events if isinstance(event, Embedded))
    assert told.job == "b"
    assert told.vectors == alone.tobytes(), "nothing of the other one is left in the cells"


@pytest.mark.parametrize(("kind", "pooling"), [("encoder", "mean"), ("decoder", "last")])
def test_a_cancel_breaks_off_a_call(open_engine: Callable[..., Opened], kind: str, pooling: Pooling) -> None:
    opened = open_engine(kind, pooling)
    inputs = opened.inputs(60, 60)
    expected = [opened.alone(tokens) for tokens in inputs]
    engine = opened.engine
    engine.embed(Embed("a", 1, [inputs[0]]))
    engine.embed(Embed("b", 1, [inputs[1]]))
    engine._pace.call_ms = {64: 1e6}  # as if calls were long

    def listen() -> bool:
        engine.cancel("a", 1)
        return False

    events: list[Event] = []
    while engine.busy():
        events += engine.step(listen)
    assert [event.job for event in events if isinstance(event, Stopped)] == ["a"]
    vectors = {event.job: event.vectors for event in events if isinstance(event, Embedded)}
    assert same(np.frombuffer(vectors["b"], np.float32), expected[1])


def test_told_to_end_in_mid_call_nothing_is_told(open_engine: Callable[..., Opened]) -> None:
    opened = open_engine("encoder", "mean")
    opened.engine.embed(Embed("a", 1, opened.inputs(100)))
    assert [type(event) for event in opened.engine.step(lambda: True)] == [Started]
    assert [type(event) for event in opened.hear()] == [Embedded, Finished]


def test_it_writes_no_text(open_engine: Callable[..., Opened]) -> None:
    from .engines import submit

    with pytest.raises(AssertionError, match="generates no text"):
        open_engine("encoder", "mean").engine.submit(submit("a", [5]))


def test_the_facts_are_those_of_the_file(file_of: Callable[[str, str], Path]) -> None:
    facts = read_facts(str(file_of("encoder", "cls")))
    assert (facts.pooling, facts.causal, facts.n_embd_out) == ("cls", False, 64)
