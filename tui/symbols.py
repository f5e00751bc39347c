"""The signs that stand beside words. A state is a word, a symbol and a colour: none of them says anything alone."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Symbols:
    """One set of them; every sign is one cell wide."""

    ok: str
    busy: str
    warn: str
    fail: str
    none: str
    cursor: str
    mark: str
    up: str
    down: str
    ellipsis: str
    rule: str
    bar_left: str
    bar_right: str
    bar_full: str
    bar_parts: str  # of one cell, from the least to the most
    bar_other: str
    spark: str  # from the lowest to the highest
    axis: str
    corner: str
    degree: str
    braille: bool  # charts of dots, eight to a cell


UNICODE = Symbols(
    ok="●",
    busy="◐",
    warn="!",
    fail="✗",
    none="-",
    cursor="▶",
    mark="◆",
    up="▲",
    down="▼",
    ellipsis="…",
    rule="─",
    bar_left="▕",
    bar_right="▏",
    bar_full="█",
    bar_parts="▏▎▍▌▋▊▉",
    bar_other="▒",
    spark="▁▂▃▄▅▆▇█",
    axis="┤",
    corner="└",
    degree="°",
    braille=True,
)
ASCII = Symbols(
    ok="*",
    busy="~",
    warn="!",
    fail="x",
    none="-",
    cursor=">",
    mark="+",
    up="^",
    down="v",
    ellipsis="~",
    rule="-",
    bar_left="[",
    bar_right="]",
    bar_full="#",
    bar_parts="",
    bar_other="=",
    spark="_.-=+*%#",
    axis="|",
    corner="+",
    degree="",
    braille=False,
)

# State -> (symbol's name, style). The word is the state itself.
REQUEST_STATES = {"running": ("ok", "ok"), "queued": ("busy", "warn"), "parking": ("warn", "warn")}
MODEL_STATES = {
    "ready": ("ok", "ok"),
    "loading": ("busy", "accent"),
    "draining": ("busy", "warn"),
    "failed": ("fail", "fail"),
    "cold": ("none", "dim"),
}
SEVERITIES = {"info": ("ok", "dim"), "warning": ("warn", "warn"), "error": ("fail", "fail")}
CLASSES = {"interactive": "accent", "normal": "", "batch": "dim"}


def device_state(state: str) -> tuple[str, str]:
    """(symbol's name, style): what is not ok has failed."""
    return ("ok", "ok") if state == "ok" else ("fail", "fail")


def daemon_state(state: str) -> tuple[str, str]:
    return ("ok", "ok") if state == "serving" else ("warn", "warn")


def sign(symbols: Symbols, name: str) -> str:
    """The symbol of that name."""
    found: str = getattr(symbols, name)
    return found
