"""Colours. Blue and orange carry the accents, and no state rests on red against green alone.

`inferd-cb` takes the palette of Okabe and Ito (2008), made for all kinds of colour blindness.
"""

from __future__ import annotations

from textual.theme import Theme

INFERD = Theme(
    name="inferd",
    primary="#5aa9e6",
    secondary="#8ea8c3",
    accent="#ff9f43",
    success="#56c596",
    warning="#f2b84b",
    error="#ff6b6b",
    foreground="#d5dbe3",
    background="#10151c",
    surface="#161d27",
    panel="#1f2935",
    dark=True,
)
LIGHT = Theme(
    name="inferd-light",
    primary="#1263a3",
    secondary="#4a6076",
    accent="#b45309",
    success="#17784b",
    warning="#8a5a00",
    error="#b3261e",
    foreground="#1b2733",
    background="#fafbfc",
    surface="#f0f3f6",
    panel="#e3e8ee",
    dark=False,
)
COLOUR_BLIND = Theme(
    name="inferd-cb",
    primary="#56b4e9",
    secondary="#999999",
    accent="#f0e442",
    success="#56b4e9",
    warning="#e69f00",
    error="#d55e00",
    foreground="#e6e6e6",
    background="#101010",
    surface="#181818",
    panel="#262626",
    dark=True,
)
OURS = (INFERD, LIGHT, COLOUR_BLIND)
