"""Who waits hears of it: at the head of a line each second, far behind less often."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from inferd.daemon.node.news import TOLD_EACH_TICK
from inferd.daemon.node.stream import Queued
from inferd.tests.daemon.node.house import ENDLESS, House, first_text

if TYPE_CHECKING:
    from collections.abc import Callable


async def test_the_head_of_a_line_hears_at_each_tick_and_those_behind_less_often(
    open_house: Callable[..., House],
) -> None:
    house = open_house(options={"slots": 1}, tokens_per_s=100.0)
    await first_text(house.submit(ENDLESS))
    waiting = [house.submit(ENDLESS) for _ in range(3 * TOLD_EACH_TICK)]
    await asyncio.sleep(0)  # their prompts are tokens already, and are taken in at once
    assert all(stream.job.prompt for stream in waiting)
    heard = dict.fromkeys(range(len(waiting)), 0)
    for stream in waiting:
        await stream.take()  # what it was told at its arrival
    for second in range(6):
        house.node.news.tick(float(second))
        for i, stream in enumerate(waiting):
            if stream._events:
                heard[i] += any(isinstance(event, Queued) for event in await stream.take())
    assert {heard[i] for i in range(TOLD_EACH_TICK)} == {6}
    assert {heard[i] for i in range(TOLD_EACH_TICK, 2 * TOLD_EACH_TICK)} == {3}
    assert {heard[i] for i in range(2 * TOLD_EACH_TICK, 3 * TOLD_EACH_TICK)} == {2}
    for job in house.node.jobs:
        house.node.cancel(job.id)
