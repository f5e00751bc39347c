"""The monitor as a whole: keys that work everywhere, what it shows of a daemon that comes and goes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inferd.tests.tui.pilots import LARGE, SMALL, monitor, press, text_of, until, watching

if TYPE_CHECKING:
    from inferd.tests.tui.stage import Stage


async def test_it_says_who_the_daemon_is(stage: Stage) -> None:
    async with watching(stage) as pilot:
        first = text_of(monitor(pilot)).splitlines()[0]
        assert "● serving" in first
        assert "ws1" in first
        assert "operator" in first
