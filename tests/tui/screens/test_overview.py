from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from textual.events import Key

from inferd.protos import inferd_pb2 as pb
from inferd.tests.tui import samples
from inferd.tests.tui.pilots import LARGE, SMALL, monitor, press, text_of, told, until, watching

if TYPE_CHECKING:
    from inferd.tests.tui.stage import Stage


async def test_at_eighty_columns_it_has_devices_rates_requests_and_models(stage: Stage) -> None:
    async with watching(stage, SMALL) as pilot:
        text = text_of(monitor(pilot))
        for word in (
            "gpu0",
            "61°C",
            "fell off the bus",
            "ttft p50 180ms",
            "r8f21",
            "48.1",
            "room",
            "llama3-70b-q4",
            "pinned",
        ):
            assert word in text, word
        assert "Throughput" not in text


async def test_on_a_small_screen_the_reason_of_the_row_under_the_cursor_stands_above(stage: Stage) -> None:
    async with watching(stage, SMALL) as pilot:
        assert "waits:" not in text_of(monitor(pilot))
        assert "r8f2a waits: mistral-7b-q5 needs 5.8 GiB on gpu0" in await press(pilot, "down", "down", "down")


async def test_on_a_large_screen_it_has_charts_and_events(stage: Stage) -> None:
    async with watching(stage, LARGE) as pilot:
        text = text_of(monitor(pilot))
        for word in (
            "Throughput", "out 148 tok/s   in 2100 tok/s", "Devices", "Requests 7", "Models", "Events",
            "needs 5.8 GiB on", "12:00:03 ✗", "per token p50 21ms",
        ):  # fmt: skip
            assert word in text, word


async def test_g_hides_the_charts_and_brings_them_back(stage: Stage) -> None:
    async with watching(stage, LARGE) as pilot:
        assert "Throughput" not in await press(pilot, "g")
        assert "gpu0" in text_of(monitor(pilot))
        assert "Throughput" in await press(pilot, "g")


@pytest.mark.parametrize("size", [SMALL, LARGE])
async def test_a_filter_and_a_sort_show_and_go(stage: Stage, size: tuple[int, int]) -> None:
    async with watching(stage, size) as pilot:
        text = await press(pilot, "slash", *"nightly", "enter")
        assert "2 of 7" in text
        assert "r8f21" not in text
        assert "r8ef0" in text
        assert "Requests 7" in await press(pilot, "escape")
        text = await press(pilot, "s", "s")
        assert "sorted by class ▲" in text
        assert "sorted by class ▼" in await press(pilot, "S")


async def test_a_broken_filter_says_so_and_hides_nothing(stage: Stage) -> None:
    async with watching(stage) as pilot:
        text = await press(pilot, "slash", "(", "r")
        assert "missing" in text
        assert "r8f21" in text


@pytest.mark.parametrize("size", [SMALL, LARGE])
async def test_cancelling_what_runs_asks_once(stage: Stage, size: tuple[int, int]) -> None:
    async with watching(stage, size) as pilot:
        assert "Cancel r8f21?" in await press(pilot, "x")
        await press(pilot, "n")
        assert stage.did("Cancel") == []
        await press(pilot, "x", "y")
        await until(pilot, lambda: stage.did("Cancel"), "the call")
        assert stage.did("Cancel")[0].request_id == "r8f21"
        await until(pilot, lambda: "r8f21 is cancelled" in told(pilot), "the answer")


async def test_cancelling_what_waits_asks_nothing(stage: Stage) -> None:
    async with watching(stage) as pilot:
        await press(pilot, "down", "down", "down", "x")
        await until(pilot, lambda: stage.did("Cancel"), "the call")
        assert stage.did("Cancel")[0].request_id == "r8f2a"


async def test_marked_ones_are_acted_on_together(stage: Stage) -> None:
    async with watching(stage) as pilot:
        text = await press(pilot, "m", "m")
        assert "2 marked" in text
        assert "Cancel 2 requests? 2 of them run." in await press(pilot, "x")
        await press(pilot, "y")
        await until(pilot, lambda: len(stage.did("Cancel")) == 2, "both calls")
        assert {request.request_id for request in stage.did("Cancel")} == {"r8f21", "r8f1e"}
        assert "marked" not in text_of(monitor(pilot))


async def test_a_mark_goes_with_its_request(stage: Stage) -> None:
    async with watching(stage) as pilot:
        await press(pilot, "m")
        stage.show(samples.snapshot(samples.requests()[1:]))
        await until(pilot, lambda: not monitor(pilot).marks, "the mark to go")


async def test_changing_the_class(stage: Stage) -> None:
    async with watching(stage) as pilot:
        assert "Which class should r8f21 be in?" in await press(pilot, "p")
        await press(pilot, "3")
        await until(pilot, lambda: stage.did("SetPriority"), "the call")
        assert stage.did("SetPriority")[0].priority == pb.BATCH


async def test_choosing_columns(stage: Stage) -> None:
    async with watching(stage) as pilot:
        assert "TENANT" in text_of(monitor(pilot))
        await press(pilot, "c", "down", "down", "down", "space", "enter")
        assert "TENANT" not in text_of(monitor(pilot))


async def test_copying_an_id_and_a_command(stage: Stage) -> None:
    async with watching(stage) as pilot:
        await press(pilot, "y")
        assert monitor(pilot).clipboard == "r8f21"
        await press(pilot, "Y")
        assert monitor(pilot).clipboard.startswith("grpcurl -plaintext")
        assert '"model": "qwen2.5-7b-q4"' in monitor(pilot).clipboard


async def test_enter_and_a_double_click_show_one_request(stage: Stage) -> None:
    async with watching(stage) as pilot:
        assert "What was decided about it" in await press(pilot, "enter")
        await press(pilot, "escape")
        await pilot.click("#table", offset=(5, 4), times=2)
        await pilot.pause()
        assert "r8f2a waits: mistral-7b-q5 needs" in text_of(monitor(pilot))


async def test_without_requests_it_says_what_to_try(stage: Stage) -> None:
    stage.picture = samples.snapshot([])
    async with watching(stage) as pilot:
        assert "inferd run demo" in text_of(monitor(pilot))
        await press(pilot, "x", "p", "m", "y", "enter")  # there is nothing to act on
        assert stage.asked == []


async def test_the_table_of_models_takes_no_keys_and_no_clicks(stage: Stage) -> None:
    async with watching(stage, LARGE) as pilot:
        await pilot.click("#models", offset=(5, 2), times=2)
        await press(pilot, "tab")
        assert pilot.app.focused is pilot.app.screen.query_one("#table")
        assert len(pilot.app.screen_stack) == 2


async def test_a_row_that_has_just_left_under_the_cursor_is_asked_about(stage: Stage) -> None:
    waiting = [samples.request(f"w{i}", "queued", position=i) for i in range(3)]
    stage.picture = samples.snapshot(waiting)
    async with watching(stage) as pilot:
        stage.show(samples.snapshot(waiting[1:]))
        await until(pilot, lambda: "w0" not in text_of(monitor(pilot)), "its leaving")
        assert "Cancel w1?" in await press(pilot, "x")
        assert stage.asked == []


async def test_a_double_click_selects_no_text(stage: Stage) -> None:
    async with watching(stage) as pilot:
        await pilot.click("#table", offset=(5, 2), times=2)
        await press(pilot, "escape", "y")
        assert monitor(pilot).clipboard == "r8f1e"


async def test_a_selection_that_begins_below_the_rows_is_no_text(stage: Stage) -> None:
    async with watching(stage, LARGE) as pilot:
        await pilot.mouse_down("#table", offset=(4, 10))
        await pilot.hover("#table", offset=(9, 11))
        await pilot.mouse_up("#table", offset=(9, 11))
        await press(pilot, "y")
        assert monitor(pilot).clipboard == "r8f21"


async def test_marks_that_are_not_seen_do_not_pass_for_the_row_under_the_cursor(stage: Stage) -> None:
    async with watching(stage) as pilot:
        await press(pilot, "m", "2")
        assert "Cancel r8f2c?" in await press(pilot, "x")
        assert stage.asked == []


async def test_a_key_typed_right_after_the_filter_is_for_the_table(stage: Stage) -> None:
    async with watching(stage) as pilot:
        await press(pilot, "slash", *"nightly")
        for key in ("enter", "x"):
            monitor(pilot).post_message(Key(key, key if len(key) == 1 else None))
        await until(pilot, lambda: "Cancel r8ef0?" in text_of(monitor(pilot)), "the question")


async def test_a_click_into_the_table_closes_the_filter_line_and_keeps_the_filter(stage: Stage) -> None:
    async with watching(stage) as pilot:
        await press(pilot, "slash", *"nightly")
        await pilot.click("#table", offset=(5, 1))
        await pilot.pause()
        assert not pilot.app.screen.query_one("#finder").display
        assert "2 of 7" in text_of(monitor(pilot))


async def test_the_last_mark_shows_at_once(stage: Stage) -> None:
    async with watching(stage) as pilot:
        assert "1 marked" in await press(pilot, "space", "end", "m")


async def test_what_is_typed_before_the_line_is_there_does_nothing_else(stage: Stage) -> None:
    async with watching(stage) as pilot:
        for key in ("slash", *"cxdq"):
            monitor(pilot).post_message(Key(key, "/" if key == "slash" else key))
        await until(pilot, lambda: pilot.app.screen.query_one("#finder").has_focus, "the line")
        assert len(pilot.app.screen_stack) == 2
        assert stage.asked == []
