from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from inferd.daemon.domain.event import Kind
from inferd.daemon.policy.vitals import STALL_S
from inferd.tests.daemon.node.house import ENDLESS, LIMIT_S, SLOW, first_text

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

    from inferd.tests.daemon.node.house import House


async def test_a_daemon_that_does_nothing_is_well(house: House) -> None:
    house.node.health.look(time.monotonic())
    assert (house.node.health.serving, house.node.health.progressing) == (True, True)
    assert house.node.health.line() == "0 models loaded, 0 requests running, 0 waiting"


async def test_the_line_says_what_is_going_on(open_house: Callable[..., House]) -> None:
    house = open_house(tokens_per_s=SLOW, options={"slots": 1})
    running = house.submit(ENDLESS)
    await first_text(running)
    house.submit(ENDLESS)
    house.node.controls.drain(True)
    house.node.health.config_error = "bad"
    line = house.node.health.line()
    assert line == "1 models loaded, 1 requests running, 1 waiting; draining; the last config was refused"


def _then(method: Callable[..., Any], and_then: Callable[[], None]) -> Callable[..., Any]:
    def both(*args: Any) -> Any:
        done = method(*args)
        and_then()
        return done

    return both


async def test_a_scheduler_that_stalls_is_told_of_until_it_goes_on(
    open_house: Callable[..., House], monkeypatch: pytest.MonkeyPatch
) -> None:
    house = open_house()
    node, changes = house.node, []
    await house.load()
    node.health.on_change = lambda: changes.append(node.health.serving)
    monkeypatch.setattr(node.scheduler.slots, "fill", lambda *_: [])  # it forgets to
    stream = house.submit()
    prepared = asyncio.Event()
    monkeypatch.setattr(node.scheduler, "on_prepared", _then(node.scheduler.on_prepared, prepared.set))
    async with asyncio.timeout(LIMIT_S):
        await prepared.wait()
    assert stream.job.prompt is not None
    now_s = time.monotonic()
    node.health.look(now_s)
    assert node.health.progressing
    node.health.look(now_s + STALL_S)
    assert (node.health.serving, node.health.progressing, changes) == (False, False, [False])
    assert "stalled: alpha" in node.health.line()
    monkeypatch.undo()
    node.look_again()
    node.health.look(now_s + STALL_S + 1)
    assert (node.health.serving, changes) == (True, [False, True])
    assert len(house.told(Kind.SCHEDULER_STALLED)) == len(house.told(Kind.SCHEDULER_RECOVERED)) == 1


async def test_a_model_whose_device_is_lost_and_which_fits_nowhere_else(open_house: Callable[..., House]) -> None:
    house = open_house(gpus=1)
    await house.load()
    house.node.fleet.lose(["gpu0"])
    await house.until(lambda: "alpha@gpu0" not in house.node.fleet.residents)  # all that was there is gone
    house.node.health.look(time.monotonic())
    assert (house.node.health.lost, house.node.health.serving) == ((), True)  # the processor takes it
    house.node.ledger.pools["host"].budget = 0
    house.node.health.look(time.monotonic())
    assert (house.node.health.lost, house.node.health.serving, house.node.health.progressing) == (
        ("alpha",),
        False,
        True,
    )
    house.node.ledger.pools["host"].budget = None
    house.node.health.look(time.monotonic())
    assert house.node.health.serving
