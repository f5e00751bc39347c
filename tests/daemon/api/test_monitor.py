"""What monitors ask: snapshots, events, reasons, and who they are."""

from __future__ import annotations

from typing import Any

from inferd.daemon.api.monitor import to_event
from inferd.daemon.domain.errors import Code
from inferd.daemon.domain.event import Event, Kind, Severity
from inferd.daemon.node.events import Events
from inferd.protos import inferd_pb2 as pb
from inferd.tests.daemon.api.house import WAIT_S, House, refused


async def test_watch_repeats_what_get_snapshot_says(house: House) -> None:
    once = await house.monitor.GetSnapshot(pb.GetSnapshotRequest())
    watch = house.monitor.Watch(pb.WatchRequest(interval_ms=100), timeout=WAIT_S)
    sequences = [once.sequence, (await watch.read()).sequence, (await watch.read()).sequence]
    watch.cancel()
    assert sequences == sorted(set(sequences))
    for interval_ms in (0, 99, 60_001):
        error = await refused(house.monitor.Watch(pb.WatchRequest(interval_ms=interval_ms)).read())
        assert (error.code, error.field) == (Code.INVALID, "interval_ms")


async def test_all_who_watch_are_sent_the_same_message_for_a_moment(house: House, monkeypatch: Any) -> None:
    monkeypatch.setattr("inferd.daemon.api.monitor.SHARED_S", 3600.0)
    watches = [house.monitor.Watch(pb.WatchRequest(interval_ms=60_000), timeout=WAIT_S) for _ in range(5)]
    shown = [await watch.read() for watch in watches]
    assert len({message.sequence for message in shown}) == 1
    fresh = await house.monitor.GetSnapshot(pb.GetSnapshotRequest())
    assert fresh.sequence == shown[0].sequence + 1
    again = house.monitor.Watch(pb.WatchRequest(interval_ms=100), timeout=WAIT_S)
    assert (await again.read()).sequence == shown[0].sequence
    assert (await again.read()).sequence > fresh.sequence, "one that it has not seen"
    for watch in (*watches, again):
        watch.cancel()


def noted(house: House, *severities: Severity) -> None:
    for i, severity in enumerate(severities):
        house.node.events.note(severity, Kind.PRESSURE, str(i))


async def kept(house: House, **asked: Any) -> list[pb.Event]:
    call = house.monitor.WatchEvents(pb.WatchEventsRequest(follow=False, **asked), timeout=WAIT_S)
    return [event async for event in call]


async def test_events_that_are_kept_and_then_those_that_come(house: House) -> None:
    noted(house, Severity.INFO, Severity.ERROR)
    call = house.monitor.WatchEvents(pb.WatchEventsRequest(), timeout=WAIT_S)
    first, second = await call.read(), await call.read()
    assert (first.message, first.severity, first.kind, second.severity) == ("0", "info", "pressure", "error")
    assert second.sequence == first.sequence + 1
    noted(house, Severity.WARNING)
    assert (await call.read()).severity == "warning"
    call.cancel()


async def test_without_following_the_call_ends_with_what_is_kept(house: House) -> None:
    assert await kept(house) == []
    noted(house, Severity.INFO, Severity.INFO)
    first, second = await kept(house)
    assert await kept(house, after=first.sequence) == [second]
    assert await kept(house, after=second.sequence) == []
    assert await kept(house, after=second.sequence + 1) == [first, second], "of another daemon, it seems"


async def test_a_least_severity_leaves_out_what_matters_less(house: House) -> None:
    noted(house, Severity.INFO, Severity.WARNING, Severity.ERROR)
    for severity, n in (("", 3), ("info", 3), ("warning", 2), ("error", 1)):
        assert len(await kept(house, severity=severity)) == n
    call = house.monitor.WatchEvents(pb.WatchEventsRequest(severity="error"), timeout=WAIT_S)
    assert (await call.read()).message == "2"
    noted(house, Severity.INFO, Severity.ERROR)
    assert (await call.read()).message == "1"
    call.cancel()


async def test_a_severity_that_nobody_knows_is_refused_with_those_there_are(house: House) -> None:
    error = await refused(house.monitor.WatchEvents(pb.WatchEventsRequest(severity="loud")).read())
    assert (error.code, error.field) == (Code.INVALID, "severity")
    assert error.message == "severity must be one of info, warning, error, not 'loud'"


async def test_who_comes_back_after_more_than_is_kept_gets_the_oldest_of_it(house: House) -> None:
    house.node.events = Events(kept=3)
    noted(house, Severity.INFO)
    (first,) = await kept(house)
    noted(house, *[Severity.INFO] * 9)
    assert [event.message for event in await kept(house, after=first.sequence)] == ["6", "7", "8"]


def test_an_event_is_told_field_for_field() -> None:
    event = Event(7, 1.5, Severity.ERROR, Kind.DEVICE_LOST, "gone", "m", "r", "t", "gpu0")
    wire = to_event(event)
    assert (wire.sequence, wire.unix_s, wire.severity, wire.kind) == (7, 1.5, "error", "device_lost")
    assert (wire.message, wire.model, wire.request_id, wire.tenant, wire.device) == ("gone", "m", "r", "t", "gpu0")
    assert len(wire.ListFields()) == len(wire.DESCRIPTOR.fields)


async def test_who_asks_is_told_its_tenant_and_role(house: House) -> None:
    answer = await house.monitor.WhoAmI(pb.WhoAmIRequest(), metadata=(("inferd-tenant", "team-a"),))
    assert (answer.tenant, answer.role) == ("team-a", "operator")
    assert (await house.monitor.WhoAmI(pb.WhoAmIRequest())).tenant == "default"


async def test_nothing_is_remembered_of_a_request_that_never_was(house: House) -> None:
    error = await refused(house.monitor.Explain(pb.ExplainRequest(request_id="nobody")))
    assert (error.code, error.field) == (Code.NOT_FOUND, "request_id")
