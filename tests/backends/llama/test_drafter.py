"""A small model that guesses for a large one: no token changes, and it is asked only where that pays."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from inferd.backends.facts import LoadPlan
from inferd.backends.kinds import read_facts
from inferd.backends.llama import loading
from inferd.backends.llama.binding import Context
from inferd.backends.llama.drafter import FEW, Drafter
from inferd.backends.llama.grammar import translate
from inferd.backends.llama.loading import load_generator as load
from inferd.backends.llama.lookup import Lookup
from inferd.backends.llama.pair import draft_plan
from inferd.backends.messages import Finished, FinishReason, SamplingParams, Submit
from inferd.tests.models.random_gguf import SHAPES, write_random_gguf

from .engines import Client, Heard, hear, plan, run, submit

if TYPE_CHECKING:
    from pathlib import Path

    from inferd.backends.llama.engine import LlamaEngine

pytestmark = pytest.mark.llama


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One layer with the same words that has never seen the large model."""
    shape = replace(SHAPES["tiny"], n_layer=1, n_ff=64, seed=7)
    return write_random_gguf(tmp_path_factory.mktemp("draft") / "stranger.gguf", shape)


def prompt(n: int, seed: int = 0) -> list[int]:
    return [random.Random(seed).randrange(500) for _ in range(n)]


def pair(large: Path, small: Path | None, **changes: Any) -> LlamaEngine:
    """Both, or the large one alone; with exact numerics where nothing else is said."""
    given: dict[str, Any] = {"numerics": "exact", "n_draft": 15, **changes}
    return load(plan(large, draft=read_facts(small) if small else None, **given), lambda _: None)


def drafter(engine: LlamaEngine) -> Drafter:
    its = engine._guesser._drafter
    assert its is not None
    return its


def always(engine: LlamaEngine) -> LlamaEngine:
    """Guesses cost nothing, so they are made whenever they can be."""
    engine._pace.flow_rows_ms = lambda n_rows: 1.0  # type: ignore[method-assign]
    drafter(engine).pace.flow_rows_ms = lambda n_rows: 0.0  # type: ignore[method-assign]
    drafter(engine).pace.predict_ms = lambda n_rows: 0.0  # type: ignore[method-assign]
    return engine


def priced(engine: LlamaEngine) -> LlamaEngine:
    """A row more costs a tenth of a call, and so does a guess."""
    engine._pace.flow_rows_ms = lambda n_rows: 9.0 + n_rows  # type: ignore[method-assign]
    drafter(engine).pace.flow_rows_ms = lambda n_rows: 1.0  # type: ignore[method-assign]
    drafter(engine).pace.predict_ms = lambda n_rows: 0.0  # type: ignore[method-assign]
    return engine


@pytest.fixture
def without_lookup(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiny models repeat themselves, and then nobody asks the small one."""
    monkeypatch.setattr(Lookup, "draft", lambda *_: [])


def rows_of(engine: LlamaEngine, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows of each call of the small model, as they come."""
    rows: list[int] = []
    context, real = drafter(engine)._context, Context.decode

    def noted(self: Context, unwanted: Any = None) -> bool:
        if self is context:
            rows.append(len(self.batch._rows[0]))
        return real(self, unwanted)

    monkeypatch.setattr(Context, "decode", noted)
    return rows


def told(heard: Heard) -> tuple[object, ...]:
    """All that a client sees of an answer."""
    deltas = [delta for delta in heard.events if hasattr(delta, "logprobs")]
    end = heard.end
    assert isinstance(end, Finished)
    logprobs = [[(it.token, it.top) for it in delta.logprobs] for delta in deltas if delta.logprobs]
    return heard.tokens, heard.text, logprobs, end.reason, end.completion_tokens, end.n_computed


REQUESTS: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0.0},
    "sampled": {"temperature": 0.8, "seed": 3},
    "logprobs": {"temperature": 0.0, "logprobs": 3},
    "penalties": {"temperature": 0.5, "repeat_penalty": 1.3, "presence_penalty": 0.5},
    "stop string": {"temperature": 0.0, "stop": ("q",)},
    "its own end": {"temperature": 1.5, "ignore_eos": False, "min_tokens": 5, "logit_bias": {511: 5.0}},
    "a form": {"temperature": 0.7, "grammar": translate("json_schema", '{"type":"array","items":{"type":"integer"}}')},
}


@pytest.mark.parametrize("same", [True, False], ids=["the same model", "a stranger"])
def test_whatever_it_guesses_the_answers_are_those_of_the_large_model_alone(
    tiny_model: Path, stranger: Path, same: bool
) -> None:
    asked = [
        submit(f"{what} {i}", prompt(40 + 30 * i, i), max_tokens=80, **params)
        for what, params in REQUESTS.items()
        for i in range(3)
    ]
    plain, guessing = pair(tiny_model, None, n_draft=0), always(pair(tiny_model, tiny_model if same else stranger))
    expected = {request.job: told(run(plain, request)[request.job]) for request in asked}
    heard = run(guessing, *asked)
    assert {job: told(it) for job, it in heard.items()} == expected
    ends = [it.end for it in heard.values()]
    assert sum(end.draft_n for end in ends) > 0
    assert guessing.stats().kv_cells_used == 0
    plain.close()
    guessing.close()


@pytest.mark.usefixtures("without_lookup")
@pytest.mark.parametrize("numerics", ["exact", "fast"])
def test_the_same_model_guesses_right_and_saves_most_calls(tiny_model: Path, numerics: str) -> None:
    engine = always(pair(tiny_model, tiny_model, numerics=numerics))
    end = run(engine, submit("a", prompt(100), max_tokens=200, temperature=0.0))["a"].end
    assert isinstance(end, Finished)
    assert end.completion_tokens == 200
    assert end.draft_n_accepted > 0.9 * end.draft_n
    assert engine.stats().steps < 60
    engine.close()


@pytest.mark.usefixtures("without_lookup")
def test_guesses_that_never_come_true_end_and_are_tried_again_now_and_then(tiny_model: Path, stranger: Path) -> None:
    engine = priced(pair(tiny_model, stranger, n_ctx=2048))
    for seed in range(3):
        engine.submit(submit(f"j{seed}", prompt(20, seed), max_tokens=1800, temperature=0.9, seed=seed))
        drafted: list[int] = []
        while engine.busy():
            engine.step()
            drafted += [s.n_drafted for s in engine._running]
        early, late = drafted[100], drafted[-1]
        assert early < (40 if seed == 0 else 20)  # what was learnt of one answer is known of the next
        assert 0 < late - early < 120  # of 1,700 tokens
    engine.close()


@pytest.mark.usefixtures("without_lookup")
def test_it_is_asked_again_when_its_guesses_begin_to_come_true(tiny_model: Path) -> None:
    engine = priced(pair(tiny_model, tiny_model, n_ctx=2048))
    drafter(engine)._odds.comes_true = 0.0
    end = run(engine, submit("a", prompt(20), max_tokens=1200, temperature=0.0))["a"].end
    assert end.draft_n_accepted > 300
    engine.close()


@pytest.mark.usefixtures("without_lookup")
def test_what_takes_longer_than_it_saves_is_not_asked(tiny_model: Path) -> None:
    engine = priced(pair(tiny_model, tiny_model))
    drafter(engine).pace.flow_rows_ms = lambda n_rows: 20.0  # type: ignore[method-assign]
    end = run(engine, submit("a", prompt(20), max_tokens=300, temperature=0.0))["a"].end
    assert end.draft_n < 30  # it was found out
    engine.close()


def test_what_was_said_before_comes_first_where_it_gains_as_much(tiny_model: Path) -> None:
    engine = priced(pair(tiny_model, tiny_model))
    loop = [1, 2, 3, 4] * 30
    run(engine, submit("a", loop, max_tokens=150, temperature=0.0, logit_bias={7: 100.0}))  # 7 for ever
    assert drafter(engine)._n_calls < 40
    engine.close()


# what its cells hold


@pytest.mark.usefixtures("without_lookup")
def test_it_catches_up_with_a_long_prompt_piece_by_piece(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = always(pair(tiny_model, tiny_model))
    drafter(engine).pace.chunk = lambda n_ubatch, budget_ms: 64  # type: ignore[method-assign]
    rows = rows_of(engine, monkeypatch)
    run(engine, submit("a", prompt(200), max_tokens=40, temperature=0.0))
    assert rows[:4] == [64, 64, 64, 12]  # the prompt and what was said meanwhile
    assert max(rows[4:]) <= FEW
    engine.close()


@pytest.mark.usefixtures("without_lookup")
def test_it_knows_what_other_slots_have_computed(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = always(pair(tiny_model, tiny_model, numerics="fast"))
    rows = rows_of(engine, monkeypatch)
    first = run(engine, submit("a", prompt(300), max_tokens=40, temperature=0.0))["a"]
    rows.clear()
    turn = [*prompt(300), *first.tokens, *prompt(9, seed=5)]
    for job in "bc":  # each gets another slot
        run(engine, submit(job, turn, max_tokens=40, temperature=0.0))
    assert max(rows) < 60
    engine.close()


@pytest.mark.usefixtures("without_lookup")
@pytest.mark.parametrize("n_slots", [1, 4])
def test_what_another_tenant_has_said_is_computed_again(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, n_slots: int
) -> None:
    engine = always(pair(tiny_model, tiny_model, n_slots=n_slots))
    rows = rows_of(engine, monkeypatch)
    most = []
    for salt in ("one", "one", "two", "one"):
        asked = submit("a", prompt(300), max_tokens=20, temperature=0.0)
        run(engine, msgspec.structs.replace(asked, cache_salt=salt))
        most.append(max(rows))
        rows.clear()
    assert most[0] == most[2] == 301
    assert most[1] <= FEW
    engine.close()


@pytest.mark.usefixtures("without_lookup")
def test_a_slot_knows_its_requests_apart_whatever_they_are_called(tiny_model: Path) -> None:
    engine = always(pair(tiny_model, tiny_model, n_slots=1))
    for seed in range(4):
        end = run(engine, submit("a", prompt(100, seed), max_tokens=60, temperature=0.0))["a"].end
        assert end.draft_n_accepted > 0.7 * end.draft_n
        assert drafter(engine)._tokens[0][:100] == prompt(100, seed)
    engine.close()


@pytest.mark.usefixtures("without_lookup")
def test_what_ended_makes_way_when_its_cells_are_wanted(tiny_model: Path) -> None:
    engine = always(pair(tiny_model, tiny_model, kv_cells=512))
    for i in range(6):
        end = run(engine, submit(f"j{i}", prompt(300, i), max_tokens=60, temperature=0.0))[f"j{i}"].end
        assert end.draft_n_accepted > 30
    engine.close()


@pytest.mark.usefixtures("without_lookup")
def test_with_too_few_cells_it_guesses_for_some(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def narrow(plan: LoadPlan) -> LoadPlan:
        its = draft_plan(plan)
        return LoadPlan(**{name: getattr(its, name) for name in its.__struct_fields__} | {"kv_cells": 256})

    monkeypatch.setattr(loading, "draft_plan", narrow)
    engine = always(pair(tiny_model, tiny_model))
    heard = run(engine, *(submit(f"j{i}", prompt(100, i), max_tokens=100, temperature=0.0) for i in range(4)))
    assert [len(it.tokens) for it in heard.values()] == [100] * 4
    drafted = sorted(it.end.draft_n_accepted for it in heard.values())
    assert drafted[0] < 50 < drafted[-1]
    longer = run(engine, submit("b", prompt(300), max_tokens=100, temperature=0.0))["b"]
    assert len(longer.tokens) == 100
    engine.close()


def test_tokens_that_only_the_large_one_has_do_no_harm(tiny_model: Path) -> None:
    plain, engine = pair(tiny_model, None), always(pair(tiny_model, tiny_model))
    its = drafter(engine)
    its._n_own = its._n_words = 300
    request = submit("a", prompt(100), max_tokens=100, temperature=0.8)
    assert run(engine, request)["a"].tokens == run(plain, request)["a"].tokens
    plain.close()
    engine.close()


# a request's life


@pytest.mark.parametrize("numerics", ["exact", "fast"])
@pytest.mark.parametrize("seed", range(2))
def test_random_traffic_with_parks_and_cancels(tiny_model: Path, stranger: Path, numerics: str, seed: int) -> None:
    """Little KV, so that requests are parked; every frame is checked, and with exact numerics every token."""
    draw = random.Random(seed)
    engine = always(pair(tiny_model, (tiny_model, stranger)[seed], numerics=numerics, kv_cells=768))
    client = Client(engine, draw)
    for _ in range(250):
        client.turn()
    for job in list(client.running.values()):
        engine.cancel(job.name, job.attempt)
    hear(engine, {})
    assert engine.stats().kv_cells_used == 0
    assert len(client.finished) > 10
    plain = pair(tiny_model, None)
    for job in client.finished if numerics == "exact" else ():
        alone = run(plain, Submit("x", 1, job.tokens[: job.n_prompt], job.n_prompt, job.params))["x"].tokens
        assert alone == job.tokens[job.n_prompt :]
    plain.close()
    engine.close()


def test_a_parked_request_goes_on_with_the_same_draws(tiny_model: Path) -> None:
    params = SamplingParams(max_tokens=60, temperature=0.7, seed=4, ignore_eos=True)
    plain, engine = pair(tiny_model, None), always(pair(tiny_model, tiny_model))
    whole = run(plain, Submit("a", 1, prompt(70), 70, params))["a"].tokens
    engine.submit(Submit("a", 1, prompt(70), 70, params))
    heard: dict[str, Heard] = {}
    while len(said := heard["a"].tokens if heard else []) < 20:
        hear(engine, heard, n_steps=1)
    engine.cancel("a", 1)
    hear(engine, heard)
    rest = run(engine, Submit("a", 2, [*prompt(70), *said], 70, params))["a"].tokens
    assert said + rest == whole
    plain.close()
    engine.close()


def test_at_the_end_of_the_context_it_is_length(tiny_model: Path) -> None:
    engine = always(pair(tiny_model, tiny_model, n_ctx=256, n_slots=1, kv_cells=256))
    heard = run(engine, submit("a", prompt(200), max_tokens=200, temperature=0.0))["a"]
    assert isinstance(heard.end, Finished)
    assert (heard.end.reason, len(heard.tokens)) == (FinishReason.LENGTH, 56)
    engine.close()


def test_a_sliding_window_and_a_split_cache_serve_too(sliding_model: Path, tiny_model: Path) -> None:
    for large, small, layout in ((sliding_model, sliding_model, "unified"), (tiny_model, tiny_model, "split")):
        engine = always(pair(large, small, numerics="fast", kv_layout=layout))
        heard = run(engine, *(submit(f"j{i}", prompt(150, i), max_tokens=60, temperature=0.0) for i in range(6)))
        assert [len(it.tokens) for it in heard.values()] == [60] * 6
        assert sum(it.end.draft_n_accepted for it in heard.values()) > 100
        engine.close()


def test_threads_change_for_both(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = pair(tiny_model, tiny_model, numerics="fast")
    set_to: list[int] = []
    monkeypatch.setattr(Context, "use_threads", lambda _, n_threads: set_to.append(n_threads))
    engine.use_threads(2)
    assert set_to == [2, 2]
    engine.close()
