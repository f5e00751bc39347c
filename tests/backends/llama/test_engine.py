"""The engine on a tiny random model: what it promises in ../engine.py."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from inferd.backends.engine import LoadError
from inferd.backends.llama.binding import Context
from inferd.backends.llama.loading import load_generator as load
from inferd.backends.messages import Delta, Finished, FinishReason, Stopped, Submit

from .engines import Client, Heard, hear, plan, run, submit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from inferd.backends.llama.engine import LlamaEngine

pytestmark = pytest.mark.llama


def prompt(n_tokens: int, seed: int = 0) -> list[int]:
    return [random.Random(seed).randrange(500) for _ in range(n_tokens)]


@pytest.fixture(scope="module")
def fast(tiny_model: Path) -> Iterator[LlamaEngine]:
    engine = load(plan(tiny_model), lambda _: None)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def exact(tiny_model: Path) -> Iterator[LlamaEngine]:
    engine = load(plan(tiny_model, numerics="exact"), lambda _: None)
    yield engine
    engine.close()


@pytest.fixture(autouse=True)
def idle_before_and_after(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    for name in {"fast", "exact"} & set(request.fixturenames):
        engine = request.getfixturevalue(name)
        assert not engine.busy()
        assert engine.step() == []
        assert (engine.stats().running, engine.stats().kv_cells_used) == (0, 0)
        while engine._memory.make_room(engine.ready.kv_cells):
            pass  # nothing is known of what the next test asks


def test_a_request_starts_runs_and_finishes(fast: LlamaEngine) -> None:
    heard = run(fast, submit("a", prompt(20), max_tokens=3))["a"]
    assert heard.kinds == ["Started", "Delta", "Delta", "Delta", "Finished"]
    assert (heard.started.prompt_tokens, heard.started.cached_tokens) == (20, 0)
    assert [e.index for e in heard.events if isinstance(e, Delta)] == [0, 1, 2]
    assert isinstance(heard.end, Finished)
    assert (heard.end.reason, heard.end.completion_tokens) == (FinishReason.LENGTH, 3)
    assert heard.end.prefill_ms > 0
    assert heard.end.decode_ms > 0


def test_text_is_the_bytes_of_the_tokens(fast: LlamaEngine) -> None:
    heard = run(fast, submit("a", prompt(5), max_tokens=60, temperature=2.0))["a"]
    raw = b"".join(fast._vocab.piece(token) for token in heard.tokens)
    assert heard.text == raw.decode(errors="replace")


def test_more_requests_than_slots_all_finish(fast: LlamaEngine) -> None:
    heard = run(fast, *(submit(f"j{i}", prompt(30 + 40 * i, i), max_tokens=5 + i) for i in range(9)))
    assert [len(heard[f"j{i}"].tokens) for i in range(9)] == [5 + i for i in range(9)]


def test_greedy_side_by_side_is_greedy_alone(exact: LlamaEngine) -> None:
    asked = [submit(f"j{i}", prompt(10 + 30 * i, i), temperature=0.0, max_tokens=20) for i in range(4)]
    together = {job: heard.tokens for job, heard in run(exact, *asked).items()}
    assert together == {request.job: run(exact, request)[request.job].tokens for request in asked}


@pytest.mark.parametrize("n_prompt", [1, 40, 64, 150, 256])
def test_exact_tokens_depend_on_nothing_else(exact: LlamaEngine, n_prompt: int) -> None:
    target = submit("t", prompt(n_prompt, 3), temperature=1.0, seed=n_prompt, max_tokens=60)
    alone = run(exact, target)["t"].tokens
    for seed in range(3):
        draw = random.Random(seed)
        crowd = [
            submit(f"{seed}-{i}", prompt(draw.randrange(1, 200), i), temperature=1.0, max_tokens=draw.randrange(1, 40))
            for i in range(12)
        ]
        n_done = draw.randrange(60) if seed else 0
        again = submit("t", target.tokens + alone[:n_done], n_prompt, temperature=1.0, seed=n_prompt, max_tokens=60)
        place = draw.randrange(len(crowd))
        assert run(exact, *crowd[:place], again, *crowd[place:])["t"].tokens == alone[n_done:]


def test_a_replay_goes_on_in_the_middle(exact: LlamaEngine) -> None:
    params: dict[str, Any] = {
        "temperature": 1.5,
        "seed": 3,
        "max_tokens": 40,
        "repeat_penalty": 1.3,
        "frequency_penalty": 0.2,
    }
    whole = run(exact, submit("a", prompt(70), **params))["a"]
    for n_done in (1, 17, 39):
        deltas = [e for e in whole.events if isinstance(e, Delta)][:n_done]
        sent = "".join(e.text for e in deltas)
        tokens = prompt(70) + whole.tokens[:n_done]
        rest = run(exact, submit("a", tokens, 70, sent_bytes=len(sent.encode()), **params))["a"]
        assert rest.tokens == whole.tokens[n_done:]
        assert sent + rest.text == whole.text
        assert [e.index for e in rest.events if isinstance(e, Delta)] == list(range(n_done, 40))
        assert isinstance(rest.end, Finished)
        assert rest.end.completion_tokens == 40


def test_a_replay_that_was_complete_finishes_at_once(fast: LlamaEngine) -> None:
    heard = run(fast, submit("a", prompt(12), 4, max_tokens=8))["a"]
    assert heard.kinds == ["Started", "Finished"]
    assert isinstance(heard.end, Finished)
    assert heard.end.completion_tokens == 8


def test_a_stop_string_ends_the_text_before_it(fast: LlamaEngine) -> None:
    whole = run(fast, submit("a", prompt(9), temperature=0.0, max_tokens=40))["a"]
    stop = whole.text[10:14]
    heard = run(fast, submit("a", prompt(9), temperature=0.0, max_tokens=40, stop=(stop,)))["a"]
    assert heard.text == whole.text[: whole.text.index(stop)]
    assert isinstance(heard.end, Finished)
    assert heard.end.reason is FinishReason.STOP
    assert heard.end.completion_tokens == len(heard.tokens)


def test_an_end_token_is_neither_counted_nor_shown(fast: LlamaEngine) -> None:
    (eos,) = {fast._vocab.eos}
    assert eos is not None
    heard = run(fast, submit("a", prompt(9), ignore_eos=False, logit_bias={eos: 100.0}, min_tokens=2))["a"]
    assert isinstance(heard.end, Finished)
    assert (heard.end.reason, heard.end.completion_tokens, len(heard.tokens)) == (FinishReason.STOP, 2, 2)
    assert eos not in heard.tokens


def test_the_context_is_a_limit(fast: LlamaEngine) -> None:
    heard = run(fast, submit("a", prompt(500), max_tokens=100))["a"]
    assert isinstance(heard.end, Finished)
    assert (heard.end.reason, len(heard.tokens)) == (FinishReason.LENGTH, 12)


@pytest.mark.parametrize(
    ("tokens", "n_prompt", "words"),
    [
        ([], 0, "no tokens"),
        ([1] * 512, 512, "the prompt has 512 tokens and leaves no room in the context of 512"),
        ([1, 512], 2, "token 512 is not one of the model's 512 tokens"),
        ([-1], 1, "token -1"),
    ],
)
def test_what_can_never_run_is_an_error(fast: LlamaEngine, tokens: list[int], n_prompt: int, words: str) -> None:
    heard = run(fast, submit("a", tokens, n_prompt))["a"]
    assert isinstance(heard.end, Finished)
    assert heard.end.reason is FinishReason.ERROR
    assert words in heard.end.error


def test_logprobs_are_the_models_own(fast: LlamaEngine) -> None:
    heard = run(fast, submit("a", prompt(9), temperature=0.0, logprobs=3, max_tokens=4, logit_bias={7: 99.0}))["a"]
    for event in heard.events:
        if isinstance(event, Delta):
            assert event.logprobs is not None
            (chosen,) = event.logprobs
            assert chosen.token == event.tokens[0] == 7
            assert len(chosen.top) == 3
            assert [entry[1] for entry in chosen.top] == sorted((entry[1] for entry in chosen.top), reverse=True)
            assert chosen.logprob <= chosen.top[0][1] < 0


def test_invalid_numbers_fail_one_request_only(fast: LlamaEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    real = fast._context.logits

    def broken() -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        rows = real()
        rows[0, 3] = np.nan
        return rows

    monkeypatch.setattr(fast._context, "logits", broken)
    heard = run(fast, submit("a", prompt(9)), submit("b", prompt(9)))
    end = heard["a"].end
    assert isinstance(end, Finished)
    assert (end.reason, end.error) == (FinishReason.ERROR, "the model produced invalid numbers")
    assert heard["b"].end.job == "b"


def test_the_highest_rank_is_prefilled_first(fast: LlamaEngine) -> None:
    heard = run(fast, *(submit(f"r{rank}", prompt(480, rank), rank=rank, max_tokens=1) for rank in (1, 3, 2)))
    assert list(heard) == ["r3", "r2", "r1"]


def test_cancel_in_the_middle_of_a_prompt_frees_at_once(fast: LlamaEngine) -> None:
    fast._pace.call_ms = {64: 64e6}  # so slow that a step takes the smallest chunk
    fast.submit(submit("a", prompt(384)))
    heard = hear(fast, {}, n_steps=2)
    assert fast.stats().kv_cells_used == 128
    fast.cancel("a", 1)
    assert fast.stats().kv_cells_used == 0
    assert fast.step() == [Stopped("a", 1, 0, n_computed=128)]
    assert heard["a"].kinds == ["Started"]
    fast._pace.call_ms = {}


@pytest.mark.parametrize("numerics", ["fast", "exact"])
def test_a_cancel_breaks_a_long_computation_off(tiny_model: Path, numerics: str) -> None:
    engine = load(plan(tiny_model, numerics=numerics), lambda _: None)
    alone = run(engine, submit("b", prompt(200, 1)))["b"]
    engine._pace.call_ms = {64: 64e3}  # so slow that every call of a prompt is long
    engine.submit(submit("a", prompt(200)))
    engine.submit(submit("b", prompt(200, 1)))
    n_asked = 0

    def listen() -> bool:
        nonlocal n_asked
        n_asked += 1
        if n_asked == 1:
            engine.cancel("a", 1)
        return False

    heard: dict[str, Heard] = {}
    for event in engine.step(listen):
        heard.setdefault(event.job, Heard()).events.append(event)
    assert heard["a"].events == [Stopped("a", 1, 0)]
    assert hear(engine, heard)["b"].tokens == alone.tokens
    assert engine.stats().kv_cells_used == 0
    engine.close()


def test_a_cancel_of_somebody_else_interrupts_nothing(fast: LlamaEngine) -> None:
    fast._pace.call_ms = {64: 64e3}
    for job in ("a", "b"):
        fast.submit(submit(job, prompt(384)))

    def listen() -> bool:
        fast.cancel("b", 1)
        return False

    events = fast.step(listen)
    fast._pace.call_ms = {}
    assert [type(event).__name__ for event in events] == ["Started", "Stopped"]
    assert fast.stats().kv_cells_used == 64
    assert isinstance(hear(fast, {})["a"].end, Finished)


def test_a_cancel_is_heard_after_a_long_call_without_room(tiny_model: Path) -> None:
    engine = load(plan(tiny_model, n_ctx=128, n_slots=1, kv_cells=128), lambda _: None)
    engine._pace.call_ms = {64: 64e3}
    real, no_room = engine._context.decode, [True]

    def decode(unwanted: Callable[[], bool] | None = None) -> bool:
        return not no_room.pop() if no_room else real(unwanted)

    engine._context.decode = decode  # type: ignore[method-assign]
    engine.submit(submit("a", prompt(100)))
    engine.submit(submit("b", prompt(100, 1)))
    assert [type(event).__name__ for event in engine.step(lambda: False)] == ["Started", "Finished"]
    engine.cancel("b", 1)
    assert engine.step() == [Stopped("b", 1, 0)]
    engine.close()


def test_the_end_of_the_worker_does_not_wait_for_a_prompt(fast: LlamaEngine) -> None:
    fast._pace.call_ms = {64: 64e3}
    fast.submit(submit("a", prompt(384)))
    assert fast.step(lambda: True) == []
    assert fast.stats().kv_cells_used == 0
    fast._pace.call_ms = {}
    assert isinstance(hear(fast, {})["a"].end, Finished)


def test_cancel_counts_the_tokens_of_all_attempts(fast: LlamaEngine) -> None:
    fast.submit(submit("a", prompt(12), 4, max_tokens=100))
    n_new = sum(isinstance(event, Delta) for _ in range(3) for event in fast.step())
    fast.cancel("a", 1)
    assert fast.step() == [Stopped("a", 1, 8 + n_new, n_computed=12 + n_new - 1)]


def test_cancel_of_what_waits_or_is_unknown(fast: LlamaEngine) -> None:
    for i in range(5):
        fast.submit(submit(f"j{i}", prompt(9)))
    fast.step()
    fast.cancel("j4", 1)
    fast.cancel("j0", 2)  # another attempt
    fast.cancel("nobody", 1)
    heard = hear(fast, {})
    assert heard["j4"].events == [Stopped("j4", 1, 0)]
    assert all(isinstance(heard[f"j{i}"].end, Finished) for i in range(4))


@pytest.mark.parametrize("numerics", ["fast", "exact"])
def test_short_of_cells_the_lowest_rank_is_parked_and_nobody_fails(tiny_model: Path, numerics: str) -> None:
    engine = load(plan(tiny_model, kv_cells=512, numerics=numerics), lambda _: None)
    ranks = {"high": 9, "low": 1, "middle": 5}
    asked = {job: submit(job, prompt(120, rank), max_tokens=200, rank=rank) for job, rank in ranks.items()}
    heard = run(engine, *asked.values())
    parked = heard["low"].end
    assert isinstance(parked, Stopped)
    assert parked.parked
    assert parked.n_tokens == len(heard["low"].tokens)
    again = run(engine, submit("low", asked["low"].tokens + heard["low"].tokens, 120, max_tokens=200))["low"]
    assert len(heard["low"].tokens) + len(again.tokens) == 200
    for job in ("high", "middle"):
        end = heard[job].end
        assert isinstance(end, Finished | Stopped)
        assert len(heard[job].tokens) == 200 or isinstance(end, Stopped)
    assert len(heard["high"].tokens) == 200
    engine.close()


@pytest.mark.parametrize(("numerics", "kv_cells"), [("fast", 768), ("exact", 512), ("exact", 1024)])
def test_through_parks_and_cancels_nothing_is_lost_repeated_or_stuck(
    tiny_model: Path, numerics: str, kv_cells: int
) -> None:
    engine = load(plan(tiny_model, numerics=numerics, kv_cells=kv_cells), lambda _: None)
    client = Client(engine, random.Random(kv_cells))
    for _ in range(700):
        client.turn()
    hear(engine, {})
    assert engine.stats().kv_cells_used == 0
    assert len(client.finished) > 15
    for job in client.finished:
        raw = b"".join(engine._vocab.piece(token) for token in job.tokens[job.n_prompt :])
        assert job.text == raw.decode(errors="replace")
        if numerics == "exact":
            alone = run(engine, Submit("x", 1, job.tokens[: job.n_prompt], job.n_prompt, job.params))["x"].tokens
            assert alone[: job.n_completion] == job.tokens[job.n_prompt :]
    engine.close()


def test_alone_and_short_of_cells_is_length(tiny_model: Path) -> None:
    engine = load(plan(tiny_model, kv_cells=256, n_ctx=512), lambda _: None)
    assert engine.ready.n_ctx == 256
    heard = run(engine, submit("a", prompt(200), max_tokens=400))["a"]
    assert isinstance(heard.end, Finished)
    assert (heard.end.reason, len(heard.tokens)) == (FinishReason.LENGTH, 56)
    engine.close()


def test_a_look_ahead_does_not_push_out_what_runs(tiny_model: Path) -> None:
    engine = load(plan(tiny_model, kv_cells=512), lambda _: None)
    asked = submit("a", prompt(300), max_tokens=50, rank=0), submit("b", prompt(300), max_tokens=5, rank=9)
    heard = run(engine, *asked)
    assert [type(heard[job].end) for job in "ab"] == [Finished, Finished]
    engine.close()


def test_a_split_cache_serves_too(tiny_model: Path) -> None:
    engine = load(plan(tiny_model, kv_layout="split"), lambda _: None)
    assert engine.ready.n_ctx == 512
    heard = run(engine, *(submit(f"j{i}", prompt(100 + i, i), max_tokens=20) for i in range(6)))
    assert all(len(h.tokens) == 20 for h in heard.values())
    engine.close()


def test_a_sliding_window_serves_too_but_not_exactly(sliding_model: Path) -> None:
    engine = load(plan(sliding_model), lambda _: None)
    heard = run(engine, *(submit(f"j{i}", prompt(150, i), max_tokens=20) for i in range(4)))
    assert all(len(h.tokens) == 20 for h in heard.values())
    engine.close()
    with pytest.raises(LoadError, match="sliding window") as error:
        load(plan(sliding_model, numerics="exact"), lambda _: None)
    assert error.value.code == "unsupported"


@pytest.mark.parametrize("kv_type", ["f32", "f16", "bf16"])
def test_kv_types_serve(tiny_model: Path, kv_type: str) -> None:
    engine = load(plan(tiny_model, kv_type=kv_type), lambda _: None)
    assert len(run(engine, submit("a", prompt(9)))["a"].tokens) == 8
    engine.close()


@pytest.mark.parametrize("numerics", ["fast", "exact"])
def test_threads_may_change_between_steps_but_not_with_exact_numerics(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, numerics: str
) -> None:
    set_to: list[int] = []
    real = Context.use_threads

    def noted(context: Context, n_threads: int) -> None:
        set_to.append(n_threads)
        real(context, n_threads)

    monkeypatch.setattr(Context, "use_threads", noted)
    engine = load(plan(tiny_model, numerics=numerics, n_threads=2), lambda _: None)
    engine.submit(submit("a", prompt(70)))
    engine.step()
    engine.use_threads(1)
    end = run(engine)["a"].end
    assert isinstance(end, Finished)
    assert end.completion_tokens == 8
    assert set_to == ([2, 1] if numerics == "fast" else [2])
    engine.close()


@pytest.mark.parametrize("seed", range(3))
def test_guesses_change_no_token(tiny_model: Path, seed: int) -> None:
    """Many requests that repeat themselves, parked and cancelled at random; all guesses are computed."""
    draw = random.Random(seed)
    loop = prompt(20, seed) * 6
    asked = [
        submit(f"j{i}", loop[: draw.randrange(30, 120)], temperature=draw.choice([0.0, 0.3]), seed=i, max_tokens=60)
        for i in range(40)
    ]
    plain = load(plan(tiny_model, numerics="exact"), lambda _: None)
    alone = {request.job: run(plain, request)[request.job].tokens for request in asked}
    plain.close()
    engine = load(plan(tiny_model, numerics="exact", n_draft=15), lambda _: None)
    engine._pace.flow_rows_ms = lambda n_rows: 1.0  # type: ignore[method-assign]
    heard = run(engine, *asked)
    assert {job: h.tokens for job, h in heard.items()} == alone
    ends = [h.end for h in heard.values()]
    assert sum(end.draft_n for end in ends) > sum(end.draft_n_accepted for end in ends) > 0
    assert all(end.n_computed == len(alone[end.job]) + asked[int(end.job[1:])].n_prompt - 1 for end in ends)
    assert engine.stats().kv_cells_used == 0
    engine.close()


def test_guesses_make_way_when_kv_is_short(tiny_model: Path) -> None:
    engine = load(plan(tiny_model, n_ctx=256, n_slots=2, kv_cells=256, n_draft=15), lambda _: None)
    engine._pace.flow_rows_ms = lambda n_rows: 1.0  # type: ignore[method-assign]
    heard = run(engine, submit("a", [1, 2, 3, 4] * 60, max_tokens=200, temperature=0.0))["a"]
    assert isinstance(heard.end, Finished)
    assert (heard.end.reason, len(heard.tokens)) == (FinishReason.LENGTH, 16)
    engine.close()


def test_no_guess_is_computed_beside_a_prompt_or_beyond_the_end(fast: LlamaEngine) -> None:
    heard = run(fast, submit("a", [1, 2, 3, 4] * 20, max_tokens=5))["a"]
    assert heard.end.draft_n == 0  # this engine was told to compute none
