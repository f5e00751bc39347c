"""What tests of the monitor do with it: wait for something to be so, read the screen, press keys."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any

from inferd.tui.app import Monitor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from textual.pilot import Pilot

    from inferd.tests.tui.stage import Stage
    from inferd.tui.settings import Settings

LIMIT_S = 20.0
SMALL, LARGE = (80, 24), (160, 48)


@contextlib.asynccontextmanager
async def watching(
    stage: Stage, size: tuple[int, int] = SMALL, settings: Settings | None = None
) -> AsyncIterator[Pilot[Any]]:
    """The monitor with its first picture painted."""
    app = Monitor(stage.address, settings)
    async with app.run_test(size=size, notifications=True) as pilot:
        await filled(pilot)
        yield pilot


async def until(pilot: Pilot[Any], holds: Callable[[], object], what: str = "the condition") -> None:
    """Let the app work until something is so."""
    end_s = time.monotonic() + LIMIT_S
    while not holds():
        assert time.monotonic() < end_s, f"{what} did not come within {LIMIT_S:g} s"
        await asyncio.sleep(0.01)
    await pilot.pause()


async def filled(pilot: Pilot[Any]) -> None:
    """The first picture is painted, with all that is asked for beside it."""
    app = pilot.app
    assert isinstance(app, Monitor)
    await until(pilot, lambda: app.state.snapshot and app.state.role and app.state.catalog, "the first picture")
    await until(pilot, lambda: len(app.state.events) >= 4, "the events")
    await until(pilot, lambda: not app.news, "the painting")


def text_of(app: Monitor) -> str:
    """The screen as one reads it."""
    strips = app.screen._compositor.render_strips()
    return "\n".join(strip.text.rstrip() for strip in strips[: app.size.height])


async def press(pilot: Pilot[Any], *keys: str) -> str:
    """Press them, let everything settle, and read the screen."""
    for key in keys:
        await pilot.press(key)
        await pilot.pause()
    return text_of(monitor(pilot))


def monitor(pilot: Pilot[Any]) -> Monitor:
    assert isinstance(pilot.app, Monitor)
    return pilot.app


def told(pilot: Pilot[Any]) -> str:
    """What the monitor has said in passing; on the screen it is wrapped and goes by."""
    return "\n".join(notification.message for notification in monitor(pilot)._notifications)
