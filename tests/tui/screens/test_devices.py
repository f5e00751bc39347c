from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from inferd.tests.tui.pilots import LARGE, SMALL, monitor, press, text_of, watching

if TYPE_CHECKING:
    from inferd.tests.tui.stage import Stage


@pytest.mark.parametrize("size", [SMALL, LARGE])
async def test_every_device_with_all_that_is_known(stage: Stage, size: tuple[int, int]) -> None:
    async with watching(stage, size) as pilot:
        text = await press(pilot, "4")
        for word in ("ours 40.0G, others 1.0G", "212 of 300 W", "2505 of 3105 MHz", "throttled: power cap", "not ours"):
            assert word in text, word
        assert "✗ lost" in text


async def test_what_is_below_is_scrolled_to(stage: Stage) -> None:
    async with watching(stage, SMALL) as pilot:
        await press(pilot, "4", "end")
        assert "NUMA node 0: 32 cores" in text_of(monitor(pilot))


async def test_all_of_it_is_copied(stage: Stage) -> None:
    async with watching(stage) as pilot:
        await press(pilot, "4", "y")
        assert "RTX 6000 Ada" in monitor(pilot).clipboard
        assert "NUMA node 0" in monitor(pilot).clipboard
