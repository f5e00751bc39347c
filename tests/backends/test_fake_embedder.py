"""Vectors without weights: the same for the same tokens, in order, one input of each request in turn."""

from __future__ import annotations

import signal
import struct
import subprocess
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from inferd.backends import fake, fake_embedder
from inferd.backends.engine import Embedder
from inferd.backends.facts import LoadPlan
from inferd.backends.fake import N_VOCAB, FakeEngine
from inferd.backends.fake_embedder import N_VALUES, FakeEmbedder, vector
from inferd.backends.messages import Embed, Embedded, Finished, FinishReason, Started, Stopped

if TYPE_CHECKING:
    from inferd.backends.messages import Event

PLAN = LoadPlan(backend="fake", path="", n_ctx=256, n_slots=2, kv_cells=512, n_threads=1, pooling="mean")


def order(*texts: str, job: str = "a", **changes: Any) -> Embed:
    return Embed(job, 1, [list(text.encode()) for text in texts], **changes)


def run(*orders: Embed, plan: LoadPlan = PLAN) -> list[Event]:
    engine = FakeEmbedder(plan, N_VOCAB)
    for one in orders:
        engine.embed(one)
    events = []
    while engine.busy():
        events += engine.step()
    return events


def vectors(events: list[Event], job: str = "a") -> list[tuple[float, ...]]:
    told = [event for event in events if isinstance(event, Embedded) and event.job == job]
    return [struct.unpack(f"={len(event.vectors) // 4}f", event.vectors) for event in told]


def test_the_plan_says_which_engine_it_is() -> None:
    engine = fake.load(PLAN, lambda _: None)
    assert isinstance(engine, Embedder)
    assert not isinstance(FakeEngine(PLAN), Embedder)
    assert engine.ready.n_vocab == N_VOCAB


def test_a_vector_depends_on_its_tokens_alone() -> None:
    events = run(order("one", "two", "one"))
    assert [type(event) for event in events] == [Started, Embedded, Embedded, Embedded, Finished]
    one, two, again = vectors(events)
    assert one == again != two
    assert len(one) == N_VALUES
    assert sum(value * value for value in one) == pytest.approx(1.0)
    assert vectors(run(order("two")))[0] == two
    end = events[-1]
    assert isinstance(end, Finished)
    assert (end.reason, end.completion_tokens, end.n_computed) == (FinishReason.STOP, 0, 9)


def test_dimensions_length_and_scores() -> None:
    (short,) = vectors(run(order("one", dimensions=3)))
    assert len(short) == 3
    (raw,) = vectors(run(order("one", normalize=False)))
    assert raw == pytest.approx(vector(list(b"one"), N_VALUES, normalize=False))
    (score,) = vectors(run(order("one"), plan=msgspec.structs.replace(PLAN, pooling="rank")))
    assert -1 <= score[0] <= 1
    assert len(score) == 1


def test_requests_alternate_and_each_gets_its_own() -> None:
    events = run(order("1", "2", "3"), order("4", job="b"))
    names = [event.job for event in events if isinstance(event, Embedded)]
    assert names == ["a", "b", "a", "a"]
    assert vectors(events, "b") == vectors(run(order("4")))


def test_an_order_with_nothing_left_ends() -> None:
    started, end = run(order(known_tokens=9))
    assert started == Started("a", 1, 9, 9)
    assert isinstance(end, Finished)


def test_a_cancelled_order_says_how_much_was_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now_s=0.0)
    clock.monotonic, clock.sleep = lambda: clock.now_s, lambda s: setattr(clock, "now_s", clock.now_s + s)
    monkeypatch.setattr(fake_embedder, "time", clock)
    engine = FakeEmbedder(msgspec.structs.replace(PLAN, fake_prefill_tokens_per_s=100.0), N_VOCAB)
    engine.embed(order("x" * 50, "y" * 50))
    events: list[Event] = []
    while not any(isinstance(event, Embedded) for event in events):
        events += engine.step()
    assert clock.now_s == pytest.approx(0.5, abs=0.01)
    engine.cancel("a", 1)
    engine.cancel("a", 1)
    assert engine.step() == [Stopped("a", 1, 0, n_computed=50)]
    assert not engine.busy()


def test_an_ordered_crash_comes_in_the_first_attempt_alone() -> None:
    code = (
        "from inferd.tests.backends.test_fake_embedder import order, run\n"
        "import msgspec\n"
        "run(msgspec.structs.replace(order('fake:crash'), attempt=2))\n"
        "run(order('fake:crash'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=False)
    assert done.returncode == -signal.SIGABRT
