"""Two workers of one model on two GPUs: what one loses the other goes on with."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import msgspec
import pytest

from inferd.daemon.domain.errors import InferdError
from inferd.daemon.domain.event import Kind
from inferd.daemon.domain.model import ModelState
from inferd.daemon.node.stream import Resumed, Started
from inferd.tests.daemon.node.house import (
    ENDLESS,
    SLOW,
    House,
    finished,
    first_text,
    read,
    tokens,
    what_the_fake_says,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from inferd.daemon.node.stream import Stream, StreamEvent

    Open = Callable[..., House]

A, B = "alpha@gpu0", "alpha@gpu1"


async def two_copies(
    open_house: Open, said: str = "fake:tokens=150"
) -> tuple[House, list[Stream], list[list[StreamEvent]]]:
    """A worker on each GPU, and one answer on its way in each."""
    house = open_house(gpus=2, tokens_per_s=SLOW, options={"slots": 1, "replicas": 2})
    streams = [house.submit(said), house.submit(f"{said} ")]
    events = [await first_text(stream) for stream in streams]
    assert [stream.job.place for stream in streams] == [A, B]
    return house, streams, events


def resumed(events: list[StreamEvent]) -> list[str]:
    return [event.why for event in events if isinstance(event, Resumed)]


async def test_two_copies_are_two_workers_on_two_devices(open_house: Open) -> None:
    house, streams, events = await two_copies(open_house)
    residents = list(house.deployment().residents.values())
    assert [r.model.plan.devices for r in residents] == [("gpu0",), ("gpu1",)]
    assert len({r.model.pid for r in residents}) == 2
    assert set(house.node.ledger.reservations) == {A, B}
    told = [next(event for event in one if isinstance(event, Started)).device for one in events]
    assert told == ["fake on gpu0", "fake on gpu1"]
    for stream, one in zip(streams, events, strict=True):
        assert tokens(one + await read(stream)) == what_the_fake_says(stream.job)


async def test_a_lost_device_moves_what_ran_there_token_for_token(open_house: Open) -> None:
    house, streams, events = await two_copies(open_house)
    pid = house.node.fleet.residents[A].model.pid
    house.node.fleet.lose(["gpu0"])
    assert house.deployment().state is ModelState.READY
    for stream, one in zip(streams, events, strict=True):
        one += await read(stream)
        assert tokens(one) == what_the_fake_says(stream.job)
    assert [resumed(one) for one in events] == [["device_lost"], []]
    assert house.node.meter.total.wasted_tokens["device_lost"] > 0
    await house.until(lambda: A not in house.node.fleet.residents)
    with pytest.raises(ProcessLookupError):
        os.kill(pid or 0, 0)
    assert list(house.node.ledger.reservations) == [B]
    assert "gpu0" not in house.node.fleet.gpus


async def test_with_every_gpu_lost_the_processor_goes_on(open_house: Open) -> None:
    house, streams, events = await two_copies(open_house)
    house.node.fleet.lose(["gpu0", "gpu1"])
    for stream, one in zip(streams, events, strict=True):
        one += await read(stream)
        assert tokens(one) == what_the_fake_says(stream.job)
        assert resumed(one) == ["device_lost"]
    await house.until(lambda: list(house.node.fleet.residents) == ["alpha@cpu"])
    assert house.resident().model.plan.devices == ()


async def test_a_device_that_nobody_uses_may_be_lost_as_well(open_house: Open) -> None:
    house = open_house(gpus=2, options={"slots": 1})
    await house.load()
    house.node.fleet.lose(["gpu1", "gpu9"])
    assert list(house.node.fleet.residents) == [A]
    assert await house.answer()
    house.node.fleet.lose(["gpu1"])
    assert house.told(Kind.DEVICE_LOST) == ["gpu1 is lost; what ran there moves"]


async def test_a_device_lost_under_a_load_has_it_begin_elsewhere(open_house: Open) -> None:
    house = open_house(gpus=2, load_s=30.0)
    waits = house.submit()
    await house.until(lambda: house.node.fleet.residents[A].model.pid is not None)
    other = house.node.fleet.residents[B]
    other.plan = other.model.plan = msgspec.structs.replace(other.plan, fake_load_s=0.0)
    house.node.fleet.lose(["gpu0"])
    assert finished(await read(waits)).completion_tokens == 3
    assert waits.job.place == B


async def test_both_copies_may_crash(open_house: Open) -> None:
    house, streams, events = await two_copies(open_house, "fake:tokens=200")
    for place in (A, B):
        os.kill(house.node.fleet.residents[place].model.pid or 0, signal.SIGKILL)
    for stream, seen in zip(streams, events, strict=True):
        seen += await read(stream)
        assert tokens(seen) == what_the_fake_says(stream.job)
        assert resumed(seen) == ["worker_crashed"]


async def test_unloading_ends_every_copy(open_house: Open) -> None:
    house, streams, _ = await two_copies(open_house, ENDLESS)
    assert await house.node.wishes.unload("alpha", force=True)
    assert house.node.ledger.reservations == {}
    for stream in streams:
        with pytest.raises(InferdError, match="alpha was unloaded"):
            await read(stream)


async def test_a_crash_is_survived_where_there_is_another_place_to_go(open_house: Open) -> None:
    house = open_house(gpus=2, tokens_per_s=SLOW, options={"slots": 1})
    stream = house.submit("fake:tokens=100")
    events = await first_text(stream)
    os.kill(house.resident().model.pid or 0, signal.SIGKILL)
    events += await read(stream)
    assert tokens(events) == what_the_fake_says(stream.job)
    assert resumed(events) == ["worker_crashed"]
