from __future__ import annotations

from typing import TYPE_CHECKING

from inferd.daemon.domain.errors import Code
from inferd.daemon.domain.event import Kind
from inferd.tests.daemon.node.house import ENDLESS, SLOW, failure, read

if TYPE_CHECKING:
    from collections.abc import Callable

    from inferd.tests.daemon.node.house import House


async def test_who_is_late_is_told_so(open_house: Callable[..., House]) -> None:
    house = open_house(tokens_per_s=SLOW)
    error = await failure(read(house.submit(ENDLESS, deadline_ms=50)))
    assert (error.code, error.field) == (Code.DEADLINE, "deadline_ms")
    (told,) = house.told(Kind.DEADLINE_MISSED)
    assert "50 ms" in told


async def test_a_timer_ends_with_its_reader(house: House) -> None:
    stream = house.submit(deadline_ms=60_000)
    await read(stream)
    assert len(house.node.deadlines._timers) == 1
    house.node.hang_up(stream)
    assert house.node.deadlines._timers == {}


async def test_most_have_none(house: House) -> None:
    house.submit()
    assert house.node.deadlines._timers == {}
