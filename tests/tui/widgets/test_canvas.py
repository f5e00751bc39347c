from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st
from textual.app import App, ComposeResult
from textual.geometry import Offset, Region
from textual.selection import Selection

from inferd.tui.cells import Line, width_of
from inferd.tui.widgets.canvas import Lines, changes

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pytest

CELLS = st.tuples(st.text("ab█日", max_size=5), st.sampled_from(["", "ok"]))
LINES = st.lists(CELLS, max_size=5).map(tuple)


def signs(line: Line) -> list[tuple[str, str]]:
    """What is in each cell of the terminal; of a wide sign its second half, too."""
    found = []
    for text, style in line:
        for sign in text:
            found += [(sign, style)] * (1 if width_of(((sign, ""),)) == 1 else 2)
    return found


@given(LINES, LINES)
def test_every_cell_that_differs_is_painted(old: Line, new: Line) -> None:
    width = max(width_of(old), width_of(new), 1)
    regions = list(changes(old, new, 0, width))
    before, after = signs(old), signs(new)
    before += [(" ", "")] * (width - len(before))
    after += [(" ", "")] * (width - len(after))
    for x, (a, b) in enumerate(zip(before, after, strict=True)):
        if a != b:
            assert any(region.contains(x, 0) for region in regions), x


def test_only_the_figures_that_changed_are_painted() -> None:
    old: Line = (("r1", "value"), (" ", ""), (" 411", ""), (" ", ""), ("48.1", ""))
    new: Line = (("r1", "value"), (" ", ""), (" 412", ""), (" ", ""), ("48.1", ""))
    assert list(changes(old, new, 3, 80)) == [Region(6, 3, 1, 1)]


def test_another_style_or_width_is_painted_whole() -> None:
    assert list(changes((("ab", ""),), (("ab", "ok"),), 0, 80)) == [Region(0, 0, 2, 1)]
    assert list(changes((("ab", ""),), (("abc", ""),), 0, 80)) == [Region(0, 0, 80, 1)]
    assert list(changes(None, (("ab", ""),), 0, 80)) == [Region(0, 0, 80, 1)]
    assert list(changes((("ab", ""),), (("ab", ""),), 0, 80)) == []


class Bench(App[None]):
    CSS = "#auto { height: auto; } #rest { height: 1fr; }"

    def compose(self) -> ComposeResult:
        yield Lines(id="auto")
        yield Lines(id="rest")


def shown(app: App[None]) -> list[str]:
    return [strip.text.rstrip() for strip in app.screen._compositor.render_strips()]


def lines(*texts: str) -> Sequence[Line]:
    return [((text, ""),) for text in texts]


async def test_it_is_as_high_as_its_lines() -> None:
    async with Bench().run_test(size=(20, 6)) as pilot:
        auto, rest = pilot.app.query_one("#auto", Lines), pilot.app.query_one("#rest", Lines)
        auto.show(lines("one", "two"))
        rest.show(lines("below"))
        await pilot.pause()
        assert shown(pilot.app)[:3] == ["one", "two", "below"]
        auto.show(lines("one"))
        await pilot.pause()
        assert shown(pilot.app)[:2] == ["one", "below"]


async def test_what_changes_is_seen_and_nothing_else_is_painted(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Bench().run_test(size=(20, 6)) as pilot:
        rest = pilot.app.query_one("#rest", Lines)
        rest.show(lines("a 1", "b 1"))
        await pilot.pause()
        painted: list[Region] = []
        refresh = rest.refresh

        def note(*regions: Region, **options: bool) -> Lines:
            painted.extend(regions)
            return refresh(*regions, **options)

        monkeypatch.setattr(rest, "refresh", note)
        rest.show(lines("a 1", "b 2"))
        await pilot.pause()
        assert painted == [Region(2, 1, 1, 1)]
        assert shown(pilot.app)[:2] == ["a 1", "b 2"]
        rest.show(lines("a 1", "b 2"))
        assert painted == [Region(2, 1, 1, 1)]


async def test_what_is_old_is_faint() -> None:
    async with Bench().run_test(size=(20, 6)) as pilot:
        rest = pilot.app.query_one("#rest", Lines)
        rest.show(lines("data"))
        await pilot.pause()
        bright = next(iter(rest.render_line(0))).style
        rest.set_stale(True)
        faint = next(iter(rest.render_line(0))).style
        assert bright is not None
        assert faint is not None
        assert (bright.dim, faint.dim) == (None, True)


async def test_its_text_can_be_selected_and_copied() -> None:
    async with Bench().run_test(size=(20, 6)) as pilot:
        rest = pilot.app.query_one("#rest", Lines)
        rest.show(lines("first line", "second line"))
        await pilot.pause()
        assert rest.allow_select
        part = Selection(Offset(6, 0), Offset(6, 1))
        assert rest.get_selection(part) == ("line\nsecond", "\n")
        pilot.app.screen.selections = {rest: part}
        await pilot.pause()
        marked = [segment.text for segment in rest.render_line(0) if segment.style and segment.style.bgcolor]
        assert "line" in "".join(marked)
        assert pilot.app.screen.get_selected_text() == "line\nsecond"


async def test_long_content_scrolls() -> None:
    async with Bench().run_test(size=(20, 6)) as pilot:
        rest = pilot.app.query_one("#rest", Lines)
        rest.can_focus = True
        rest.show(lines(*(f"line {i}" for i in range(30))))
        rest.focus()
        await pilot.pause()
        pilot.app.animation_level = "none"
        await pilot.press("end")
        await pilot.pause()
        assert any("line 29" in line for line in shown(pilot.app))
