from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from inferd.tests.tui import samples
from inferd.tests.tui.pilots import LARGE, SMALL, monitor, press, text_of, until, watching

if TYPE_CHECKING:
    from inferd.tests.tui.stage import Stage


@pytest.mark.parametrize("size", [SMALL, LARGE])
async def test_what_happened_with_time_and_level(stage: Stage, size: tuple[int, int]) -> None:
    async with watching(stage, size) as pilot:
        text = await press(pilot, "5")
        for word in ("Events 4", "follows", "12:00:00", "● info", "! warning", "✗ error", "device_lost"):
            assert word in text, word


async def test_a_level_hides_what_is_less(stage: Stage) -> None:
    async with watching(stage) as pilot:
        text = await press(pilot, "5", "v")
        assert "level warning" in text
        assert "model_ready" not in text
        assert "preempted" not in await press(pilot, "v")
        assert "model_ready" in await press(pilot, "v")


async def test_it_follows_until_one_looks_back(stage: Stage) -> None:
    stage.happened = [samples.event(i, f"number {i} happened") for i in range(1, 60)]
    async with watching(stage) as pilot:
        assert "number 59 happened" in await press(pilot, "5")
        stage.happen(samples.event(60, "number 60 happened"))
        await until(pilot, lambda: "number 60 happened" in text_of(monitor(pilot)), "the new one")
        assert "stands still" in await press(pilot, "home")
        stage.happen(samples.event(61, "number 61 happened"))
        await until(pilot, lambda: len(monitor(pilot).state.events) == 61, "one more")
        assert "number 1 happened" in text_of(monitor(pilot))
        assert "number 61 happened" in await press(pilot, "f")


async def test_a_filter_finds_a_request(stage: Stage) -> None:
    async with watching(stage) as pilot:
        text = await press(pilot, "5", "slash", *"r8ef0", "enter")
        assert "1 of 4" in text
        assert "makes way" in text


async def test_the_whole_sentence_and_copying_it(stage: Stage) -> None:
    async with watching(stage) as pilot:
        text = await press(pilot, "5", "up", "enter")
        assert "the worker of phi4-q4 ended while loading (signal SIGABRT)" in " ".join(text.split())
        await press(pilot, "escape", "y")
        assert monitor(pilot).clipboard.startswith("12:00:02 error worker_crashed: ")


async def test_the_wheel_looks_back_too(stage: Stage) -> None:
    stage.happened = [samples.event(i, f"number {i} happened") for i in range(1, 60)]
    async with watching(stage) as pilot:
        await press(pilot, "5")
        table = pilot.app.screen.query_one("#table")
        table.scroll_to(y=0, animate=False, immediate=True)
        stage.happen(samples.event(60, "number 60 happened"))
        await until(pilot, lambda: "stands still" in text_of(monitor(pilot)), "an end of following")
        assert "number 1 happened" in text_of(monitor(pilot))
