from __future__ import annotations

from textual.app import App, ComposeResult

from inferd.tui.cells import text_of
from inferd.tui.widgets.keys import Keys, Tabs, lay

KEYS = [("x", "cancel", "x"), ("p", "priority", "p"), ("?", "help", "question_mark")]


def test_as_many_keys_as_there_is_room_for() -> None:
    lines, spots = lay(KEYS, 80, 2)
    assert [text_of(line) for line in lines] == [" x cancel  p priority  ? help "]
    assert [key for _, _, key in spots[0]] == ["x", "p", "question_mark"]
    lines, _ = lay(KEYS, 22, 2)
    assert [text_of(line) for line in lines] == [" x cancel  p priority ", " ? help "]
    assert len(lay(KEYS, 11, 2)[0]) == 2


class Bench(App[None]):
    CSS = "Tabs { height: 1; } Keys { height: 2; }"

    def __init__(self) -> None:
        super().__init__()
        self.told: list[object] = []

    def compose(self) -> ComposeResult:
        yield Tabs(("Overview", "Queue"), 0, "─")
        yield Keys()

    def on_keys_pressed(self, event: Keys.Pressed) -> None:
        self.told.append(event.key)

    def on_tabs_pressed(self, event: Tabs.Pressed) -> None:
        self.told.append(event.number)


async def test_a_click_is_a_press() -> None:
    app = Bench()
    async with app.run_test(size=(60, 4)) as pilot:
        app.query_one(Keys).show_keys(KEYS)
        await pilot.pause()
        await pilot.click(Keys, offset=(12, 0))
        await pilot.click(Keys, offset=(50, 0))
        await pilot.click(Keys, offset=(2, 1))
        assert app.told == ["p"]


async def test_a_click_on_a_tab_tells_its_number() -> None:
    app = Bench()
    async with app.run_test(size=(60, 4)) as pilot:
        await pilot.pause()
        await pilot.click(Tabs, offset=(3, 0))
        await pilot.click(Tabs, offset=(16, 0))
        await pilot.click(Tabs, offset=(50, 0))
        assert app.told == [0, 1]
