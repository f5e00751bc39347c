from __future__ import annotations

from typing import Any

from textual.app import App, ComposeResult

from inferd.tests.tui.test_columns import SHEET, Row
from inferd.tui.lens import Lens
from inferd.tui.symbols import UNICODE
from inferd.tui.widgets.rows import Rows


class Bench(App[None]):
    CSS = "Rows { height: 1fr; }"

    def __init__(self) -> None:
        super().__init__()
        self.told: list[str] = []

    def compose(self) -> ComposeResult:
        yield Rows[Row](SHEET, UNICODE, empty="nothing here")

    @property
    def table(self) -> Rows[Row]:
        return self.query_one(Rows)

    def on_rows_moved(self) -> None:
        current = self.table.current
        self.told.append(current[0] if current else "")

    def on_rows_chosen(self) -> None:
        self.told.append("chosen")

    def on_rows_head_clicked(self, event: Rows.HeadClicked) -> None:
        self.told.append(f"head {event.key}")


def rows(n: int, first: int = 0) -> list[Row]:
    return [(f"row{i}", i) for i in range(first, first + n)]


def shown(app: App[Any]) -> list[str]:
    return [strip.text.rstrip() for strip in app.screen._compositor.render_strips()]


async def test_rows_stand_below_their_titles() -> None:
    async with Bench().run_test(size=(40, 6)) as pilot:
        pilot.app.table.show(rows(2))  # type: ignore[attr-defined]
        await pilot.pause()
        lines = shown(pilot.app)
        assert lines[0].split() == ["NAME", "NOTE", "SIZE"]
        assert lines[1].startswith("▶ row0")
        assert lines[2].startswith("  row1")


async def test_an_empty_table_says_so() -> None:
    async with Bench().run_test(size=(40, 6)) as pilot:
        pilot.app.table.show([])  # type: ignore[attr-defined]
        await pilot.pause()
        assert shown(pilot.app)[1].strip() == "nothing here"


async def test_the_cursor_moves_and_the_view_with_it() -> None:
    app = Bench()
    async with app.run_test(size=(40, 6)) as pilot:
        app.table.show(rows(100))
        await pilot.pause()
        await pilot.press("down", "down", "j", "k")
        assert app.table.current == ("row2", 2)
        await pilot.press("end")
        await pilot.pause()
        assert shown(app)[-1].startswith("▶ row99")
        assert shown(app)[0].split()[0] == "NAME"  # the titles stay
        await pilot.press("pageup")
        assert app.table.current == ("row94", 94)
        await pilot.press("home")
        await pilot.pause()
        assert shown(app)[1].startswith("▶ row0")
        assert app.told[-1] == "row0"


async def test_the_cursor_stays_on_its_row_wherever_that_goes() -> None:
    app = Bench()
    async with app.run_test(size=(40, 8)) as pilot:
        app.table.show(rows(5))
        await pilot.press("down", "down")
        app.table.show([("row2", 9), *rows(2)])
        assert app.table.current == ("row2", 9)
        app.table.show([*rows(3, first=10), ("row2", 9)])
        assert app.table.at == 3


async def test_when_its_row_is_gone_the_cursor_is_on_the_one_in_its_place() -> None:
    app = Bench()
    async with app.run_test(size=(40, 8)) as pilot:
        app.table.show(rows(5))
        await pilot.press("end")
        app.table.show(rows(3))
        await pilot.pause()
        assert app.table.current == ("row2", 2)
        assert app.told[-1] == "row2"
        app.table.show([])
        assert app.table.current is None


async def test_a_thousand_rows_make_no_more_text_than_is_seen() -> None:
    made = []

    def cell(row: Row, _: object) -> tuple[str, str]:
        made.append(row)
        return row[0], ""

    from dataclasses import replace

    app = Bench()
    async with app.run_test(size=(40, 6)) as pilot:
        table = app.table
        table.use(replace(SHEET, columns=(replace(SHEET.columns[0], cell=cell),)))
        table.show(rows(1000))
        await pilot.pause()
        made.clear()
        table.show(rows(1000))
        await pilot.pause()
        assert len(made) <= 5


async def test_clicks_move_choose_and_sort() -> None:
    app = Bench()
    async with app.run_test(size=(40, 8)) as pilot:
        app.table.show(rows(4), Lens("size", True))
        await pilot.pause()
        assert "SIZE▼" in shown(app)[0]
        await pilot.click(Rows, offset=(5, 3))
        assert app.table.at == 2
        await pilot.click(Rows, offset=(5, 3), times=2)
        assert app.told[-1] == "chosen"
        await pilot.click(Rows, offset=(3, 0))
        assert app.told[-1] == "head name"


async def test_marked_rows_show() -> None:
    app = Bench()
    async with app.run_test(size=(40, 8)) as pilot:
        app.table.marks = {"row1"}.__contains__
        app.table.show(rows(3))
        await pilot.pause()
        assert shown(app)[2].startswith(" ◆row1")


async def test_a_table_that_keys_do_not_go_to_has_no_cursor() -> None:
    app = Bench()
    async with app.run_test(size=(40, 8)) as pilot:
        app.table.show(rows(3))
        app.set_focus(None)
        await pilot.pause()
        assert "▶" not in shown(app)[1]


async def test_all_of_it_can_be_selected() -> None:
    app = Bench()
    async with app.run_test(size=(40, 6)) as pilot:
        app.table.show(rows(50))
        await pilot.pause()
        text = app.table.all_text().splitlines()
        assert len(text) == 51
        assert "row49" in text[-1]


async def test_a_row_is_found_by_its_key() -> None:
    app = Bench()
    async with app.run_test(size=(40, 6)) as pilot:
        await pilot.pause()
        app.table.show(rows(50))
        assert app.table.select("row40")
        assert app.table.current == ("row40", 40)
        assert not app.table.select("none")
        await pilot.pause()
