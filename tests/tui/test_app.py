"""The monitor as a whole: keys that work everywhere, and a daemon that comes and goes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from textual.events import Key

from inferd.protos import inferd_pb2 as pb
from inferd.tests.tui import samples
from inferd.tests.tui.pilots import LARGE, SMALL, monitor, press, text_of, until, watching
from inferd.tui import app as apps
from inferd.tui import feed
from inferd.tui.app import BLURRED_MS, Monitor
from inferd.tui.screens.overview import Overview
from inferd.tui.settings import THEMES, Settings

if TYPE_CHECKING:
    from inferd.tests.tui.stage import Stage


async def test_it_says_who_the_daemon_is(stage: Stage) -> None:
    async with watching(stage) as pilot:
        first = text_of(monitor(pilot)).splitlines()[0]
        for word in ("● serving", "ws1", "operator", "1s ▲ live"):
            assert word in first


async def test_figures_change_with_the_daemon(stage: Stage) -> None:
    async with watching(stage) as pilot:
        rows = samples.requests()
        rows[0].tokens = 999
        stage.show(samples.snapshot(rows))
        await until(pilot, lambda: "999" in text_of(monitor(pilot)), "the new figure")


async def test_space_freezes_the_view_and_lets_it_go(stage: Stage) -> None:
    async with watching(stage) as pilot:
        assert "frozen" in await press(pilot, "space")
        stage.show(samples.snapshot([]))
        await until(pilot, lambda: not monitor(pilot).state.snapshot.requests, "the new picture")  # type: ignore[union-attr]
        assert "r8f21" in text_of(monitor(pilot))
        assert "r8f21" not in await press(pilot, "space")


@pytest.mark.parametrize("size", [SMALL, LARGE])
async def test_a_daemon_that_goes_leaves_a_banner_and_its_last_words(
    stage: Stage, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "BACK_OFF_S", (0.2,))
    async with watching(stage, size) as pilot:
        stage.stop()
        await until(pilot, lambda: "what you see is" in text_of(monitor(pilot)), "the banner")
        text = text_of(monitor(pilot))
        assert "✗ lost" in text
        assert "r8f21" in text
        table = pilot.app.screen.query_one("#table")
        assert table.stale  # type: ignore[attr-defined]
        stage.show(samples.snapshot([]))
        stage.start()
        await until(pilot, lambda: "inferd run demo" in text_of(monitor(pilot)), "the daemon's return")
        assert "what you see is" not in text_of(monitor(pilot))
        assert not table.stale  # type: ignore[attr-defined]


async def test_without_a_daemon_it_waits_for_one(quiet_stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "BACK_OFF_S", (0.2,))
    app = Monitor(quiet_stage.address)
    async with app.run_test(size=SMALL) as pilot:
        await until(pilot, lambda: "no daemon" in text_of(app), "the banner")
        for key in "23456?":
            await pilot.press("question_mark" if key == "?" else key)
        await pilot.press("escape", "1")
        quiet_stage.start()
        await until(pilot, lambda: "r8f21" in text_of(app), "the daemon")


async def test_plus_and_minus_change_the_pace(stage: Stage) -> None:
    async with watching(stage) as pilot:
        assert "0.5s" in await press(pilot, "plus")
        await until(pilot, lambda: stage.intervals[-1] == 500, "the new stream")
        await press(pilot, "minus", "minus", "minus")
        await until(pilot, lambda: stage.intervals[-1] == 2000, "the new stream")
        assert "2s ▲" in text_of(monitor(pilot))


async def test_while_nobody_types_here_it_looks_less_often(stage: Stage) -> None:
    async with watching(stage) as pilot:
        pilot.app.app_focus = False
        await until(pilot, lambda: stage.intervals[-1] == BLURRED_MS, "the slower stream")
        pilot.app.app_focus = True
        await until(pilot, lambda: stage.intervals[-1] == 1000, "the old pace")


async def test_themes_are_gone_through(stage: Stage) -> None:
    async with watching(stage) as pilot:
        seen = []
        for _ in THEMES:
            await press(pilot, "T")
            seen.append(monitor(pilot).theme)
            assert "r8f21" in text_of(monitor(pilot))
        assert seen == [*THEMES[1:], THEMES[0]]


async def test_draining_asks_and_turns_back(stage: Stage) -> None:
    async with watching(stage) as pilot:
        assert "Drain:" in await press(pilot, "d")
        await press(pilot, "y")
        await until(pilot, lambda: stage.did("Drain"), "the call")
        assert stage.did("Drain")[0].draining
        draining = samples.snapshot()
        draining.state = "draining"
        stage.show(draining)
        await until(pilot, lambda: "! draining" in text_of(monitor(pilot)), "the state")
        assert "Take new requests in again?" in await press(pilot, "d")
        await press(pilot, "y")
        await until(pilot, lambda: len(stage.did("Drain")) == 2, "the call")
        assert not stage.did("Drain")[1].draining


@pytest.mark.parametrize("how", ["role", "option"])
async def test_who_may_only_look_has_no_keys_to_act(stage: Stage, how: str) -> None:
    stage.role = "viewer" if how == "role" else "operator"
    async with watching(stage, SMALL, Settings(read_only=how == "option")) as pilot:
        text = text_of(monitor(pilot))
        assert "read-only" in text
        assert "x cancel" not in text
        await press(pilot, "x", "p", "d", "3", "l", "u", "e", "i")
        assert stage.asked == []
        assert len(pilot.app.screen_stack) == 2


async def test_keys_can_be_other_ones(stage: Stage) -> None:
    async with watching(stage, SMALL, Settings(keys={"cancel": "ctrl+k", "screen_3": "f3"})) as pilot:
        assert "Cancel" not in await press(pilot, "x")
        assert "Cancel r8f21?" in await press(pilot, "ctrl+k")
        await press(pilot, "n")
        assert "Models 7" in await press(pilot, "f3")


async def test_the_palette_has_what_works_here(stage: Stage) -> None:
    async with watching(stage) as pilot:
        commands = {command.title: command for command in monitor(pilot).get_system_commands(pilot.app.screen)}
        assert {"cancel", "priority", "drain", "freeze", "theme", "filter"} <= set(commands)
        commands["freeze"].callback()
        await until(pilot, lambda: monitor(pilot).frozen is not None, "the command")


@pytest.mark.parametrize("size", [SMALL, LARGE])
async def test_ascii_has_nothing_else(stage: Stage, size: tuple[int, int]) -> None:
    async with watching(stage, size, Settings(ascii=True)) as pilot:
        for key in "123456?":
            text = await press(pilot, "question_mark" if key == "?" else key)
            assert text.isascii(), key


async def test_text_that_is_selected_is_copied_first(stage: Stage) -> None:
    async with watching(stage) as pilot:
        await pilot.mouse_down("#table", offset=(2, 1))
        await pilot.hover("#table", offset=(7, 1))
        await pilot.mouse_up("#table", offset=(7, 1))
        await pilot.pause()
        selected = pilot.app.screen.get_selected_text()
        assert selected
        await press(pilot, "y")
        assert monitor(pilot).clipboard == selected


async def test_thousands_of_events_are_painted_together(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.happened = [samples.event(i, f"number {i}") for i in range(1, 2001)]
    painted: list[None] = []
    show = Overview.show
    monkeypatch.setattr(Overview, "show", lambda screen: painted.append(show(screen)))
    async with watching(stage) as pilot:
        await until(pilot, lambda: len(monitor(pilot).state.events) == 2000, "all of them")
    assert len(painted) < 60


async def test_odd_figures_end_nothing(stage: Stage) -> None:
    odd = samples.snapshot()
    odd.rates.generation_tokens_per_s = float("nan")
    odd.rates.ttft_p50_ms = float("inf")
    odd.uptime_s = float("inf")
    odd.devices[1].utilization = float("nan")
    odd.requests[0].age_ms = float("inf")
    odd.models.add(name="x\x1b[2J\n日本", state="unheard-of")
    stage.picture = odd
    stage.happened = [
        *samples.events(),
        pb.Event(sequence=999, unix_s=1e20, severity="fatal", kind="\n", message="\x1b"),
    ]
    async with watching(stage, LARGE) as pilot:
        for key in "123456":
            assert "\x1b" not in await press(pilot, key)


async def test_what_was_asked_for_in_the_last_moment_is_still_sent(stage: Stage) -> None:
    async with watching(stage) as pilot:
        await press(pilot, "x")
        for key in "yq":
            monitor(pilot).post_message(Key(key, key))
        await until(pilot, lambda: not monitor(pilot).is_running or stage.did("Cancel"), "the end")
    assert stage.did("Cancel")


async def test_leaving_while_screens_are_made_in_advance_is_no_failure(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apps, "BUILD_S", 0.01)
    for _ in range(3):
        async with watching(stage) as pilot:
            await press(pilot, "q")
        assert pilot.app.return_code in (0, None)
