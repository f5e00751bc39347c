from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from inferd.tests.tui import samples
from inferd.tests.tui.pilots import LARGE, SMALL, monitor, press, text_of, until, watching

if TYPE_CHECKING:
    from inferd.tests.tui.stage import Stage


@pytest.mark.parametrize("size", [SMALL, LARGE])
async def test_who_waits_and_why_in_one_look(stage: Stage, size: tuple[int, int]) -> None:
    async with watching(stage, size) as pilot:
        text = await press(pilot, "2")
        assert "Waiting 4" in text
        assert "r8f21" not in text
        assert "room" in text
        assert "2-5s" in text
        assert "r8f2c waits: all 2 slots of embed-e5 are taken" in text


async def test_the_reason_is_that_of_the_row_under_the_cursor(stage: Stage) -> None:
    async with watching(stage) as pilot:
        text = await press(pilot, "2", "down", "down")
        assert "r8f2a waits: mistral-7b-q5 needs 5.8 GiB on gpu0" in text
        assert "number 1 of 2 in line for mistral-7b-q5" in text
        await until(pilot, lambda: "taken in as normal" in text_of(monitor(pilot)), "the explanation")


async def test_nobody_waits(stage: Stage) -> None:
    stage.picture = samples.snapshot([samples.request("r1")])
    async with watching(stage) as pilot:
        assert "nobody waits" in await press(pilot, "2")


async def test_moving_one_to_the_front(stage: Stage) -> None:
    async with watching(stage) as pilot:
        await press(pilot, "2", "p", "1")
        await until(pilot, lambda: stage.did("SetPriority"), "the call")
        assert stage.did("SetPriority")[0].request_id == "r8f2c"


async def test_when_the_last_one_has_left_the_reason_goes(stage: Stage) -> None:
    async with watching(stage) as pilot:
        await press(pilot, "2")
        stage.show(samples.snapshot([]))
        await until(pilot, lambda: "nobody waits" in text_of(monitor(pilot)), "an empty queue")
        assert "embed-e5 are taken" not in text_of(monitor(pilot))
