from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from inferd.tests.tui.pilots import LARGE, SMALL, monitor, press, text_of, until, watching

if TYPE_CHECKING:
    from inferd.tests.tui.stage import Stage


@pytest.mark.parametrize("size", [SMALL, LARGE])
async def test_rates_tokens_and_stalls(stage: Stage, size: tuple[int, int]) -> None:
    async with watching(stage, size) as pilot:
        text = await press(pilot, "6")
        for word in ("Tenants 3", "ide", "48.1", "88,000", "! 1 now"):
            assert word in text, word


async def test_enter_shows_the_requests_of_one(stage: Stage) -> None:
    async with watching(stage) as pilot:
        await press(pilot, "6", "down", "enter")
        await until(pilot, lambda: "2 of 7" in text_of(monitor(pilot)), "the overview")
        text = text_of(monitor(pilot))
        assert "r8f2a" in text
        assert "r8f21" not in text
        assert "only tenant web" in text
        assert "Requests 7" in await press(pilot, "escape")


async def test_a_tenant_is_meant_exactly(stage: Stage) -> None:
    """And not whoever has its name somewhere, such as a class of requests."""
    stage.picture.tenants.add(tenant="batch", running=9)
    async with watching(stage) as pilot:
        await press(pilot, "6", "enter")
        await until(pilot, lambda: "1 of 7" in text_of(monitor(pilot)), "the overview")
        assert "r8f02" in text_of(monitor(pilot))


async def test_sorting_by_a_click_on_a_title(stage: Stage) -> None:
    async with watching(stage, LARGE) as pilot:
        await press(pilot, "6")
        await pilot.click("#table", offset=(3, 0))
        await pilot.pause()
        assert "TENANT▲" in text_of(monitor(pilot))
