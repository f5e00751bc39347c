from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from inferd.tests.tui import samples
from inferd.tests.tui.pilots import LARGE, SMALL, monitor, press, text_of, told, until, watching
from inferd.tui.bindings import NAMES
from inferd.tui.screens.models import Models

if TYPE_CHECKING:
    from inferd.tests.tui.stage import Stage


@pytest.mark.parametrize("size", [SMALL, LARGE])
@pytest.mark.parametrize("number", range(1, 7))
async def test_every_screen_has_title_tabs_and_keys(stage: Stage, size: tuple[int, int], number: int) -> None:
    async with watching(stage, size) as pilot:
        lines = (await press(pilot, str(number))).splitlines()
        assert "● serving" in lines[0]
        assert any(f"[{number}]{NAMES[number - 1]}" in line for line in lines)
        assert "? help" in " ".join(lines[-2:])
        assert all(len(line) <= size[0] for line in lines)


@pytest.mark.parametrize("size", [(59, 24), (80, 19), (10, 5), (60, 15)])
async def test_below_sixty_by_twenty_there_is_a_card(stage: Stage, size: tuple[int, int]) -> None:
    async with watching(stage, size) as pilot:
        text = text_of(monitor(pilot))
        assert "too small" in text
        assert "r8f21" not in text
        for key in "23456":
            await press(pilot, key)


async def test_it_grows_and_shrinks_under_way(stage: Stage) -> None:
    async with watching(stage, SMALL) as pilot:
        await pilot.resize_terminal(50, 15)
        await pilot.pause()
        assert "too small" in text_of(monitor(pilot))
        assert "50 and 15" in " ".join(text_of(monitor(pilot)).split())
        await pilot.resize_terminal(*LARGE)
        await until(pilot, lambda: "Throughput" in text_of(monitor(pilot)), "the large one")


async def test_tabs_and_keys_can_be_clicked(stage: Stage) -> None:
    async with watching(stage) as pilot:
        await pilot.click("#tabs", offset=(28, 0))
        await pilot.pause()
        assert "Models 7" in text_of(monitor(pilot))
        keys = next(line for line in text_of(monitor(pilot)).splitlines() if "i pin" in line)
        await pilot.click("#keys", offset=(keys.index("i pin"), 0))
        await until(pilot, lambda: stage.did("Pin"), "the call")


async def test_go_to_finds_requests_by_their_beginning_and_models(stage: Stage) -> None:
    async with watching(stage) as pilot:
        await press(pilot, "colon", *"r8f2a", "enter")
        await until(pilot, lambda: "r8f2a waits" in text_of(monitor(pilot)), "the request")
        await press(pilot, "escape", "colon", *"mistral-7b-q5", "enter")
        await until(pilot, lambda: "Models 7" in text_of(monitor(pilot)), "the model")
        screen = pilot.app.screen
        assert isinstance(screen, Models)
        assert screen.table.current is not None
        assert screen.table.current.name == "mistral-7b-q5"
        await press(pilot, "colon", *"nobody", "enter")
        await until(pilot, lambda: "no model nobody" in told(pilot), "the complaint")


async def test_after_the_card_keys_go_to_the_table_again(stage: Stage) -> None:
    async with watching(stage, SMALL) as pilot:
        await pilot.resize_terminal(50, 15)
        await pilot.pause()
        await press(pilot, "x", "p")
        assert stage.asked == []
        assert len(pilot.app.screen_stack) == 2
        await pilot.resize_terminal(*SMALL)
        await pilot.pause()
        assert "▶ r8f1e" in await press(pilot, "down")


async def test_a_name_that_looks_like_markup_is_only_a_name(stage: Stage) -> None:
    stage.picture = samples.snapshot([samples.request("[/x][b]", why_text="[/")])
    async with watching(stage, LARGE) as pilot:
        assert "[/x][b]" in await press(pilot, "enter")
        text = await press(pilot, "escape", "slash", *"[/", "enter")
        assert "filter /[/" in text
