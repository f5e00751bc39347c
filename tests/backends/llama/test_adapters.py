"""LoRA adapters in a real engine: each request is answered as if its adapter were alone in the world."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from inferd.backends.engine import LoadError
from inferd.backends.facts import Adapter
from inferd.backends.llama.loading import load_generator as load
from inferd.backends.messages import FinishReason, Stopped, Submit
from inferd.tests.models.random_gguf import SHAPES, write_random_gguf
from inferd.tests.models.random_lora import write_random_lora

from .by_hand import greedy
from .engines import Heard, hear, plan, run, submit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from inferd.backends.llama.engine import LlamaEngine

    Open = Callable[..., LlamaEngine]

pytestmark = pytest.mark.llama
TINY = SHAPES["tiny"]
NAMES = ("", "one", "two")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model for each numerics, and the adapters `one` and `two`.

    Only quantized weights are exact in any company, and only floats are alike in one call and in several.
    """
    path = tmp_path_factory.mktemp("adapters")
    write_random_gguf(path / "fast.gguf", TINY, "f32")
    write_random_gguf(path / "exact.gguf", TINY, "q8_0")
    for seed, name in enumerate(NAMES[1:]):
        write_random_lora(path / f"{name}.gguf", TINY, seed=seed)
    return path


@pytest.fixture
def open_engine(folder: Path) -> Iterator[Open]:
    opened: list[LlamaEngine] = []

    def open_one(*names: str, **changes: Any) -> LlamaEngine:
        adapters = tuple(Adapter(name, str(folder / f"{name}.gguf"), 1, "v1") for name in names or NAMES[1:])
        model = folder / f"{changes.get('numerics', 'fast')}.gguf"
        opened.append(load(plan(model, adapters=adapters, **changes), lambda _: None))
        return opened[-1]

    yield open_one
    for engine in opened:
        engine.close()


def ask(job: str, tokens: list[int], lora: str = "", **params: Any) -> Submit:
    given = {"temperature": 0.0, "max_tokens": 16, **params}
    return msgspec.structs.replace(submit(job, tokens, **given), lora=lora, cache_salt="t")


def prompt(n: int, seed: int = 0) -> list[int]:
    draw = random.Random(seed)
    return [draw.randrange(500) for _ in range(n)]


def tokens(heard: dict[str, Heard]) -> dict[str, list[int]]:
    return {job: it.tokens for job, it in heard.items()}


def test_each_request_gets_the_answer_of_its_adapter(folder: Path, open_engine: Open) -> None:
    """The same prompt, long enough to be shared, with each adapter and with none, side by side."""
    expected = {
        name: greedy(folder / "fast.gguf", prompt(130), 16, folder / f"{name}.gguf" if name else None) for name in NAMES
    }
    assert len({tuple(said) for said in expected.values()}) == 3, "the adapters make a difference"
    engine = open_engine()
    asked = [ask(f"{i}{name}", prompt(130), name) for i, name in enumerate(NAMES)]
    assert tokens(run(engine, *asked)) == {one.job: expected[one.lora] for one in asked}
    again = [ask(f"{i}{name}", prompt(130), name) for i, name in enumerate(reversed(NAMES))]
    assert tokens(run(engine, *again)) == {one.job: expected[one.lora] for one in again}, "and what was kept is its own"


@pytest.mark.parametrize("n_prompt", [1, 40, 64, 150])
def test_exact_tokens_do_not_depend_on_adapters_beside(open_engine: Open, n_prompt: int) -> None:
    engine = open_engine(numerics="exact")
    for name in NAMES:
        target = ask("t", prompt(n_prompt, 3), name, temperature=1.0, seed=n_prompt, max_tokens=40)
        alone = run(engine, target)["t"].tokens
        for seed in range(3):
            draw = random.Random(seed)
            crowd = [
                ask(f"{i}", prompt(draw.randrange(1, 200), i), draw.choice(NAMES), max_tokens=draw.randrange(1, 30))
                for i in range(3)
            ]
            place = draw.randrange(4)
            assert run(engine, *crowd[:place], target, *crowd[place:])["t"].tokens == alone


def test_without_an_adapter_a_model_with_some_is_the_plain_one(folder: Path, open_engine: Open) -> None:
    """To the bit, with numerics that promise it."""
    asked = [ask(f"{i}", prompt(100, i), temperature=1.3, seed=i, max_tokens=40, logprobs=0) for i in range(3)]
    plain = load(plan(folder / "exact.gguf", numerics="exact"), lambda _: None)
    expected = run(plain, *asked)
    plain.close()
    beside = [ask("one", prompt(90, 7), "one"), ask("two", prompt(90, 8), "two")]
    heard = run(open_engine(numerics="exact", n_slots=5), beside[0], *asked, beside[1])
    for one in asked:
        said, told = ([event for event in it[one.job].events[1:-1]] for it in (heard, expected))
        assert said == told


def test_prefixes_are_shared_by_requests_of_one_adapter_alone(open_engine: Open) -> None:
    engine = open_engine()
    first = run(engine, ask("a", prompt(200), "one"))["a"]
    assert first.started.cached_tokens == 0
    assert run(engine, ask("b", prompt(200), "two"))["b"].started.cached_tokens == 0
    assert run(engine, ask("c", prompt(200)))["c"].started.cached_tokens == 0
    again = run(engine, ask("d", prompt(200), "one"))["d"]
    assert again.started.cached_tokens == 199
    assert again.tokens == first.tokens


@pytest.mark.parametrize("numerics", ["fast", "exact"])
def test_also_out_of_the_store(open_engine: Open, numerics: str) -> None:
    engine = open_engine(numerics=numerics, cache_bytes=1 << 24, kv_cells=512)
    first = run(engine, ask("a", prompt(200), "one"))["a"].tokens
    for i in range(3):
        run(engine, ask("x", prompt(300, 9 + i)))
    other = run(engine, ask("b", prompt(200), "two"))["b"]
    assert other.started.cached_tokens == 0
    again = run(engine, ask("c", prompt(200), "one"))["c"]
    assert again.started.cached_tokens >= 128
    assert again.tokens == first
    assert other.tokens != first


def test_a_file_that_was_replaced_shares_nothing_with_what_was_there(folder: Path, open_engine: Open) -> None:
    adapters = open_engine()._adapters
    asked = ask("a", [1], "one")
    adapters._versions["one"] = "v2"
    assert len({asked.cache_salt, adapters.own(asked).cache_salt, open_engine()._adapters.own(asked).cache_salt}) == 3
    assert adapters.own(ask("a", [1])).cache_salt == "t"


def test_prompts_of_adapters_take_turns_and_answers_flow_in_every_step(open_engine: Open) -> None:
    engine = open_engine(n_ubatch=64, n_ctx=1024, kv_cells=4096)
    engine.submit(ask("flows", prompt(5), "two", max_tokens=40))
    hear(engine, {}, 6)
    long = {name: ask(name or "none", prompt(400, i), name, max_tokens=2) for i, name in enumerate(NAMES[:2])}
    for one in long.values():
        engine.submit(one)
    n_flowed = 0
    computed: dict[str, list[int]] = {"none": [], "one": []}
    for _ in range(8):
        n_flowed += sum(event.job == "flows" for event in engine.step())
        for s in engine._running:
            if s.submit.job in computed:
                computed[s.submit.job].append(s.n_computed)
    assert n_flowed == 8
    for counts in computed.values():
        assert counts[-1] >= 200, "neither waits for the end of the other"
    hear(engine, {})


def test_higher_ranks_go_first_whatever_their_adapter(open_engine: Open) -> None:
    engine = open_engine(n_ubatch=64, n_ctx=1024, kv_cells=4096)
    engine.submit(msgspec.structs.replace(ask("low", prompt(400, 1), "one", max_tokens=1), rank=0))
    engine.submit(msgspec.structs.replace(ask("high", prompt(400, 2), "two", max_tokens=1), rank=2))
    heard = run(engine)
    order = [job for job, it in heard.items() if it.end]
    assert list(heard) == ["high", "low"] == order


def test_a_parked_request_goes_on_with_its_adapter(open_engine: Open) -> None:
    engine = open_engine(numerics="exact")
    target = ask("a", prompt(70), "one", max_tokens=30)
    whole = run(engine, target)["a"].tokens
    assert whole != run(engine, ask("a", prompt(70), max_tokens=30))["a"].tokens
    engine.submit(target)
    heard = hear(engine, {}, 10)
    engine.cancel("a", 1)
    hear(engine, heard)
    assert isinstance(heard["a"].end, Stopped)
    so_far = heard["a"].tokens
    assert 0 < len(so_far) < 30
    rest = msgspec.structs.replace(target, attempt=2, tokens=target.tokens + so_far)
    assert so_far + run(engine, rest, ask("b", prompt(70)))["a"].tokens == whole


def test_an_adapter_nobody_knows_ends_the_request(open_engine: Open) -> None:
    end = run(open_engine(), ask("a", [1], "three"))["a"].end
    assert end == msgspec.structs.replace(end, reason=FinishReason.ERROR, error="the model has no adapter 'three'")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda path: path.write_bytes(b"GGUF"), "adapter 'one'"),
        (lambda path: write_random_lora(path, SHAPES["tiny-qwen2"]), "arch mismatch"),
        (lambda path: write_random_lora(path, replace(TINY, n_embd=128)), "incorrect shape"),
        (lambda path: path.unlink(), "failed to open 'one.gguf'"),
    ],
)
def test_a_bad_adapter_is_refused_at_load(
    folder: Path, tmp_path: Path, change: Callable[[Path], object], said: str
) -> None:
    path = write_random_lora(tmp_path / "one.gguf", TINY)
    change(path)
    with pytest.raises(LoadError) as error:
        load(plan(folder / "fast.gguf", adapters=(Adapter("one", str(path), 1, ""),)), lambda _: None)
    assert said in str(error.value)
    assert str(tmp_path) not in str(error.value)
