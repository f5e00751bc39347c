"""Pressure stall information: how much of the last seconds tasks stood still for want of something."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

from . import cgroup

if TYPE_CHECKING:
    from .sysfs import Root

Want = Literal["memory", "cpu", "io"]


def read_pressure(root: Root, want: Want) -> tuple[float | None, float | None]:
    """(some, full) avg10 in per cent: the machine's or our own group's, whichever hurts more."""
    files = [f"proc/pressure/{want}"]
    if own := cgroup.levels(root, want):
        files.append(f"{own[0].folder}/{want}.pressure")
    pairs = [parse_pressure(root.text(file)) for file in files]
    some = [pair[0] for pair in pairs if pair[0] is not None]
    full = [pair[1] for pair in pairs if pair[1] is not None]
    return max(some, default=None), max(full, default=None)


def parse_pressure(text: str | None) -> tuple[float | None, float | None]:
    """(some, full) avg10 of a pressure file, in per cent."""
    found: dict[str, float] = {}
    for kind, value in re.findall(r"^(some|full) avg10=(\d{1,3}(?:\.\d{1,6})?)\b", text or "", re.M | re.ASCII):
        found[kind] = float(value)
    return found.get("some"), found.get("full")
