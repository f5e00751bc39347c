"""The plots of the demo model's stories, as plots.toml has them."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Plot:
    """Every field but `topic` holds variants of one step; slots are filled by `stories.py`."""

    topic: str
    problem: list[str]
    attempt: list[str]
    advice: list[str]
    solution: list[str]
    result: list[str]


_FILE = Path(__file__).with_name("plots.toml")
PLOTS = [Plot(**plot) for plot in tomllib.loads(_FILE.read_text(encoding="utf-8"))["plot"]]
