"""The engine without weights: the same words every time, at a set rate, with the faults it was ordered to have."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from inferd.backends import fake
from inferd.backends.facts import LoadPlan
from inferd.backends.fake import N_VOCAB, FakeEngine, token_bytes
from inferd.backends.messages import Delta, Finished, FinishReason, SamplingParams, Started, Stopped, Submit

if TYPE_CHECKING:
    from inferd.backends.messages import Event

PLAN = LoadPlan(backend="fake", path="", n_ctx=256, n_slots=2, kv_cells=512, n_threads=1)


def submit(prompt: str = "fake:tokens=5", job: str = "a", done: tuple[int, ...] = (), **params: Any) -> Submit:
    tokens = list(prompt.encode())
    sampling = SamplingParams(**{"max_tokens": 200, **params})
    sent_bytes = sum(len(token_bytes(token)) for token in done)
    return Submit(job, 1, tokens + list(done), len(tokens), sampling, sent_bytes=sent_bytes)


def run(*submits: Submit, plan: LoadPlan = PLAN) -> list[Event]:
    engine = FakeEngine(plan)
    for one in submits:
        engine.submit(one)
    events = []
    while engine.busy():
        events += engine.step()
    return events


def tokens(events: list[Event], job: str = "a") -> list[int]:
    return [token for event in events if isinstance(event, Delta) and event.job == job for token in event.tokens]


def text(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Delta | Finished))


def end(events: list[Event]) -> Finished:
    assert isinstance(events[-1], Finished)
    return events[-1]


def test_an_answer_starts_goes_on_token_by_token_and_ends() -> None:
    events = run(submit("fake:tokens=3"))
    assert [type(event) for event in events] == [Started, Delta, Delta, Delta, Finished]
    assert [event.index for event in events if isinstance(event, Delta)] == [0, 1, 2]
    assert (end(events).reason, end(events).completion_tokens) == (FinishReason.STOP, 3)
    assert text(events) == "".join(token_bytes(token).decode() for token in tokens(events))


@pytest.mark.parametrize(
    ("lie", "indexes"),
    [
        ("repeat", [0, 1, 2, 2, 3, 4]),
        ("skip", [0, 1, 3, 4]),
        ("swap", [0, 1, 3, 2, 4]),
        ("garble", [0, 1, 2, 3, 4]),
    ],
)
def test_a_lie_is_told_where_it_was_ordered(lie: str, indexes: list[int]) -> None:
    events = run(submit(f"fake:tokens=5 fake:{lie}=2"))
    deltas = [event for event in events if isinstance(event, Delta)]
    assert [delta.index for delta in deltas] == indexes
    wrong = [delta.index for delta in deltas if delta.text != token_bytes(delta.tokens[0]).decode()]
    assert wrong == ([2] if lie == "garble" else [])
    assert end(events).completion_tokens == 5


def test_one_that_halts_keeps_its_slot_and_says_no_more() -> None:
    engine = FakeEngine(PLAN)
    engine.submit(submit("fake:tokens=5 fake:halt=1"))
    engine.submit(submit(job="b"))
    events: list[Event] = []
    while not any(isinstance(event, Finished) for event in events):
        events += engine.step()
    assert len(tokens(events)) == 2
    assert len(tokens(events, "b")) == 5
    assert engine.busy()


def test_the_same_request_gets_the_same_words() -> None:
    assert tokens(run(submit(seed=7))) == tokens(run(submit(seed=7)))


def test_another_seed_or_another_prompt_gets_other_words() -> None:
    assert tokens(run(submit(seed=7))) != tokens(run(submit(seed=8)))
    assert tokens(run(submit("x fake:tokens=5"))) != tokens(run(submit("y fake:tokens=5")))


def test_the_seed_is_nothing_to_a_greedy_request() -> None:
    assert tokens(run(submit(seed=7, temperature=0))) == tokens(run(submit(seed=8, temperature=0)))


@pytest.mark.parametrize("n_done", [1, 3])
def test_a_replayed_request_goes_on_with_the_same_words(n_done: int) -> None:
    whole = run(submit(seed=3))
    done = tuple(tokens(whole)[:n_done])
    rest = run(submit(seed=3, done=done))
    assert tokens(rest) == tokens(whole)[n_done:]
    assert next(event.index for event in rest if isinstance(event, Delta)) == n_done
    assert b"".join(map(token_bytes, done)).decode() + text(rest) == text(whole)
    assert end(rest).completion_tokens == 5


@pytest.mark.parametrize(
    ("params", "n_tokens", "reason"),
    [
        ({"max_tokens": 2}, 2, FinishReason.LENGTH),
        ({"max_tokens": 100}, 5, FinishReason.STOP),
        ({"max_tokens": 100, "min_tokens": 9}, 9, FinishReason.STOP),
        ({"max_tokens": 20, "ignore_eos": True}, 20, FinishReason.LENGTH),
    ],
)
def test_how_long_an_answer_is(params: dict[str, Any], n_tokens: int, reason: FinishReason) -> None:
    events = run(submit(**params))
    assert (len(tokens(events)), end(events).reason) == (n_tokens, reason)


def test_the_context_ends_an_answer() -> None:
    prompt = "x" * 250
    events = run(submit(prompt, ignore_eos=True))
    assert (len(tokens(events)), end(events).reason) == (PLAN.n_ctx - 250, FinishReason.LENGTH)


def test_a_stop_string_ends_the_text_before_it() -> None:
    whole = text(run(submit("fake:tokens=9")))
    stop = whole[10:14]
    events = run(submit("fake:tokens=9", stop=(stop,)))
    assert text(events) == whole[: whole.index(stop)]
    assert end(events).reason is FinishReason.STOP


def test_log_probabilities_come_when_they_are_asked_for() -> None:
    asked = [event for event in run(submit(logprobs=0)) if isinstance(event, Delta)]
    assert all(event.logprobs and event.logprobs[0].token == event.tokens[0] for event in asked)
    assert all(event.logprobs is None for event in run(submit()) if isinstance(event, Delta))


def test_no_more_run_than_there_are_slots_and_the_rest_is_not_lost() -> None:
    engine = FakeEngine(PLAN)
    for job in "abc":
        engine.submit(submit(job=job))
    stats = engine.stats()
    assert (stats.running, stats.waiting) == (2, 1)
    assert {end(run(*(submit(job=job) for job in "abc"))).job} <= set("abc")
    assert all(tokens(run(*(submit(job=job) for job in "abc")), job) for job in "abc")


def test_a_cancel_is_answered_and_frees_the_slot() -> None:
    engine = FakeEngine(msgspec.structs.replace(PLAN, n_slots=1))
    engine.submit(submit(job="a"))
    engine.submit(submit(job="b", done=(300, 301)))
    engine.step()
    engine.cancel("a", 1)
    assert engine.step()[0] == Stopped("a", 1, 1, n_computed=len(submit().tokens))
    assert engine.stats().running == 1
    engine.cancel("b", 1)
    assert [event for event in engine.step() if isinstance(event, Stopped)] == [
        Stopped("b", 1, 3, n_computed=len(submit().tokens) + 2)
    ]
    assert not engine.busy()


def test_one_that_waits_inside_can_be_cancelled_too() -> None:
    engine = FakeEngine(msgspec.structs.replace(PLAN, n_slots=1))
    engine.submit(submit(job="a"))
    engine.submit(submit(job="b", done=(300,)))
    engine.cancel("b", 1)
    assert Stopped("b", 1, 1) in engine.step()


@pytest.mark.parametrize(("job", "attempt"), [("a", 2), ("nobody", 1)])
def test_a_cancel_of_something_else_is_no_event(job: str, attempt: int) -> None:
    engine = FakeEngine(PLAN)
    engine.submit(submit(job="a"))
    engine.cancel(job, attempt)
    assert not any(isinstance(event, Stopped) for event in engine.step())
    assert engine.stats().running == 1


def test_ids_of_a_larger_vocabulary_than_ours_are_words_too() -> None:
    one = submit()
    strange = msgspec.structs.replace(one, tokens=[*one.tokens, N_VOCAB, 151_000], n_prompt=len(one.tokens) + 2)
    assert len(tokens(run(strange))) == 5


@dataclass
class Clock:
    now_s: float = 100.0

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, span_s: float) -> None:
        assert 0 < span_s <= fake.NAP_S
        self.now_s += span_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(fake, "time", SimpleNamespace(monotonic=clock.monotonic, sleep=clock.sleep))
    return clock


def test_the_rate_is_kept_by_each_stream(clock: Clock) -> None:
    plan = msgspec.structs.replace(PLAN, fake_tokens_per_s=50.0)
    run(submit("fake:tokens=101", job="a"), submit("fake:tokens=101", job="b"), plan=plan)
    # All streams keep one beat, so the first token may come up to an interval early.
    assert 100 / 50 - 2 * fake.NAP_S <= clock.now_s - 100.0 <= 101 / 50 + 2 * fake.NAP_S


def test_tokens_can_tell_when_they_came(clock: Clock) -> None:
    plan = msgspec.structs.replace(PLAN, fake_tokens_per_s=50.0)
    engine = FakeEngine(plan)
    engine.submit(submit("fake:tokens=3 fake:clock=1"))
    seen = [(at_s, event.text) for at_s, event in timed(engine, clock) if isinstance(event, Delta)]
    assert len(seen) == 3
    assert all(0 <= 100 + at_s - int(said) / 1e6 <= 1e-6 for at_s, said in seen)


# prompts that cost time

SLOW = msgspec.structs.replace(PLAN, fake_prefill_tokens_per_s=1000.0)


def timed(engine: FakeEngine, clock: Clock) -> list[tuple[float, Event]]:
    """(seconds since 100, event) of everything that comes until the engine is idle."""
    seen: list[tuple[float, Event]] = []
    while engine.busy():
        seen += [(clock.now_s - 100.0, event) for event in engine.step()]
    return seen


def times_s(seen: list[tuple[float, Event]], kind: type, job: str) -> list[float]:
    return [at_s for at_s, event in seen if isinstance(event, kind) and event.job == job]


def soon(at_s: float) -> Any:
    """Not early, and late by no more than a nap."""
    return pytest.approx(at_s + fake.NAP_S / 2, abs=fake.NAP_S / 2 + 1e-6)


def test_prompts_are_computed_one_after_another(clock: Clock) -> None:
    engine = FakeEngine(SLOW)
    engine.submit(submit("x" * 100, job="a", max_tokens=1))
    engine.submit(submit("y" * 150, job="b", max_tokens=1))
    seen = timed(engine, clock)
    assert times_s(seen, Delta, "a") == [soon(0.1)]
    assert times_s(seen, Started, "b") == [soon(0.1)]
    assert times_s(seen, Delta, "b") == [soon(0.25)]
    assert [event.prefill_ms for _, event in seen if isinstance(event, Finished)] == pytest.approx([100.0, 150.0])
    assert engine.stats().prefill_tokens == 250


def test_answers_flow_at_their_rate_beside_a_long_prompt(clock: Clock) -> None:
    engine = FakeEngine(msgspec.structs.replace(SLOW, fake_tokens_per_s=50.0))
    engine.submit(submit("x" * 10, job="a", max_tokens=12, ignore_eos=True))
    engine.submit(submit("y" * 200, job="b", max_tokens=1))
    seen = timed(engine, clock)
    assert times_s(seen, Delta, "a")[1:] == [soon(0.02 * i) for i in range(1, 12)]
    assert times_s(seen, Delta, "b") == [soon(0.21)]
    end_of_a = next(event for _, event in seen if isinstance(event, Finished) and event.job == "a")
    assert end_of_a.prefill_ms == pytest.approx(10.0)
    assert end_of_a.decode_ms == pytest.approx(210.0, abs=3.0)


def test_a_cancel_in_mid_prompt_is_heard_at_once_and_the_next_prompt_begins(clock: Clock) -> None:
    engine = FakeEngine(SLOW)
    engine.submit(submit("x" * 250, job="a", max_tokens=1))
    engine.submit(submit("y" * 50, job="b", max_tokens=1))
    while clock.now_s < 100.1:
        engine.step()
    engine.cancel("a", 1)
    stopped, started = engine.step()
    assert started == Started("b", 1, 50, 0)
    assert isinstance(stopped, Stopped)
    assert (stopped.job, stopped.n_tokens) == ("a", 0)
    assert stopped.n_computed == pytest.approx(100, abs=3)
    assert times_s(timed(engine, clock), Delta, "b") == [soon(clock.now_s - 100.0)]
    assert clock.now_s - 100.0 == pytest.approx(0.152, abs=0.003)


def test_one_whose_prompt_waits_can_be_cancelled_and_nobody_is_moved(clock: Clock) -> None:
    engine = FakeEngine(SLOW)
    engine.submit(submit("x" * 100, job="a", max_tokens=1))
    engine.submit(submit("y" * 100, job="b", max_tokens=1))
    engine.cancel("b", 1)
    seen = timed(engine, clock)
    assert (times_s(seen, Stopped, "b"), times_s(seen, Delta, "a")) == ([0.0], [soon(0.1)])


def test_a_replayed_request_computes_what_it_had_again(clock: Clock) -> None:
    engine = FakeEngine(SLOW)
    engine.submit(submit("x" * 100, done=(300,) * 50, max_tokens=51, ignore_eos=True))
    assert times_s(timed(engine, clock), Delta, "a") == [soon(0.15)]


def test_without_a_rate_prompts_cost_no_time(clock: Clock) -> None:
    ended = end(run(submit("x" * 200)))
    assert (ended.prefill_ms, clock.now_s) == (0.0, 100.0)


def test_loading_tells_its_progress_up_to_the_end() -> None:
    told: list[float] = []
    ready = fake.load(PLAN, told.append).ready
    assert told == sorted(told)
    assert (told[0], told[-1]) == (0.0, 1.0)
    assert (ready.n_ctx, ready.n_slots, ready.kv_cells) == (256, 2, 512)


def test_an_ordered_crash_kills_the_process_and_spares_a_replay() -> None:
    code = "from inferd.tests.backends.test_fake import *; run(submit('fake:crash=2'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=False)
    assert done.returncode == -signal.SIGABRT
    assert end(run(submit("fake:crash=2", done=(300, 301), max_tokens=3))).reason is FinishReason.LENGTH


def test_it_says_what_it_is_told_to() -> None:
    events = run(submit(f"fake:say={b'no'.hex()} fake:say={'é!'.encode().hex()}"))
    assert (text(events), tokens(events)) == ("é!", list("é!".encode()))
    assert (end(events).reason, end(events).completion_tokens) == (FinishReason.STOP, 3)


def test_a_replay_goes_on_with_what_it_is_told_to_say() -> None:
    events = run(submit(f"fake:say={b'abc'.hex()}", done=(ord("a"), ord("b"))))
    assert text(events) == "c"


def test_a_grammar_is_what_it_says() -> None:
    assert text(run(submit("x", grammar="<call>"))) == "<call>"
    assert text(run(submit(f"fake:say={b'a'.hex()}", grammar="<call>"))) == "a"
