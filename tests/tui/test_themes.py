from __future__ import annotations

import pytest
from textual.color import Color
from textual.theme import BUILTIN_THEMES, Theme

from inferd.tui.settings import THEMES
from inferd.tui.themes import COLOUR_BLIND, OURS


def contrast(one: str, other: str) -> float:
    """WCAG 2.1: from 1 to 21."""

    def luminance(text: str) -> float:
        parts = [c / 255 for c in Color.parse(text).rgb]
        r, g, b = (c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", OURS, ids=lambda theme: theme.name)
@pytest.mark.parametrize("name", ["foreground", "primary", "accent", "success", "warning", "error"])
def test_every_colour_can_be_read_on_the_background(theme: Theme, name: str) -> None:
    assert theme.background is not None
    assert contrast(getattr(theme, name), theme.background) >= 4.5


def test_every_theme_that_can_be_chosen_exists() -> None:
    assert set(THEMES) <= {theme.name for theme in OURS} | set(BUILTIN_THEMES)


def test_the_colour_blind_theme_does_not_set_green_against_red() -> None:
    assert COLOUR_BLIND.success is not None
    good, bad = Color.parse(COLOUR_BLIND.success), Color.parse(COLOUR_BLIND.error or "")
    assert good.b > good.r  # blue
    assert bad.r > bad.b  # vermillion
