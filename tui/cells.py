"""Lines of styled cells, and how figures become bars, sparks and charts in them.

A cell is (text, name of a style); a line is a tuple of cells. What a name looks like is said in theme.tcss.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rich.cells import cell_len, chop_cells, set_cell_size

from .words import plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .symbols import Symbols

Cell = tuple[str, str]
Line = tuple[Cell, ...]

STYLES = (
    "dim",
    "value",  # what one looks for
    "title",
    "accent",
    "ok",
    "warn",
    "fail",
    "key",
    "bar",
    "bar-other",
    "cursor",
    "marked",
    "head",
    "tab",
    "banner",
)
DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))  # of a braille cell: column, then row


def width_of(line: Line) -> int:
    return sum(cell_len(text) for text, _ in line)


def text_of(line: Line) -> str:
    return "".join(plain(text) for text, _ in line)


def fit(text: str, width: int, symbols: Symbols, *, right: bool = False) -> str:
    """Text from anywhere in exactly `width` cells; what is cut off shows by its end."""
    text = plain(text)
    n_cells = len(text) if text.isascii() else cell_len(text)
    if n_cells > width:
        return set_cell_size(text, width - 1) + symbols.ellipsis if width > 0 else ""
    return " " * (width - n_cells) + text if right else text + " " * (width - n_cells)


def clipped(line: Iterable[Cell], width: int) -> Line:
    """The first `width` cells of a line."""
    kept: list[Cell] = []
    for text, style in line:
        n_cells = cell_len(text)
        if n_cells >= width:
            if width > 0:
                kept.append((set_cell_size(text, width), style))
            break
        kept.append((text, style))
        width -= n_cells
    return tuple(kept)


def spread(left: Iterable[Cell], right: Iterable[Cell], width: int) -> Line:
    """One part at each edge; where both do not fit, the right one goes."""
    left, right = tuple(left), tuple(right)
    gap = width - width_of(left) - width_of(right)
    return (*left, (" " * gap, ""), *right) if gap > 0 else clipped(left, width)


def wrapped(text: str, width: int, style: str = "") -> list[Line]:
    """A sentence over as many lines as it takes, broken between words where it can be."""
    lines, current = [], ""
    for word in plain(text).split():
        if cell_len(word) > width > 0:
            if current:
                lines.append(current)
                current = ""
            *full, word = chop_cells(word, width)
            lines += full
        if current and cell_len(current) + 1 + cell_len(word) > width:
            lines.append(current)
            current = word
        else:
            current = f"{current} {word}" if current else word
    return [((line, style),) for line in [*lines, current] if line]


def bar(width: int, shares: Sequence[tuple[float, str]], symbols: Symbols) -> Line:
    """Shares of one whole beside each other; the first in full blocks with its last one in eighths."""
    inner = max(0, width - 2)
    cells: list[Cell] = [(symbols.bar_left, "dim")]
    used = 0
    for i, (share, style) in enumerate(shares):
        exact = min(max(share, 0.0), 1.0) * inner if math.isfinite(share) else 0.0
        whole = min(int(exact), inner - used)
        text = (symbols.bar_full if i == 0 else symbols.bar_other) * whole
        part = int((exact - int(exact)) * (len(symbols.bar_parts) + 1))
        if i == 0 and part and symbols.bar_parts and used + whole < inner:
            text += symbols.bar_parts[part - 1]
        elif exact > 0 and not text and used < inner:  # a little is not nothing
            text = symbols.bar_parts[0] if i == 0 and symbols.bar_parts else symbols.bar_other
        used += len(text)
        if text:
            cells.append((text, style))
    return (*cells, (" " * (inner - used), ""), (symbols.bar_right, "dim"))


def spark(values: Sequence[float], width: int, symbols: Symbols, *, highest: float | None = None) -> str:
    """The last `width` values, one cell each, against the highest of them unless that is given."""
    shown = list(values[-width:])
    shown = [value if math.isfinite(value) else 0.0 for value in shown]
    top = max([*shown, 0.0]) if highest is None else highest
    steps = len(symbols.spark) - 1
    signs = [symbols.spark[round(steps * min(1.0, max(0.0, v / top)))] if top > 0 else symbols.spark[0] for v in shown]
    return "".join(signs).rjust(width)


def chart(values: Sequence[float], width: int, height: int, symbols: Symbols, *, highest: float) -> list[str]:
    """Values over time as an area, the newest at the right: `height` rows of `width` cells."""
    if not symbols.braille:
        return _blocks(values, width, height, symbols, highest)
    rows, columns = 4 * height, 2 * width
    shown = list(values[-columns:])
    grid = [[0] * width for _ in range(height)]
    for i, value in enumerate(shown, start=columns - len(shown)):
        filled = round(rows * min(1.0, max(0.0, value / highest))) if highest > 0 else 0
        for level in range(max(filled, 1)):  # zero is a line on the ground
            row = rows - 1 - level
            grid[row // 4][i // 2] |= DOTS[i % 2][row % 4]
    return ["".join(chr(0x2800 + dots) if dots else " " for dots in row) for row in grid]


def _blocks(values: Sequence[float], width: int, height: int, symbols: Symbols, highest: float) -> list[str]:
    shown = list(values[-width:])
    filled = [round(height * min(1.0, max(0.0, v / highest))) if highest > 0 else 0 for v in shown]
    rows = []
    for level in range(height, 0, -1):
        row = "".join(symbols.bar_full if n >= level else " " for n in filled)
        rows.append(row.rjust(width))
    return rows


def nice(highest: float) -> float:
    """The next round figure above: the end of an axis."""
    if not 0 < highest < math.inf:
        return 1.0
    power = 10.0 ** math.floor(math.log10(highest))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= highest * 0.999)
