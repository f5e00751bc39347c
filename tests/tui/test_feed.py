from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from inferd import AsyncClient
from inferd.tests.tui import samples
from inferd.tui import feed as feeds
from inferd.tui.feed import Feed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from inferd.protos import inferd_pb2 as pb
    from inferd.tests.tui.stage import Stage

LIMIT_S = 10.0


class Listener:
    """What the feed has told."""

    def __init__(self) -> None:
        self.pictures: list[pb.Snapshot] = []
        self.events: list[pb.Event] = []
        self.roles: list[str] = []
        self.catalogs: list[list[pb.ModelInfo]] = []
        self.losses: list[tuple[str, float]] = []

    def heard_snapshot(self, snapshot: pb.Snapshot) -> None:
        self.pictures.append(snapshot)

    def heard_event(self, event: pb.Event) -> None:
        self.events.append(event)

    def heard_greeting(self, me: pb.WhoAmIResponse) -> None:
        self.roles.append(me.role)

    def heard_catalog(self, models: list[pb.ModelInfo]) -> None:
        self.catalogs.append(models)

    def heard_lost(self, reason: str, retry_at_s: float) -> None:
        self.losses.append((reason, retry_at_s))


class Running:
    def __init__(self, address: str) -> None:
        self.heard = Listener()
        self.client = AsyncClient(address, connect_timeout_s=0.2)
        self.feed = Feed(self.client, self.heard, 1000)
        self.task = asyncio.create_task(self.feed.run())

    async def until(self, holds: Callable[[Listener], object]) -> None:
        end_s = time.monotonic() + LIMIT_S
        while not holds(self.heard):
            assert time.monotonic() < end_s
            assert not self.task.done()
            await asyncio.sleep(0.01)


@pytest.fixture
async def running(quiet_stage: Stage) -> AsyncIterator[Running]:
    made = Running(quiet_stage.address)
    yield made
    made.task.cancel()
    await asyncio.gather(made.task, return_exceptions=True)
    await made.client.close()


async def test_it_tells_the_picture_and_what_is_asked_for_beside_it(quiet_stage: Stage, running: Running) -> None:
    quiet_stage.start()
    await running.until(lambda heard: heard.pictures and heard.roles and heard.catalogs and len(heard.events) == 4)
    assert running.heard.pictures[0] == quiet_stage.picture
    assert running.heard.roles == ["operator"]
    assert [event.sequence for event in running.heard.events] == [100, 101, 102, 103]


async def test_every_change_is_told(stage: Stage, running: Running) -> None:
    await running.until(lambda heard: heard.pictures)
    stage.show(samples.snapshot([]))
    await running.until(lambda heard: len(heard.pictures) >= 2 and not heard.pictures[-1].requests)


async def test_a_daemon_that_is_not_there_is_dialled_again_and_again(
    quiet_stage: Stage, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds, "BACK_OFF_S", (0.01,))
    await running.until(lambda heard: len(heard.losses) >= 2)
    reason, retry_at_s = running.heard.losses[0]
    assert "no daemon" in reason
    assert retry_at_s <= time.monotonic() + 1
    quiet_stage.start()
    await running.until(lambda heard: heard.pictures)


async def test_pauses_grow_while_it_is_gone_and_start_anew(quiet_stage: Stage, running: Running) -> None:
    assert list(feeds.BACK_OFF_S) == sorted(feeds.BACK_OFF_S)
    await running.until(lambda heard: len(heard.losses) >= 2)
    assert running.feed._failures >= 2
    quiet_stage.start()
    await running.until(lambda heard: heard.pictures)
    assert running.feed._failures == 0


async def test_after_a_restart_only_events_that_are_new_are_asked_for(
    stage: Stage, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds, "BACK_OFF_S", (0.01,))
    monkeypatch.setattr(feeds, "EVENTS_PAUSE_S", 0.01)
    await running.until(lambda heard: len(heard.events) == 4)
    stage.stop()
    await running.until(lambda heard: heard.losses)
    stage.happened = [*stage.happened, samples.event(200, "the daemon has started")]
    stage.start()
    await running.until(lambda heard: len(heard.events) >= 5)
    assert [event.sequence for event in running.heard.events] == [100, 101, 102, 103, 200]


async def test_another_pace_is_another_stream_and_no_loss(stage: Stage, running: Running) -> None:
    await running.until(lambda heard: heard.pictures)
    running.feed.pace(250)
    await running.until(lambda _: stage.intervals == [1000, 250])
    assert running.heard.losses == []


async def test_a_daemon_that_knows_no_roles_is_watched_all_the_same(
    stage: Stage, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(request: object, context: object) -> object:
        raise NotImplementedError

    monkeypatch.setattr(stage, "WhoAmI", unknown)
    await running.until(lambda heard: heard.pictures and heard.events)


async def test_a_daemon_that_says_nothing_more_is_gone(
    quiet_stage: Stage, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its machine was switched off: no error comes, nothing comes."""
    monkeypatch.setattr(feeds, "SILENCE_S", 0.1)
    monkeypatch.setattr(feeds, "SILENT_PICTURES", 0)
    await running.until(lambda heard: heard.losses)  # the first try was made with more patience
    quiet_stage.start()
    await running.until(lambda heard: any("has said nothing for 0.1 s" in reason for reason, _ in heard.losses))
    assert running.heard.pictures


async def test_the_pace_back_and_forth_is_no_loss(stage: Stage, running: Running) -> None:
    await running.until(lambda heard: heard.pictures)
    running.feed.pace(250)
    running.feed.pace(1000)
    await running.until(lambda heard: len(heard.pictures) >= 2)
    assert running.heard.losses == []
