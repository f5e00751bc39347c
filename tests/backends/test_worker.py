"""The loop inside a worker, on a thread of the test: messages in on one end of a socket pair, frames out."""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING

import msgspec
import pytest

from inferd.backends import fake, pulse, worker
from inferd.backends.channel import SyncChannel
from inferd.backends.engine import LoadError
from inferd.backends.facts import LoadPlan
from inferd.backends.messages import (
    Cancel,
    Cores,
    Delta,
    Embed,
    Embedded,
    Finished,
    Load,
    LoadFailed,
    Loading,
    Prepare,
    Ready,
    SamplingParams,
    Started,
    Step,
    Stop,
    Stopped,
    Submit,
    WorkerStats,
    decode_from_worker,
    encode,
)
from inferd.backends.pulse import Pulse
from inferd.backends.shelf import Shelf

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from inferd.backends.facts import LoadPlan as Plan
    from inferd.backends.messages import Event, FromWorker, ToWorker

PLAN = LoadPlan(backend="fake", path="", n_ctx=256, n_slots=1, kv_cells=256, n_threads=1)


class Daemon:
    """The daemon's end, and the worker on its thread."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        self.sockets = (ours, theirs)
        self.channel = SyncChannel(ours)
        self.error: BaseException | None = None
        self.shelf_sockets = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.thread = threading.Thread(target=self._work, args=(SyncChannel(theirs),))
        self.thread.start()

    def _work(self, channel: SyncChannel) -> None:
        try:
            shelf = Shelf(channel, self.shelf_sockets[1])
            engine = worker.load(channel, shelf)
            if engine is not None:
                worker.serve(channel, engine, shelf, Pulse(pulse.create()))
        except BaseException as error:
            self.error = error

    def send(self, *messages: ToWorker) -> None:
        for message in messages:
            self.channel.send(encode(message))

    def receive(self) -> FromWorker:
        frame = self.channel.recv(block=True, timeout_ms=10_000)
        assert frame is not None, "the worker is silent"
        return decode_from_worker(frame)

    def until(self, wanted: Callable[[FromWorker], bool]) -> list[FromWorker]:
        """Everything up to the first message that is wanted."""
        messages = [self.receive()]
        while not wanted(messages[-1]):
            messages.append(self.receive())
        return messages

    def events_until(self, kind: type[Event]) -> list[Event]:
        steps = self.until(lambda m: isinstance(m, Step) and any(isinstance(event, kind) for event in m.events))
        return [event for step in steps if isinstance(step, Step) for event in step.events]

    def hang_up(self) -> BaseException | None:
        """Close our end and return how the worker's thread ended."""
        self.sockets[0].close()
        self.shelf_sockets[0].close()
        self.thread.join(10)
        assert not self.thread.is_alive()
        self.sockets[1].close()
        self.shelf_sockets[1].close()
        return self.error


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    it = Daemon()
    yield it
    it.hang_up()


def submit(job: str, prompt: str = "fake:tokens=3") -> Submit:
    return Submit(job, 1, list(prompt.encode()), len(prompt), SamplingParams(max_tokens=100_000, ignore_eos=False))


def endless(job: str) -> Submit:
    return msgspec.structs.replace(submit(job), tokens=list(b"fake:tokens=200"), n_prompt=15)


def loaded(daemon: Daemon, plan: Plan = PLAN) -> None:
    daemon.send(Load(plan))
    daemon.until(lambda message: isinstance(message, Ready))


def test_a_load_is_told_in_steps_and_ends_with_ready(daemon: Daemon) -> None:
    daemon.send(Load(PLAN))
    *progress, ready = daemon.until(lambda message: not isinstance(message, Loading))
    fractions = [message.progress for message in progress if isinstance(message, Loading)]
    assert fractions == sorted(fractions)
    assert (fractions[0], len(fractions) <= 101) == (0.0, True)
    assert isinstance(ready, Ready)
    assert ready.n_slots == 1


def test_a_request_is_answered_and_then_the_worker_says_that_it_is_idle(daemon: Daemon) -> None:
    loaded(daemon)
    daemon.send(submit("a"))
    events = daemon.events_until(Finished)
    assert [type(event) for event in events] == [Started, Delta, Delta, Delta, Finished]
    stats = daemon.until(lambda message: isinstance(message, WorkerStats))[-1]
    assert isinstance(stats, WorkerStats)
    assert (stats.running, stats.decode_tokens) == (0, 3)
    assert stats.rss_bytes > 1 << 20


def test_a_plan_with_a_pooling_gets_an_engine_that_embeds(daemon: Daemon) -> None:
    loaded(daemon, msgspec.structs.replace(PLAN, pooling="mean"))
    daemon.send(Embed("a", 1, [[1], [2, 3]]))
    assert [type(event) for event in daemon.events_until(Finished)] == [Started, Embedded, Embedded, Finished]
    daemon.send(submit("b"))
    daemon.thread.join(10)
    assert isinstance(daemon.hang_up(), AssertionError)


def test_an_engine_that_writes_embeds_nothing(daemon: Daemon) -> None:
    loaded(daemon)
    daemon.send(Embed("a", 1, [[1]]))
    daemon.thread.join(10)
    assert isinstance(daemon.hang_up(), AssertionError)


def test_an_idle_worker_rests(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[None] = []
    step = fake.FakeEngine.step

    def counted(engine: fake.FakeEngine, listen: Callable[[], bool] | None = None) -> list[Event]:
        steps.append(None)
        return step(engine, listen)

    monkeypatch.setattr(fake.FakeEngine, "step", counted)
    loaded(daemon)
    daemon.send(submit("a"))
    daemon.events_until(Finished)
    daemon.until(lambda message: isinstance(message, WorkerStats))
    n_steps = len(steps)
    assert n_steps > 0
    other = Daemon()
    loaded(other)  # takes some time in which a worker that does not rest would step
    other.hang_up()
    assert len(steps) == n_steps


def test_a_cancel_is_heard_between_two_steps(daemon: Daemon) -> None:
    loaded(daemon, msgspec.structs.replace(PLAN, fake_tokens_per_s=100.0))
    daemon.send(endless("a"))
    daemon.events_until(Delta)
    daemon.send(Cancel("a", 1), submit("b"))
    events = [*daemon.events_until(Stopped), *daemon.events_until(Finished)]
    after = events[[type(event) for event in events].index(Stopped) + 1 :]
    assert {event.job for event in after} == {"b"}


@pytest.mark.parametrize("last", [Cancel("a", 1), Stop()])
def test_an_engine_that_takes_long_hears_what_comes_meanwhile(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch, last: Cancel | Stop
) -> None:
    stops: list[bool] = []

    def long_step(engine: fake.FakeEngine, listen: Callable[[], bool]) -> list[Event]:
        daemon.send(submit("b"), last)
        stops.append(listen())
        assert [waiting.job for waiting in (*engine.waiting, *(run.submit for run in engine.running))][-1] == "b"
        return fake.FakeEngine.step(engine) if isinstance(last, Stop) else step(engine)

    step = fake.FakeEngine.step
    monkeypatch.setattr(fake.FakeEngine, "step", long_step)
    loaded(daemon)
    daemon.send(endless("a"))
    if isinstance(last, Stop):
        daemon.thread.join(10)
        assert not daemon.thread.is_alive()
    else:
        daemon.events_until(Stopped)
    assert stops[0] is isinstance(last, Stop)


def test_stop_ends_the_loop_in_the_middle_of_work(daemon: Daemon) -> None:
    loaded(daemon, msgspec.structs.replace(PLAN, fake_tokens_per_s=100.0))
    daemon.send(endless("a"))
    daemon.events_until(Delta)
    daemon.send(Stop())
    daemon.thread.join(10)
    assert not daemon.thread.is_alive()
    assert daemon.error is None


@pytest.mark.parametrize("busy", [False, True])
def test_the_end_of_the_daemon_is_the_end_of_the_worker(busy: bool) -> None:
    daemon = Daemon()
    loaded(daemon, msgspec.structs.replace(PLAN, fake_tokens_per_s=100.0))
    if busy:
        daemon.send(endless("a"))
        daemon.events_until(Delta)
    assert isinstance(daemon.hang_up(), EOFError | BrokenPipeError | ConnectionResetError)


def test_stop_ends_a_load(daemon: Daemon) -> None:
    daemon.send(Load(msgspec.structs.replace(PLAN, fake_load_s=60.0)))
    daemon.until(lambda message: isinstance(message, Loading))
    daemon.send(Stop())
    daemon.thread.join(10)
    assert not daemon.thread.is_alive()
    assert daemon.error is None


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (LoadError("corrupt", "half of it is missing"), LoadFailed("corrupt", "half of it is missing")),
        (MemoryError(), LoadFailed("memory", "not enough memory to load the model")),
    ],
)
def test_a_model_that_cannot_be_loaded_is_told_and_the_worker_ends(
    monkeypatch: pytest.MonkeyPatch, error: Exception, told: LoadFailed
) -> None:
    def load(plan: Plan, progress: Callable[[float], None], shelf: Shelf) -> fake.FakeEngine:
        raise error

    monkeypatch.setattr(fake, "load", load)
    daemon = Daemon()
    daemon.send(Load(PLAN))
    assert daemon.receive() == told
    assert daemon.hang_up() is None


def test_a_message_for_somebody_else_ends_the_worker(daemon: Daemon) -> None:
    loaded(daemon)
    daemon.send(Prepare("1", prompt="hi"))
    daemon.thread.join(10)
    assert isinstance(daemon.error, AssertionError)


def test_bytes_that_are_no_message_end_the_worker(daemon: Daemon) -> None:
    loaded(daemon)
    daemon.channel.send(b"\xc1")
    daemon.thread.join(10)
    assert isinstance(daemon.error, msgspec.DecodeError)


def test_the_engine_hears_how_many_threads_it_may_use(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[int] = []
    monkeypatch.setattr(fake.FakeEngine, "use_threads", lambda _, n_threads: heard.append(n_threads))
    loaded(daemon)
    daemon.send(Cores(3), submit("a"))
    daemon.events_until(Finished)
    assert heard == [3]
