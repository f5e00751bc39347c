from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from textual.app import App

from inferd.tui.widgets.dialogs import Choose, Confirm, Note, Pick

if TYPE_CHECKING:
    from textual.pilot import Pilot
    from textual.screen import ModalScreen

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
        note = Note("Keys", [((f"line {i}", ""),) for i in range(60)])
        assert await answered(pilot, note, "pagedown") is NOTHING
        await pilot.press("escape")
        assert not isinstance(pilot.app.screen, Note)
