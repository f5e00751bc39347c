"""The table that `make bench` prints."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .figures import Figure, Outcome

HEAD = ("| figure | measured (median) | spread | runs | bar | |", "|---|---|---|---|---|---|")


def render(machine: Sequence[str], outcomes: Mapping[str, Outcome], *, quick: bool) -> str:
    """Markdown."""
    kind = "quick run, for orientation only" if quick else "full run"
    lines = [f"# Bench, {datetime.now():%Y-%m-%d %H:%M} ({kind})", "", *machine, "", *HEAD]
    lines += [row(figure) for outcome in outcomes.values() for figure in outcome.figures]
    for name, outcome in outcomes.items():
        lines += ["", f"## {name}", "", *outcome.lines]
    return "\n".join(lines) + "\n"


def row(figure: Figure) -> str:
    sign = ">=" if figure.at_least else "<="
    spread = f"{_number(figure.lowest)} - {_number(figure.highest)}"
    verdict = "ok" if figure.met else "**MISS**"
    measured, bar = f"{_number(figure.value)} {figure.unit}", f"{sign} {_number(figure.bar)} {figure.unit}"
    return f"| {figure.name} | {measured} | {spread} | {figure.n_runs} | {bar} | {verdict} |"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}" if abs(value) < 10 else f"{value:.1f}"
