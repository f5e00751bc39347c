from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from textual.app import App
from textual.events import Key

from inferd.tui.widgets.dialogs import Choose, Confirm, Note, Pick

if TYPE_CHECKING:
    from textual.pilot import Pilot
    from textual.screen import ModalScreen

    from inferd.tui.cells import Line

NOTHING = object()


class Bench(App[None]):
    CSS_PATH = None

    def __init__(self) -> None:
        super().__init__()
        self.answer: Any = NOTHING

    def ask(self, question: ModalScreen[Any]) -> None:
        self.push_screen(question, lambda answer: setattr(self, "answer", answer))


async def answered(pilot: Pilot[Any], question: ModalScreen[Any], *keys: str) -> Any:
    app = pilot.app
    assert isinstance(app, Bench)
    app.ask(question)
    await pilot.pause()
    await pilot.press(*keys)
    await pilot.pause()
    return app.answer


@pytest.mark.parametrize(
    ("key", "answer"), [("y", True), ("enter", True), ("n", False), ("escape", False), ("q", False)]
)
async def test_a_question_is_answered_by_one_key(key: str, answer: bool) -> None:
    async with Bench().run_test() as pilot:
        assert await answered(pilot, Confirm("Cancel r1?"), key) is answer


async def test_another_key_is_no_answer() -> None:
    async with Bench().run_test() as pilot:
        assert await answered(pilot, Confirm("Cancel r1?"), "x", "1") is NOTHING


CHOICES = [("interactive", "now"), ("normal", "soon"), ("batch", "later")]


@pytest.mark.parametrize(
    ("keys", "answer"),
    [(("3",), "batch"), (("enter",), "normal"), (("down", "enter"), "batch"), (("escape",), ""), (("7",), NOTHING)],
)
async def test_choosing_by_number_or_by_cursor(keys: tuple[str, ...], answer: object) -> None:
    async with Bench().run_test() as pilot:
        assert await answered(pilot, Choose("Which?", CHOICES, "normal"), *keys) == answer


async def test_picking_several() -> None:
    async with Bench().run_test() as pilot:
        picked = Pick("Which?", CHOICES, frozenset({"normal"}))
        assert await answered(pilot, picked, "space", "enter") == {"interactive", "normal"}


async def test_leaving_a_pick_changes_nothing() -> None:
    async with Bench().run_test() as pilot:
        assert await answered(pilot, Pick("Which?", CHOICES, frozenset()), "space", "escape") is None


async def test_a_note_is_read_and_closed() -> None:
    async with Bench().run_test() as pilot:
        note = Note("Keys", lambda width: [((f"line {i}"[:width], ""),) for i in range(60)])
        assert await answered(pilot, note, "pagedown") is NOTHING
        await pilot.press("escape")
        assert not isinstance(pilot.app.screen, Note)


async def test_keys_that_come_in_a_bunch_answer_once() -> None:
    """Nothing below the question hears the rest of them."""
    async with Bench().run_test() as pilot:
        app = pilot.app
        assert isinstance(app, Bench)
        app.ask(Choose("Which?", CHOICES))
        await pilot.pause()
        for key in "321":
            app.post_message(Key(key, key))
        await pilot.pause()
        assert app.answer == "batch"
        assert len(app.screen_stack) == 1


async def test_a_question_shows_its_details_for_the_width_that_there_is() -> None:
    async with Bench().run_test(size=(60, 24)) as pilot:
        seen: list[int] = []

        def make(width: int) -> list[Line]:
            seen.append(width)
            return [(("x" * width, ""),)]

        assert await answered(pilot, Confirm("Load m?", make), "n") is False
        assert all(0 < width <= 60 for width in seen)
