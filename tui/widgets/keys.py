"""The keys that work here, in a line or two at the bottom; a click on one is a press of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.cells import cell_len
from textual.message import Message

from ..cells import clipped
from .canvas import Lines

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual import events

    from ..cells import Cell, Line

KeyWord = tuple[str, str, str]  # the key as people write it, what it does, the key as Textual calls it


def lay(keys: Sequence[KeyWord], width: int, height: int) -> tuple[list[Line], list[list[tuple[int, int, str]]]]:
    """(lines, for each of them (from, to, key)): as many keys as `height` lines take."""
    lines: list[Line] = []
    spots: list[list[tuple[int, int, str]]] = []
    cells: list[Cell] = []
    spans: list[tuple[int, int, str]] = []
    x = 0
    for shown, what, key in keys:
        n_cells = cell_len(shown) + cell_len(what) + 3
        if x and x + n_cells > width + 1:
            lines.append(tuple(cells))
            spots.append(spans)
            if len(lines) == height:
                return lines, spots
            cells, spans, x = [], [], 0
        cells += [(f" {shown}", "key"), (f" {what} ", "dim")]
        spans.append((x, x + n_cells, key))
        x += n_cells
    if cells:
        lines.append(clipped(cells, width))
        spots.append(spans)
    return lines, spots


class Keys(Lines):
    class Pressed(Message):
        """One of them was clicked."""

        def __init__(self, key: str) -> None:
            super().__init__()
            self.key = key

    def __init__(self) -> None:
        super().__init__(id="keys")
        self._spots: list[list[tuple[int, int, str]]] = []

    def show_keys(self, keys: Sequence[KeyWord]) -> None:
        lines, self._spots = lay(keys, max(1, self.size.width), max(1, self.size.height))
        self.show(lines)

    def on_click(self, event: events.Click) -> None:
        offset = event.get_content_offset(self)
        if offset is not None and offset.y < len(self._spots):
            for start, end, key in self._spots[offset.y]:
                if start <= offset.x < end:
                    self.post_message(self.Pressed(key))


class Tabs(Lines):
    """The screens by their numbers."""

    class Pressed(Message):
        def __init__(self, number: int) -> None:
            super().__init__()
            self.number = number

    def __init__(self, names: Sequence[str], current: int, rule: str) -> None:
        super().__init__(id="tabs")
        self._names = names
        self._current = current
        self._rule = rule

    def on_resize(self) -> None:
        cells: list[Cell] = [(self._rule, "dim")]
        for i, name in enumerate(self._names):
            cells += [(f"[{i + 1}]{name}", "tab" if i == self._current else ""), (self._rule * 2, "dim")]
        line = clipped(cells, self.size.width)
        rest = self.size.width - sum(cell_len(text) for text, _ in line)
        self.show([(*line, (self._rule * rest, "dim"))])

    def on_click(self, event: events.Click) -> None:
        offset = event.get_content_offset(self)
        x = 1
        for i, name in enumerate(self._names):
            end = x + len(name) + 3
            if offset is not None and x <= offset.x < end:
                self.post_message(self.Pressed(i))
            x = end + 2
