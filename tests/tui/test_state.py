from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from inferd.protos import inferd_pb2 as pb
from inferd.tests.tui import samples
from inferd.tui import state
from inferd.tui.state import HISTORY_S, MAX_EVENTS, MAX_SAMPLES, Link, State


def picture(rate: float = 1.0, device: str = "gpu0") -> pb.Snapshot:
    made = pb.Snapshot(rates=pb.Rates(generation_tokens_per_s=rate))
    made.devices.add(id=device, memory_total_bytes=100, memory_used_bytes=25, utilization=0.5)
    return made


def test_a_picture_is_shown_and_makes_history() -> None:
    now = state.on_snapshot(State(), picture(7.0), 10.0)
    assert (now.link, now.received_s) == (Link.LIVE, 10.0)
    assert [s.generation_tokens_per_s for s in now.samples] == [7.0]
    assert now.devices["gpu0"][0].memory == 0.25
    assert now.age_s(12.5) == 2.5


def test_a_device_that_is_gone_has_no_history() -> None:
    now = state.on_snapshot(state.on_snapshot(State(), picture(), 1.0), picture(device="gpu1"), 2.0)
    assert list(now.devices) == ["gpu1"]


def test_a_missing_reading_is_none() -> None:
    bare = pb.DeviceState(id="npu0")
    assert state.device_sample(bare, 1.0) == state.DeviceSample(1.0, None, None, None)


def test_a_daemon_that_is_gone_leaves_what_it_said() -> None:
    now = state.on_lost(state.on_snapshot(State(), picture(), 1.0), "no daemon", 9.0)
    assert (now.link, now.reason, now.retry_at_s) == (Link.LOST, "no daemon", 9.0)
    assert now.snapshot is not None
    again = state.on_snapshot(now, picture(), 5.0)
    assert (again.link, again.reason, again.retry_at_s) == (Link.LIVE, "", None)


def test_events_that_come_twice_count_once() -> None:
    events = samples.events()
    now = state.on_events(state.on_events(State(), events[:3]), events)
    assert list(now.events) == events


def test_requests_and_models_are_found_by_name() -> None:
    now = state.on_snapshot(State(), samples.snapshot(), 1.0)
    assert (found := now.request("r8f2a")) is not None
    assert found.why == "room"
    assert now.request("nobody") is None
    assert (model := now.model("embed-e5")) is not None
    assert model.slots == 2
    assert State().model("embed-e5") is None
    assert State().request("r8f2a") is None


@given(st.lists(st.floats(0, 1000), min_size=1, max_size=60))
def test_history_is_of_the_last_minutes_and_in_order(steps: list[float]) -> None:
    now, at_s = State(), 0.0
    for step in steps:
        at_s += step
        now = state.on_snapshot(now, picture(), at_s)
    times = [sample.at_s for sample in now.samples]
    assert times == sorted(times)
    assert times[-1] == at_s
    assert all(at_s - t <= HISTORY_S for t in times)


def test_history_has_an_end_however_fast_it_comes() -> None:
    now = State()
    for i in range(MAX_SAMPLES + 50):
        now = state.on_snapshot(now, picture(), i / 100)
    assert len(now.samples) == MAX_SAMPLES


class Anything(RuleBasedStateMachine):
    """Whatever the daemon says, in whatever order."""

    def __init__(self) -> None:
        super().__init__()
        self.now = State()
        self.clock_s = 0.0
        self.sequence = 0

    @rule(step=st.floats(0, 400), rate=st.floats(0, 1e6))
    def picture(self, step: float, rate: float) -> None:
        self.clock_s += step
        self.now = state.on_snapshot(self.now, picture(rate), self.clock_s)
        assert self.now.link is Link.LIVE

    @rule()
    def lost(self) -> None:
        before = self.now.snapshot
        self.now = state.on_lost(self.now, "gone", self.clock_s + 1)
        assert self.now.snapshot is before

    @rule(n=st.integers(1, 700), back=st.integers(0, 5))
    def events(self, n: int, back: int) -> None:
        first = max(1, self.sequence + 1 - back)
        self.sequence = first + n - 1
        self.now = state.on_events(self.now, [pb.Event(sequence=i) for i in range(first, first + n)])

    @rule()
    def greeting(self) -> None:
        self.now = state.on_catalog(state.on_greeting(self.now, "operator", "web"), [])
        assert (self.now.role, self.now.tenant) == ("operator", "web")

    @invariant()
    def is_bounded_and_in_order(self) -> None:
        numbers = [event.sequence for event in self.now.events]
        assert len(numbers) <= MAX_EVENTS
        assert all(a < b for a, b in pairwise(numbers))
        assert len(self.now.samples) <= MAX_SAMPLES
        assert all(a.at_s <= b.at_s for a, b in pairwise(self.now.samples))


TestAnything = Anything.TestCase
