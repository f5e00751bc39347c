"""Models that forget (a state in place of cells, both, or a sliding window): served as if each request were alone."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from inferd.backends.llama.loading import load_generator as load
from inferd.backends.messages import Finished, Stopped
from inferd.tests.models.random_gguf import SHAPES, write_random_gguf
from inferd.tests.models.random_recurrent import write_random_lfm2, write_random_mamba

from .by_hand import greedy
from .engines import Heard, hear, plan, run, submit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from inferd.backends.llama.engine import LlamaEngine
    from inferd.backends.messages import Submit

    Open = Callable[..., LlamaEngine]

pytestmark = pytest.mark.llama
MODELS = ("recurrent", "hybrid", "sliding")
WINDOW = 64  # tokens, of the sliding one
N_PROMPTS = (3, 50, 64, 130, 200, 300)
N_TOKENS = 24


@pytest.fixture(scope="module", params=MODELS)
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / f"{request.param}.gguf"
    match request.param:
        case "recurrent":
            return write_random_mamba(path)
        case "hybrid":
            return write_random_lfm2(path)
        case _:
            return write_random_gguf(path, replace(SHAPES["tiny-gemma3"], sliding_window=WINDOW), "f32")


@pytest.fixture(scope="module")
def expected(path: Path) -> list[list[int]]:
    """What the model says to each prompt when nobody else is there."""
    return [greedy(path, prompt(i), N_TOKENS) for i in range(len(N_PROMPTS))]


@pytest.fixture
def open_engine(path: Path) -> Iterator[Open]:
    opened: list[LlamaEngine] = []

    def open_one(**changes: Any) -> LlamaEngine:
        opened.append(load(plan(path, **changes), lambda _: None))
        return opened[-1]

    yield open_one
    for engine in opened:
        engine.close()


def prompt(i: int) -> list[int]:
    """Long ones begin alike, so that somebody could be tempted to share."""
    draw = random.Random(7)
    tokens = [draw.randrange(500) for _ in range(N_PROMPTS[i])]
    return tokens if i % 2 else [*tokens[:-1], i]


def ask(i: int, job: str = "", **params: Any) -> Submit:
    return submit(job or str(i), prompt(i), **{"temperature": 0.0, "max_tokens": N_TOKENS, **params})


def said(heard: dict[str, Heard]) -> dict[str, list[int]]:
    return {job: it.tokens for job, it in heard.items()}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"n_ubatch": 64},
        {"n_draft": 15},
        {"kv_layout": "split", "n_slots": 3, "kv_cells": 1536},
        {"cache_bytes": 1 << 24, "n_ubatch": 64},
    ],
    ids=["plain", "small steps", "guesses", "split", "snapshots"],
)
def test_answers_do_not_depend_on_company(
    open_engine: Open, expected: list[list[int]], changes: dict[str, Any]
) -> None:
    engine = open_engine(**changes)
    draw = random.Random(1)
    for _ in range(3):
        order = draw.sample(range(len(N_PROMPTS)), len(N_PROMPTS))
        heard: dict[str, Heard] = {}
        for i in order:  # one after the other, some of them in the middle of others
            engine.submit(ask(i))
            hear(engine, heard, draw.randrange(8))
        assert said(hear(engine, heard)) == {str(i): expected[i] for i in order}


def test_the_same_prompt_again_and_again(open_engine: Open, expected: list[list[int]]) -> None:
    engine = open_engine()
    for _ in range(2):
        heard = run(engine, *(ask(5, job) for job in "abc"))
        assert said(heard) == dict.fromkeys("abc", expected[5])
        assert {it.started.cached_tokens for it in heard.values()} == {0}


@pytest.mark.parametrize("n_steps", [1, 2, 6, 12])
def test_who_was_parked_goes_on_where_it_was(open_engine: Open, expected: list[list[int]], n_steps: int) -> None:
    """In the middle of its prompt, or of its answer; others take its slot meanwhile."""
    engine = open_engine(n_ubatch=64, n_slots=2)
    for i in (5, 4):
        engine.submit(ask(i))
    heard = hear(engine, {}, n_steps)
    engine.cancel("5", 1)
    engine.submit(ask(3))
    hear(engine, heard)
    assert isinstance(heard["5"].end, Stopped)
    so_far = heard["5"].tokens
    rest = msgspec.structs.replace(ask(5), attempt=2, tokens=prompt(5) + so_far)
    again = run(engine, ask(2), rest)
    assert so_far + again["5"].tokens == expected[5]
    assert [heard["4"].tokens, heard["3"].tokens, again["2"].tokens] == [expected[i] for i in (4, 3, 2)]


def test_where_cells_are_short_one_waits_for_another(open_engine: Open, expected: list[list[int]], path: Path) -> None:
    engine = open_engine(n_ctx=512, kv_cells=512)
    waiting = {str(i): ask(i) for i in (5, 4, 3)}
    heard: dict[str, list[int]] = {job: [] for job in waiting}
    while waiting:
        for job, end in run(engine, *waiting.values()).items():
            heard[job] += end.tokens
            if isinstance(end.end, Finished):
                del waiting[job]
            else:
                asked = waiting[job]
                tokens = prompt(int(job)) + heard[job]
                waiting[job] = msgspec.structs.replace(asked, attempt=asked.attempt + 1, tokens=tokens)
    assert heard == {str(i): expected[i] for i in (5, 4, 3)}


def test_a_cancel_in_mid_call_harms_nobody_in_it(open_engine: Open, expected: list[list[int]], path: Path) -> None:
    """A call that has overwritten states cannot be taken back, so it is not broken off."""
    engine = open_engine(n_ubatch=128)
    for i in (1, 3, 4):
        engine.submit(ask(i))
    heard = hear(engine, {}, 3)
    engine._pace.call_ms = {64: 1e6}  # as if calls were long
    n_asked = 0

    def listen() -> bool:
        nonlocal n_asked
        n_asked += 1
        if n_asked == 1:
            engine.cancel("1", 1)
        return False

    engine.submit(ask(5))
    for _ in range(6):
        if not n_asked and path.stem != "sliding":
            engine.cancel("1", 1)
        for event in engine.step(listen):
            heard.setdefault(event.job, Heard()).events.append(event)
    hear(engine, heard)
    assert bool(n_asked) == (path.stem == "sliding")
    assert isinstance(heard["1"].end, Stopped)
    assert [heard[str(i)].tokens for i in (3, 4, 5)] == [expected[i] for i in (3, 4, 5)]
    assert said(run(engine, ask(1))) == {"1": expected[1]}
