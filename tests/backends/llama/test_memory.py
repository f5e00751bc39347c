"""What requests share of their KV cells, on a tiny random model."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from inferd.backends.llama.loading import load_generator as load
from inferd.backends.messages import Delta, Run

from .engines import Client, Heard, hear, plan, run, submit

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from inferd.backends.llama.engine import LlamaEngine
    from inferd.backends.messages import Submit

pytestmark = pytest.mark.llama


def tokens(n: int, seed: int = 0) -> list[int]:
    draw = random.Random(seed)
    return [draw.randrange(500) for _ in range(n)]


@pytest.fixture(scope="module")
def engine_of_all(tiny_model: Path) -> Iterator[LlamaEngine]:
    engine = load(plan(tiny_model, n_slots=8, n_ctx=1024), lambda _: None)
    yield engine
    engine.close()


@pytest.fixture
def engine(engine_of_all: LlamaEngine) -> Iterator[LlamaEngine]:
    """One that knows nothing yet."""
    yield engine_of_all
    assert engine_of_all.stats().kv_cells_used == 0
    forget(engine_of_all)


def forget(engine: LlamaEngine) -> None:
    while engine._memory.make_room(engine.ready.kv_cells):
        pass
    assert engine._memory.n_idle == 0


def first_logprob(heard: Heard) -> float:
    delta = next(event for event in heard.events if isinstance(event, Delta))
    assert delta.logprobs is not None
    return delta.logprobs[0].logprob


def salted(request: Submit, salt: str) -> Submit:
    return msgspec.structs.replace(request, cache_salt=salt)


def test_what_was_asked_before_is_not_computed_again(engine: LlamaEngine) -> None:
    prompt = tokens(300)
    cold = run(engine, submit("a", prompt, temperature=0.0, logprobs=0))["a"]
    n_before = engine.stats().prefill_tokens
    warm = run(engine, submit("b", prompt, temperature=0.0, logprobs=0))["b"]
    assert (cold.started.cached_tokens, warm.started.cached_tokens) == (0, 299)
    assert engine.stats().prefill_tokens == n_before + 1
    assert (cold.end.n_computed, warm.end.n_computed) == (307, 8)
    assert first_logprob(warm) == pytest.approx(first_logprob(cold), abs=0.03)


def test_the_next_turn_computes_only_what_was_said_since(engine: LlamaEngine) -> None:
    first = run(engine, submit("a", tokens(100), max_tokens=20))["a"]
    said = tokens(100) + first.tokens
    second = run(engine, submit("b", [*said, *tokens(10, seed=1)]))["b"]
    assert second.started.cached_tokens == len(said) - 1  # the last token that was drawn was never computed


@pytest.mark.parametrize("n_own", [1, 30])
def test_agents_that_come_together_compute_what_they_share_once(engine: LlamaEngine, n_own: int) -> None:
    shared = tokens(600)
    agents = [submit(f"a{i}", shared + tokens(n_own, seed=i + 1), logprobs=0, temperature=0.0) for i in range(8)]
    n_before, most = engine.stats().prefill_tokens, 0
    for agent in agents:
        engine.submit(agent)
    heard: dict[str, Heard] = {}
    while engine.busy():
        hear(engine, heard, n_steps=1)
        most = max(most, engine.stats().kv_cells_used)
    assert engine.stats().prefill_tokens - n_before <= 600 + 8 * n_own
    assert most <= 600 + 8 * (n_own + 8)
    assert sorted(h.started.cached_tokens for h in heard.values())[1:] == [600] * 7
    forget(engine)
    for agent in (agents[0], agents[-1]):
        alone = run(engine, agent)[agent.job]
        assert first_logprob(heard[agent.job]) == pytest.approx(first_logprob(alone), abs=0.03)
        forget(engine)


def test_when_the_one_who_computes_for_others_is_cancelled_the_next_one_does(engine: LlamaEngine) -> None:
    engine._pace.call_ms = {64: 64e6}  # so slow that a step takes the smallest chunk
    shared = tokens(383)
    for i in range(3):
        engine.submit(submit(f"a{i}", [*shared, i]))
    hear(engine, {}, n_steps=2)
    engine.cancel("a0", 1)
    n_before = engine.stats().prefill_tokens
    heard = hear(engine, {})
    assert heard["a0"].kinds[-1] == "Stopped"
    assert [heard[f"a{i}"].kinds[-1] for i in (1, 2)] == ["Finished"] * 2
    assert engine.stats().prefill_tokens - n_before == 383 - 128 + 2
    assert heard["a1"].started.cached_tokens == 128
    engine._pace.call_ms = {}


def test_an_urgent_request_is_not_held_up_by_the_rank_of_whom_it_waits_for(engine: LlamaEngine) -> None:
    engine._pace.call_ms = {64: 64e6}
    engine.submit(submit("low", [*tokens(400), 1], rank=0))
    engine.submit(submit("other", tokens(900, seed=5), rank=1))
    hear(engine, {}, n_steps=1)
    engine.submit(submit("urgent", [*tokens(400), 2], rank=2))
    order = [job for job, h in hear(engine, {}).items() if h.kinds]
    assert order.index("urgent") < order.index("other")
    engine._pace.call_ms = {}


def test_another_salt_shares_nothing(engine: LlamaEngine) -> None:
    prompt = tokens(200)
    together = run(engine, salted(submit("a", prompt), "one"), salted(submit("b", prompt), "two"))
    later = run(engine, salted(submit("c", prompt), "three"))
    assert [h.started.cached_tokens for h in (together["a"], together["b"], later["c"])] == [0, 0, 0]
    assert run(engine, salted(submit("d", prompt), "two"))["d"].started.cached_tokens == 199


def test_what_is_kept_makes_way(engine: LlamaEngine) -> None:
    for seed in range(12):
        assert run(engine, submit("a", tokens(900, seed)))["a"].kinds[-1] == "Finished"
        assert engine._memory.n_idle <= engine.ready.kv_cells
        engine._memory._tree.check_integrity()
    assert engine._memory.n_idle > 1000


def test_a_parked_request_goes_on_where_it_was(engine: LlamaEngine) -> None:
    engine.submit(submit("a", tokens(500), max_tokens=100))
    heard = hear(engine, {}, n_steps=30)
    engine.cancel("a", 1)
    done = hear(engine, heard)["a"].tokens
    again = run(engine, submit("a", tokens(500) + done, 500, max_tokens=100))["a"]
    assert again.started.cached_tokens == 500 + len(done) - 1
    assert len(again.tokens) == 100 - len(done)


@pytest.mark.parametrize(
    "changes", [{"kv_layout": "split"}, {"prefix_caching": False}, {"numerics": "exact"}, {"sliding": True}]
)
def test_where_cells_cannot_be_shared_nothing_is(
    tiny_model: Path, sliding_model: Path, changes: dict[str, object]
) -> None:
    path = sliding_model if changes.pop("sliding", False) else tiny_model
    engine = load(plan(path, **changes), lambda _: None)
    for _ in range(2):
        heard = run(engine, submit("a", tokens(200)), submit("b", tokens(200)))
        assert [h.started.cached_tokens for h in heard.values()] == [0, 0]
    assert engine._memory.n_idle == 0
    engine.close()


@pytest.fixture(scope="module", params=["fast", "exact"])
def storing(tiny_model: Path, request: pytest.FixtureRequest) -> Iterator[LlamaEngine]:
    """Idle cells go to host RAM at once."""
    engine = load(plan(tiny_model, numerics=request.param, cache_bytes=1 << 26, n_ctx=1024), lambda _: None)
    yield engine
    engine.close()


def test_what_was_asked_long_ago_comes_from_host_memory(storing: LlamaEngine) -> None:
    prompt = tokens(300, seed=40)
    cold = run(storing, submit("a", prompt, temperature=0.0, logprobs=0))["a"]
    assert storing._memory.n_idle == 0
    assert storing.stats().cache_bytes > 0
    for seed in range(8):
        run(storing, submit("b", tokens(900, seed=50 + seed)))
    n_before = storing.stats().prefill_tokens
    warm = run(storing, submit("c", prompt, temperature=0.0, logprobs=0))["c"]
    assert (cold.started.cached_tokens, warm.started.cached_tokens) == (0, 256)
    assert storing.stats().prefill_tokens - n_before == 300 - 256
    assert first_logprob(warm) == pytest.approx(first_logprob(cold), abs=0.03)


def test_what_is_stored_is_found_by_its_tenant_alone(storing: LlamaEngine) -> None:
    prompt = tokens(200, seed=41)
    heard = [run(storing, salted(submit("a", prompt), salt))["a"] for salt in ("one", "two", "one")]
    assert [h.started.cached_tokens for h in heard] == [0, 0, 192]


def test_a_store_that_is_small_keeps_within_its_limit(tiny_model: Path) -> None:
    engine = load(plan(tiny_model, cache_bytes=100_000), lambda _: None)
    for seed in range(6):
        run(engine, submit("a", tokens(300, seed)))
        assert 0 < engine.stats().cache_bytes <= 100_000
    engine.close()


@pytest.mark.parametrize("seed", range(4))
def test_exact_tokens_are_those_of_a_fresh_engine_wherever_the_beginning_comes_from(
    tiny_model: Path, seed: int
) -> None:
    draw = random.Random(seed)
    prompts = [tokens(draw.randrange(130, 400), seed=i) for i in range(3)]
    asked = []
    for i in range(14):
        prompt = draw.choice(prompts)
        own = tokens(draw.randrange(1, 150), seed=100 + i)
        params: dict[str, Any] = {"temperature": draw.choice([0.0, 1.0]), "seed": i, "max_tokens": 40}
        asked.append(submit(f"j{i}", [*prompt[: draw.randrange(1, len(prompt))], *own], **params))
    fresh = load(plan(tiny_model, numerics="exact", prefix_caching=False), lambda _: None)
    alone = {request.job: run(fresh, request)[request.job].tokens for request in asked}
    fresh.close()
    engine = load(plan(tiny_model, numerics="exact", cache_bytes=1 << 26, n_draft=7), lambda _: None)
    for _ in range(2):
        draw.shuffle(asked)
        assert {job: heard.tokens for job, heard in run(engine, *asked).items()} == alone
    again = [
        msgspec.structs.replace(request, tokens=request.tokens + alone[request.job][:n])
        for request in asked
        for n in [draw.randrange(40)]
    ]
    for request in again:
        n_done = len(request.tokens) - request.n_prompt
        assert run(engine, request)[request.job].tokens == alone[request.job][n_done:]
    assert engine._memory.cached_tokens > 2000
    engine.close()


@pytest.mark.parametrize("seed", range(3))
def test_random_traffic_over_few_prompts_keeps_the_books(tiny_model: Path, seed: int) -> None:
    engine = load(plan(tiny_model, kv_cells=1024, cache_bytes=(1 << 20) * (seed % 2)), lambda _: None)
    client = Client(engine, random.Random(seed), prompts=[tokens(300, seed=i) for i in range(3)])
    for _ in range(600):
        client.turn()
        engine._memory._tree.check_integrity()
        assert engine._memory.n_used(engine._running) + engine._memory.n_idle <= 1024
    assert len(client.finished) > 20
    engine.close()


class Daemon:
    """Keeps the files that a worker keeps, and gives them when it is asked and told to."""

    def __init__(self) -> None:
        self.files: dict[bytes, tuple[Run, int]] = {}
        self.asked: list[bytes] = []
        self.on_given: Any = None
        self.on_stored: Any = None

    def keep(self, run: Run, fd: int) -> None:
        self.files.setdefault(run.names[0], (run, os.dup(fd)))

    def drop(self, name: bytes, *, wanted: bool) -> None:
        """It keeps everything."""

    def fetch(self, names: list[bytes]) -> None:
        self.asked += names

    def tell(self) -> None:
        for kept, _ in self.files.values():
            self.on_stored(kept.names, kept.block_bytes)

    def answer(self) -> None:
        asked, self.asked = set(self.asked), []
        given = [(run, os.dup(fd)) for run, fd in self.files.values() if asked & set(run.names)]
        had = {name for run, _ in given for name in run.names}
        self.on_given(given, [name for name in asked if name not in had])

    def close(self) -> None:
        for _, fd in self.files.values():
            os.close(fd)


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    it = Daemon()
    yield it
    it.close()


def filled(path: Path, daemon: Daemon, *prompts: list[int], **changes: Any) -> None:
    """What an engine computes and leaves with the daemon."""
    engine = load(plan(path, n_ctx=1024, cache_bytes=1 << 26, **changes), lambda _: None, daemon)  # type: ignore[arg-type]
    for prompt in prompts:
        run(engine, submit("a", prompt))
    engine.close()


def test_what_is_on_its_way_is_waited_for_and_nobody_else_waits(tiny_model: Path, daemon: Daemon) -> None:
    prompt, other = tokens(300, seed=60), tokens(100, seed=61)
    filled(tiny_model, daemon, prompt)
    engine = load(plan(tiny_model, n_ctx=1024, cache_bytes=1 << 26), lambda _: None, daemon)  # type: ignore[arg-type]
    daemon.tell()
    engine.submit(submit("a", prompt))
    engine.submit(submit("b", other))
    heard = hear(engine, {})
    assert set(heard) == {"b"}
    assert not engine.busy()  # it would spin
    assert len(daemon.asked) == 300 // 64
    daemon.answer()
    assert engine.busy()
    assert hear(engine, {})["a"].started.cached_tokens == 256
    engine.close()


@pytest.mark.parametrize("what", ["missing", "cancel"])
def test_a_request_does_not_wait_for_what_does_not_come(tiny_model: Path, daemon: Daemon, what: str) -> None:
    prompt = tokens(300, seed=62)
    filled(tiny_model, daemon, prompt)
    engine = load(plan(tiny_model, n_ctx=1024, cache_bytes=1 << 26), lambda _: None, daemon)  # type: ignore[arg-type]
    daemon.tell()
    engine.submit(submit("a", prompt))
    assert hear(engine, {}) == {}
    if what == "missing":
        daemon.close()
        daemon.files.clear()
        daemon.answer()
        assert hear(engine, {})["a"].started.cached_tokens == 0
    else:
        engine.cancel("a", 1)
        assert hear(engine, {})["a"].kinds == ["Stopped"]
        daemon.answer()
    assert engine._memory._awaited == {}
    assert not engine.busy()
    engine.close()


def test_what_comes_and_does_not_fit_is_asked_for_once(tiny_model: Path, daemon: Daemon) -> None:
    shared, own = tokens(500, seed=63), tokens(480, seed=64)
    filled(tiny_model, daemon, shared, shared[:130] + own)
    n_bytes = next(run.block_bytes for run, _ in daemon.files.values()) * 9
    engine = load(plan(tiny_model, n_ctx=1024, cache_bytes=n_bytes), lambda _: None, daemon)  # type: ignore[arg-type]
    daemon.tell()
    engine.submit(submit("a", shared[:130] + own))
    assert hear(engine, {}) == {}
    daemon.answer()
    assert hear(engine, {})["a"].end.completion_tokens == 8  # type: ignore[union-attr]
    assert daemon.asked == []
    assert engine.stats().cache_bytes <= n_bytes
    engine.close()


def test_what_the_tree_has_is_not_asked_for(tiny_model: Path, daemon: Daemon) -> None:
    prompt = tokens(300, seed=65)
    filled(tiny_model, daemon, prompt)
    engine = load(plan(tiny_model, n_ctx=1024, cache_bytes=1 << 26), lambda _: None, daemon)  # type: ignore[arg-type]
    engine._memory._max_idle_cells = 1024  # as where cells are not host RAM
    run(engine, submit("a", prompt))
    daemon.tell()
    assert run(engine, submit("b", prompt))["b"].started.cached_tokens == 299
    assert daemon.asked == []
    engine.close()


def test_idle_cells_are_put_into_host_memory_at_the_end(tiny_model: Path, daemon: Daemon) -> None:
    engine = load(plan(tiny_model, n_ctx=1024, cache_bytes=1 << 26), lambda _: None, daemon)  # type: ignore[arg-type]
    engine._memory._max_idle_cells = 1024
    for seed in (66, 67):
        run(engine, submit("a", tokens(200, seed)))
    assert daemon.files == {}
    engine.close()
    assert sorted(len(run.names) for run, _ in daemon.files.values()) == [3, 3]
