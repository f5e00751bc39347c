from __future__ import annotations

from typing import TYPE_CHECKING

from inferd.tests.tui.pilots import LARGE, monitor, press, text_of, watching
from inferd.tui.bindings import NAMED
from inferd.tui.settings import Settings

if TYPE_CHECKING:
    from inferd.tests.tui.stage import Stage


async def test_it_has_the_keys_of_the_screen_one_comes_from(stage: Stage) -> None:
    async with watching(stage, LARGE) as pilot:
        text = await press(pilot, "3", "question_mark")
        for word in ("On this screen", "load", "unload", "evict now", "Everywhere"):
            assert word in text, word
        assert "copy as command" not in text.split("On this screen")[1].split("Everywhere")[0]
        text = await press(pilot, "end")
        for word in ("Why a request waits", "other models hold the memory", "top.toml"):
            assert word in text, word
        assert "On this screen" not in await press(pilot, "escape")


async def test_it_has_the_keys_that_a_user_has_chosen(stage: Stage) -> None:
    async with watching(stage, LARGE, Settings(keys={"cancel": "ctrl+k"})) as pilot:
        text = await press(pilot, "question_mark")
        line = next(line for line in text.splitlines() if " cancel " in line and "^k" in line)
        assert "cancel" in line


async def test_every_name_that_it_tells_of_may_be_given_another_key(stage: Stage) -> None:
    names = {binding.id for binding in NAMED}
    async with watching(stage, LARGE) as pilot:
        for number in "123456":
            await press(pilot, number)
            told = {active.binding.id for active in pilot.app.screen.active_bindings.values() if active.binding.id}
            assert {name for name in told if not name.startswith("app.")} <= names


async def test_a_viewer_is_not_told_of_what_he_may_not(stage: Stage) -> None:
    async with watching(stage, LARGE, Settings(read_only=True)) as pilot:
        text = await press(pilot, "question_mark")
        assert "priority" not in text_of(monitor(pilot)).split("Everywhere")[0].split("On this screen")[1]
        assert "mark" in text
