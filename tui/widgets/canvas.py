"""A widget of styled lines that repaints only the cells that changed: over ssh every byte is a wait."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual.geometry import Region, Size
from textual.scroll_view import ScrollView
from textual.scrollbar import ScrollBarRender
from textual.strip import Strip

from ..cells import STYLES, Cell, Line, text_of, width_of
from ..words import plain

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from textual.selection import Selection

FAINT = Style(dim=True)


# What screens with a canvas have among their component classes; with a set for each canvas a change of screens cost
# 34 ms, not 22.
STYLE_CLASSES = frozenset(f"canvas--{name}" for name in STYLES)


class PlainBar(ScrollBarRender):
    """A scrollbar without the blocks that end it to the eighth of a line."""

    VERTICAL_BARS: ClassVar[list[str]] = [" "]


class Canvas(ScrollView):
    """Who inherits says what is on each line of the window; `repaint` finds out what is new there."""

    DEFAULT_CSS = """
    Canvas { overflow-x: hidden; scrollbar-size-vertical: 1; scrollbar-size-horizontal: 0; }
    """

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._painted: dict[int, Line] = {}  # line of the window -> what is on the screen
        self.stale = False  # what is shown is old

    def line_at(self, y: int) -> Line:
        """What is to be on line `y` of the window."""
        raise NotImplementedError

    def content_line(self, y: int) -> int:
        """Which line of the whole content line `y` of the window is."""
        raise NotImplementedError

    def all_text(self) -> str:
        """The whole content, for who selects it."""
        raise NotImplementedError

    def repaint(self) -> None:
        """Have what changed painted."""
        if self.is_mounted and self.styles.display == "none":
            return
        regions: list[Region] = []
        for y in range(self.size.height):
            new, old = self.line_at(y), self._painted.get(y)
            if new != old:
                self._painted[y] = new
                regions += changes(old, new, y, self.size.width)
        if regions:
            self.refresh(*regions)

    def repaint_all(self) -> None:
        """Everything is different: another size, theme or place."""
        self._painted.clear()
        self.refresh()

    def set_stale(self, stale: bool) -> None:
        if stale is not self.stale:
            self.stale = stale
            self.refresh()

    def render_line(self, y: int) -> Strip:
        line = self._painted.get(y)
        if line is None:
            line = self._painted[y] = self.line_at(y)
        base = self.rich_style + FAINT if self.stale else self.rich_style
        segments = [Segment(plain(text), self._style(name, base)) for text, name in line]
        strip = Strip(segments).adjust_cell_length(self.size.width, base)
        number = self.content_line(y)
        return self._selected(strip, number).apply_offsets(0, number)

    def _style(self, name: str, base: Style) -> Style:
        if not name:
            return base
        return base + self.screen.get_component_rich_style(f"canvas--{name}", partial=True, default=Style.null())

    def _selected(self, strip: Strip, number: int) -> Strip:
        selection = self.text_selection
        span = None if selection is None else selection.get_span(number)
        if span is None:
            return strip
        start, end = span
        end = strip.cell_length if end == -1 else end
        style = self.screen.get_component_rich_style("screen--selection")
        return Strip.join([strip.crop(0, start), strip.crop(start, end).apply_style(style), strip.crop(end)])

    def get_selection(self, selection: Selection) -> tuple[str, str] | None:
        text = self.all_text()
        if selection.start is not None and selection.start.y >= len(text.splitlines()):
            return None  # it begins below the last line
        return selection.extract(text), "\n"

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self._painted.clear()

    def on_mount(self) -> None:
        if self.app.has_class("-ascii"):
            self.vertical_scrollbar.renderer = PlainBar  # type: ignore[misc]  # as Textual's own words tell to

    def on_resize(self) -> None:
        self._painted.clear()

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        self._painted.clear()
        super().watch_scroll_y(old_value, new_value)


class Lines(Canvas):
    """Lines that somebody else has made; as high as there are lines where the stylesheet says `height: auto`."""

    can_focus = False

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._lines: Sequence[Line] = ()

    @property
    def lines(self) -> Sequence[Line]:
        return self._lines

    def show(self, lines: Sequence[Line]) -> None:
        n_before, self._lines = len(self._lines), lines
        if len(lines) != n_before:
            self.virtual_size = Size(self.size.width, len(lines))
            if self.styles.height is not None and self.styles.height.is_auto:
                self.refresh(layout=True)
        self.repaint()

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return len(self._lines)

    def line_at(self, y: int) -> Line:
        y = self.content_line(y)
        return self._lines[y] if y < len(self._lines) else ()

    def content_line(self, y: int) -> int:
        return y + round(self.scroll_y)

    def all_text(self) -> str:
        return "\n".join(text_of(line) for line in self._lines)


def changes(old: Line | None, new: Line, y: int, width: int) -> Iterator[Region]:
    """The parts of a line that differ: cells that keep their place one by one, else all from the first on."""
    if old is None or width_of(old) != width_of(new):
        yield Region(0, y, width, 1)
        return
    if len(old) == len(new) and all(cell_len(a[0]) == cell_len(b[0]) for a, b in zip(old, new, strict=True)):
        x = 0
        for before, after in zip(old, new, strict=True):
            n_cells = cell_len(after[0])
            if before != after:
                yield _within(before, after, x, y, n_cells)
            x += n_cells
        return
    x = 0
    for before, after in zip(old, new, strict=False):
        if before != after:
            break
        x += cell_len(after[0])
    yield Region(x, y, width_of(new) - x, 1)


def _within(before: Cell, after: Cell, x: int, y: int, n_cells: int) -> Region:
    """Of one cell only its middle, where both ends stay the same; a wide sign is not cut in two."""
    (old, old_style), (new, style) = before, after
    if style != old_style or len(old) != len(new) or not (old.isascii() and new.isascii()):
        return Region(x, y, n_cells, 1)
    first, last = 0, n_cells
    while old[first] == new[first]:
        first += 1
    while old[last - 1] == new[last - 1]:
        last -= 1
    return Region(x + first, y, last - first, 1)
