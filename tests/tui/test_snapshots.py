"""What the screens look like, theme by theme. After a wanted change: pytest --snapshot-update, and look at them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from inferd.tests.tui.pilots import LARGE, SMALL, filled, press
from inferd.tui.app import Monitor
from inferd.tui.settings import THEMES, Settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from textual.pilot import Pilot

    from inferd.tests.tui.stage import Stage


class Still(Monitor):
    """Its address is that of a folder made for the test: not part of the picture."""

    def __init__(self, stage: Stage, settings: Settings) -> None:
        super().__init__(stage.address, settings)
        self.address = "unix:/run/inferd/inferd.sock"


@pytest.fixture(autouse=True)
def plain_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "TEXTUAL_COLOR_SYSTEM", "TEXTUAL_ANIMATIONS"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("theme", THEMES)
def test_the_overview_in_every_theme(stage: Stage, theme: str, snap_compare: Callable[..., bool]) -> None:
    assert snap_compare(Still(stage, Settings(theme=theme)), terminal_size=SMALL, run_before=filled)


def test_the_overview_without_colour(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, snap_compare: Callable[..., bool]
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert snap_compare(Still(stage, Settings()), terminal_size=SMALL, run_before=filled)


def test_the_overview_on_a_large_screen(stage: Stage, snap_compare: Callable[..., bool]) -> None:
    assert snap_compare(Still(stage, Settings()), terminal_size=LARGE, run_before=filled)


def test_the_queue(stage: Stage, snap_compare: Callable[..., bool]) -> None:
    async def look(pilot: Pilot[Any]) -> None:
        await filled(pilot)
        await press(pilot, "2", "down", "down")

    stage.records = []
    assert snap_compare(Still(stage, Settings()), terminal_size=SMALL, run_before=look)
