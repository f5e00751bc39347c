from __future__ import annotations

from textual.app import App, ComposeResult

from inferd.tui.widgets.finder import FILTER, GO, Finder


class Bench(App[None]):
    def __init__(self) -> None:
        super().__init__()
        self.told: list[object] = []

    def compose(self) -> ComposeResult:
        yield Finder()

    @property
    def finder(self) -> Finder:
        return self.query_one(Finder)

    def on_finder_typed(self, event: Finder.Typed) -> None:
        self.told.append(event.pattern)

    def on_finder_went(self, event: Finder.Went) -> None:
        self.told.append(("went", event.name))

    def on_finder_left(self, event: Finder.Left) -> None:
        self.told.append(("left", event.undo))


async def test_a_filter_works_while_it_is_typed() -> None:
    app = Bench()
    async with app.run_test() as pilot:
        assert not app.finder.display
        app.finder.open(FILTER)
        await pilot.press("w", "e", "enter")
        assert app.told == ["w", "we", ("left", False)]
        assert not app.finder.display


async def test_escape_takes_the_filter_back() -> None:
    app = Bench()
    async with app.run_test() as pilot:
        app.finder.open(FILTER, "web")
        await pilot.pause()
        assert app.finder.value == "web"
        await pilot.press("escape")
        assert app.told == [("left", True)]


async def test_an_id_is_gone_to_when_it_is_entered() -> None:
    app = Bench()
    async with app.run_test() as pilot:
        app.finder.open(GO)
        await pilot.press("r", "8", "space", "enter")
        assert app.told == [("went", "r8"), ("left", False)]


async def test_nothing_entered_is_nowhere_to_go() -> None:
    app = Bench()
    async with app.run_test() as pilot:
        app.finder.open(GO)
        await pilot.press("enter")
        app.finder.open(GO)
        await pilot.press("x", "escape")
        assert app.told == [("left", False), ("left", False)]
