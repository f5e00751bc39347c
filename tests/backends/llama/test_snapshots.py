"""States that are kept as a whole: found by exactly their tokens, and as good as computing these again."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.backends.llama import snapshots
from inferd.backends.llama.loading import load_generator as load
from inferd.backends.llama.snapshots import Snapshots
from inferd.backends.messages import Finished
from inferd.tests.models.random_recurrent import write_random_lfm2, write_random_mamba

from .by_hand import greedy
from .engines import hear, plan, run, submit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from inferd.backends.llama.engine import LlamaEngine
    from inferd.backends.messages import Submit

    Open = Callable[..., LlamaEngine]

pytestmark = pytest.mark.llama


def state(n_bytes: int = 1) -> np.ndarray[Any, Any]:
    return np.zeros(n_bytes, np.uint8)


texts = st.lists(st.integers(0, 2), max_size=6)


@given(st.lists(st.tuples(st.sampled_from("ab"), texts)), st.sampled_from("ab"), texts)
def test_the_longest_beginning_of_the_same_salt_is_found(
    kept: list[tuple[str, list[int]]], salt: str, tokens: list[int]
) -> None:
    it = Snapshots(1 << 20)
    for its_salt, its_tokens in kept:
        it.put(its_salt, its_tokens, state())
        assert it.has(its_salt, its_tokens)
    fits = [len(its) for its_salt, its in kept if its_salt == salt and tokens[: len(its)] == its]
    found = it.find(salt, tokens)
    assert (None if found is None else found.n_tokens) == max(fits, default=None)
    assert it.n_bytes == len({(its_salt, *its) for its_salt, its in kept})


def test_what_was_used_least_lately_goes_first() -> None:
    it = Snapshots(10)
    for i in range(3):
        it.put("", [i], state(3))
    assert it.find("", [0, 7]) is not None
    it.put("", [3], state(4))
    assert [it.find("", [i]) is not None for i in range(4)] == [True, False, True, True]
    it.put("", [0], state(1))
    assert (it.n_bytes, it.limit_bytes) == (8, 10)
    it.put("", [9], state(11))
    assert it.n_bytes == 8, "what never fits pushes nobody out"
    assert set(it._lengths) == {1}


@pytest.fixture(scope="module", params=["recurrent", "hybrid"])
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    write = write_random_mamba if request.param == "recurrent" else write_random_lfm2
    return write(tmp_path_factory.mktemp("models") / f"{request.param}.gguf")


@pytest.fixture
def open_engine(path: Path) -> Iterator[Open]:
    opened: list[LlamaEngine] = []

    def open_one(**changes: Any) -> LlamaEngine:
        opened.append(load(plan(path, **{"cache_bytes": 1 << 24, "n_ctx": 1024, **changes}), lambda _: None))
        return opened[-1]

    yield open_one
    for engine in opened:
        engine.close()


def prompt(n: int, seed: int = 0) -> list[int]:
    draw = random.Random(seed)
    return [draw.randrange(500) for _ in range(n)]


def ask(job: str, tokens: list[int], salt: str = "t", **params: Any) -> Submit:
    asked = submit(job, tokens, **{"temperature": 0.0, "max_tokens": 16, **params})
    return msgspec.structs.replace(asked, cache_salt=salt)


def test_a_conversation_goes_on_where_it_ended(open_engine: Open, path: Path) -> None:
    engine = open_engine()
    tokens = prompt(100)
    for turn in range(4):
        n_known = len(tokens)
        heard = run(engine, ask("a", tokens), ask("other", prompt(90, 50 + turn)))["a"]
        assert heard.tokens == greedy(path, tokens, 16)
        tokens = tokens + heard.tokens + prompt(70, turn + 1)
        assert heard.started.cached_tokens == (0 if turn == 0 else n_known - 70 - 1), "all but the last one drawn"


def test_a_long_beginning_is_known_in_the_middle(open_engine: Open, path: Path) -> None:
    engine = open_engine(n_ubatch=128)
    beginning = prompt(700)
    run(engine, ask("a", beginning + prompt(30, 1)))
    other = beginning + prompt(30, 2)
    heard = run(engine, ask("b", other))["b"]
    assert 512 <= heard.started.cached_tokens < 700
    assert heard.tokens == greedy(path, other, 16)


def test_only_exactly_the_same_tokens_of_the_same_salt_are_known(open_engine: Open) -> None:
    engine = open_engine()
    said = run(engine, ask("a", prompt(100)))["a"].tokens
    whole = prompt(100) + said
    for tokens, salt in ((prompt(100), "t"), (whole[:-2], "t"), ([0, *whole[1:]], "t"), ([*whole, 1], "u")):
        assert run(engine, ask("b", tokens, salt))["b"].started.cached_tokens == 0
    assert run(engine, ask("b", [*whole, 1]))["b"].started.cached_tokens == 115


def test_a_parked_request_computes_little_again(open_engine: Open, path: Path) -> None:
    engine = open_engine(n_ubatch=64)
    asked = ask("a", prompt(300), max_tokens=40)
    engine.submit(asked)
    heard = hear(engine, {}, 12)
    engine.cancel("a", 1)
    hear(engine, heard)
    so_far = heard["a"].tokens
    assert so_far
    rest = msgspec.structs.replace(asked, attempt=2, tokens=asked.tokens + so_far)
    again = run(engine, ask("b", prompt(80, 3)), rest)["a"]
    assert again.started.cached_tokens == 300 + len(so_far) - 1
    assert so_far + again.tokens == greedy(path, prompt(300), 40)


def test_where_there_is_no_room_for_its_cells_it_is_computed(open_engine: Open, path: Path) -> None:
    engine = open_engine(n_ctx=512, kv_cells=512)
    known = prompt(200)
    known += run(engine, ask("a", known))["a"].tokens
    waiting = {"big": ask("big", prompt(400, 4), max_tokens=40), "b": ask("b", [*known, 1])}
    engine._memory.room_for = lambda *_: True  # type: ignore[method-assign]
    said: dict[str, list[int]] = {job: [] for job in waiting}
    while waiting:
        for job, heard in run(engine, *waiting.values()).items():
            said[job] += heard.tokens
            if isinstance(heard.end, Finished):
                del waiting[job]
            else:
                tokens = waiting[job].tokens + heard.tokens
                waiting[job] = msgspec.structs.replace(waiting[job], attempt=waiting[job].attempt + 1, tokens=tokens)
    assert said == {"big": greedy(path, prompt(400, 4), 40), "b": greedy(path, [*known, 1], 16)}


def test_what_is_kept_is_told_and_bounded(open_engine: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "EVERY_TOKENS", 128)
    engine = open_engine(cache_bytes=700_000)
    for seed in range(6):
        run(engine, ask("a", prompt(400, seed)))
        assert 0 < engine.stats().cache_bytes <= 700_000
    assert engine._memory.cached_tokens == 0
    assert not engine._memory._saved  # type: ignore[attr-defined]


def test_without_a_cache_nothing_is_kept(open_engine: Open) -> None:
    for changes in ({"cache_bytes": 0}, {"prefix_caching": False}):
        engine = open_engine(**changes)
        run(engine, ask("a", prompt(100)))
        assert engine.stats().cache_bytes == 0
