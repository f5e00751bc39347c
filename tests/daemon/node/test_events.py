"""A ring of events: numbered, read with a cursor, and not flooded by one tenant."""

from __future__ import annotations

import asyncio
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.daemon.domain.event import Event, Kind, Severity
from inferd.daemon.node.events import BURSTS, MAX_BURSTS, Events
from inferd.tests.daemon.policy.tools import job

INFO, WARNING = Severity.INFO, Severity.WARNING


def messages(events: list[Event]) -> list[str]:
    return [event.message for event in events]


def filled(n: int, kept: int = 10) -> Events:
    it = Events(kept)
    for i in range(n):
        it.note(INFO, Kind.MODEL_READY, str(i))
    return it


def refuse(it: Events, n: int, tenant: str = "a", model: str = "m") -> None:
    for i in range(n):
        it.note(WARNING, Kind.REFUSED, f"r{i} was refused", model=model, request_id=f"r{i}", tenant=tenant)


def refuse_each(it: Events, n: int) -> None:
    """As many tenants."""
    for i in range(n):
        refuse(it, 1, f"t{i}")


def test_an_event_says_what_it_is_about_and_when() -> None:
    it, before_s = Events(), time.time()
    it.note(WARNING, Kind.DEVICE_LOST, "gpu0 is lost", device="gpu0")
    it.about(one := job(model="m", tenant="ada"), INFO, Kind.RESUMED, "goes on")
    lost, resumed = it.after(0)
    assert (lost.severity, lost.kind, lost.message, lost.device) == (WARNING, Kind.DEVICE_LOST, "gpu0 is lost", "gpu0")
    assert (resumed.model, resumed.request_id, resumed.tenant, resumed.device) == ("m", one.id, "ada", "")
    assert before_s <= lost.unix_s <= resumed.unix_s <= time.time()


def test_sequences_grow_by_one_and_over_restarts() -> None:
    first = [event.sequence for event in filled(3).after(0)]
    assert first == list(range(first[0], first[0] + 3))
    assert filled(1).after(0)[0].sequence > first[-1]


def test_a_cursor_sees_what_is_later() -> None:
    it = filled(5)
    all_of_them = it.after(0)
    assert messages(all_of_them) == list("01234")
    assert messages(it.after(all_of_them[2].sequence)) == ["3", "4"]
    assert it.after(all_of_them[-1].sequence) == []
    assert Events().after(0) == []


def test_who_reads_too_slowly_goes_on_with_the_oldest_that_is_kept() -> None:
    it = filled(2, kept=4)
    cursor = it.after(0)[-1].sequence
    for i in range(2, 20):
        it.note(INFO, Kind.MODEL_READY, str(i))
    assert messages(it.after(cursor)) == ["16", "17", "18", "19"]


@given(st.integers(0, 30), st.integers(1, 12), st.integers(-5, 40))
def test_any_cursor_gets_all_that_is_kept_and_later(n: int, kept: int, past: int) -> None:
    it = filled(n, kept)
    everything = it.after(0)
    assert messages(everything) == [str(i) for i in range(max(0, n - kept), n)]
    cursor = max(0, (everything[0].sequence if everything else 0) + past)
    known = not everything or cursor <= everything[-1].sequence
    assert it.after(cursor) == [event for event in everything if event.sequence > cursor or not known]


async def test_a_cursor_from_the_future_is_none() -> None:
    it = Events()
    waiting = asyncio.create_task(it.later(1 << 63))
    await asyncio.sleep(0)
    assert not waiting.done()
    it.note(INFO, Kind.MODEL_READY, "first")
    async with asyncio.timeout(10):
        assert messages(await waiting) == ["first"]
        assert messages(await it.later(it.after(0)[-1].sequence + 1)) == ["first"]


async def test_who_waits_is_woken_by_the_next_one() -> None:
    it = filled(1)
    waiting = asyncio.create_task(it.later(it.after(0)[-1].sequence))
    await asyncio.sleep(0)
    assert not waiting.done()
    it.note(INFO, Kind.MODEL_READY, "next")
    assert messages(await waiting) == ["next"]
    assert messages(await it.later(0)) == ["0", "next"]  # at once


# bursts


def test_a_burst_is_told_at_once_and_then_once_a_tick_with_its_number() -> None:
    it = Events()
    refuse(it, 40)
    assert messages(it.after(0)) == ["r0 was refused"]
    it.tick()
    assert messages(it.after(0))[1:] == ["r39 was refused, and 38 more"]
    assert it.after(0)[1].request_id == "r39"
    refuse(it, 1)
    it.tick()
    assert messages(it.after(0))[2:] == ["r0 was refused"]


def test_after_a_quiet_tick_the_next_one_is_told_at_once() -> None:
    it = Events()
    refuse(it, 1)
    it.tick()
    refuse(it, 1)
    assert len(it.after(0)) == 2


def test_a_burst_of_one_does_not_hide_others() -> None:
    it = Events()
    refuse(it, 10, "a")
    refuse(it, 1, "b")
    refuse(it, 1, "a", "another")
    it.note(WARNING, Kind.SLOW_CONSUMER, "x", model="m", tenant="a")
    assert [(event.tenant, event.model, event.kind) for event in it.after(0)] == [
        ("a", "m", Kind.REFUSED),
        ("b", "m", Kind.REFUSED),
        ("a", "another", Kind.REFUSED),
        ("a", "m", Kind.SLOW_CONSUMER),
    ]


def test_tenants_without_number_are_no_flood_either() -> None:
    it = Events()
    for i in range(1000):
        refuse(it, 1, f"t{i}")
    assert len(it.after(0)) == MAX_BURSTS + 1
    it.tick()
    assert messages(it.after(0))[-1] == f"r0 was refused, and {1000 - MAX_BURSTS - 2:,} more"


@pytest.mark.parametrize(("on", "off"), [(Kind.PINNED, Kind.UNPINNED), (Kind.DRAINING, Kind.SERVING)])
def test_what_goes_on_and_off_all_the_time_is_one_burst_that_ends_with_how_it_is(on: Kind, off: Kind) -> None:
    for n_tenants in (1, MAX_BURSTS + 1):
        it = Events()
        refuse_each(it, n_tenants - 1)
        n_before = len(it.after(0))
        for _ in range(1000):
            it.note(INFO, on, "on")
            it.note(INFO, off, "off")
        assert messages(it.after(0))[n_before:] == ["on"]
        it.tick()
        assert messages(it.after(0))[n_before:] == ["on", "off, and 1,998 more"]


def test_bursts_are_told_in_the_order_of_their_times() -> None:
    it = Events()
    for tenant in "abcba":
        refuse(it, 1, tenant)
    refuse(it, 1, "c")
    it.tick()
    found = it.after(0)
    assert [event.tenant for event in found] == list("abcbac")
    assert [event.unix_s for event in found] == sorted(event.unix_s for event in found)


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind not in BURSTS])
def test_what_no_client_can_bring_about_at_will_is_always_told(kind: Kind) -> None:
    it = Events()
    for _ in range(3):
        it.note(INFO, kind, "x")
    assert len(it.after(0)) == 3
