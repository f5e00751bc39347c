"""Figures for people, short enough for a column."""

from __future__ import annotations

import math

CONTROLS = {code: None for code in (*range(32), *range(127, 160))} | {0x2028: None, 0x2029: None}
BIDI = dict.fromkeys((*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F, 0x061C))
UNSAFE = CONTROLS | BIDI | {9: " ", 10: " "}


def plain(text: str) -> str:
    """Text from elsewhere on one line, without what a terminal would obey, or what turns its direction."""
    return text if text.isascii() and text.isprintable() else text.translate(UNSAFE)


def size(n_bytes: float | None) -> str:
    """Bytes in powers of 1,024: 512B, 1.5K, 41.2G."""
    if n_bytes is None:
        return "-"
    for unit in ("B", "K", "M", "G"):
        if n_bytes < 1000:
            return f"{n_bytes:.0f}{unit}" if unit == "B" or n_bytes >= 99.95 else f"{n_bytes:.1f}{unit}"
        n_bytes /= 1024
    return f"{n_bytes:.1f}T"


def span(seconds: float | None) -> str:
    """A length of time: 0.4s, 9s, 1m41s, 12m, 3h05m, 2d04h."""
    if seconds is None or not math.isfinite(seconds):
        return "-"
    if seconds < 1:
        return f"{max(0.0, seconds):.1f}s"
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 3600:
        return f"{whole // 60}m"
    if whole < 86_400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86_400}d{whole % 86_400 // 3600:02d}h"


def ms(value: float | None) -> str:
    """A latency: 4.2ms, 142ms, 1.2s, 3m05s."""
    if value is None or not math.isfinite(value):
        return "-"
    if value < 10:
        return f"{value:.1f}ms"
    if value < 1000:
        return f"{value:.0f}ms"
    return f"{value / 1e3:.1f}s" if value < 10_000 else span(value / 1e3)


def rate(per_s: float) -> str:
    """Tokens per second: 48.1, 212, 2.1k; a dash for none."""
    if per_s <= 0:
        return "-"
    if per_s < 99.95:
        return f"{per_s:.1f}"
    return f"{per_s:.0f}" if per_s < 9_999.5 else f"{per_s / 1e3:.1f}k"


def count(n: float) -> str:
    """A number: 412, 11,204, 1.2M."""
    if n < 100_000:
        return f"{n:,.0f}"
    for limit, unit in ((1e9, "G"), (1e6, "M")):
        if n >= limit:
            return f"{n / limit:.1f}{unit}"
    return f"{n / 1e3:.0f}k"


def short(n: int) -> str:
    """A count in at most five cells: 412, 9999, 12.3k, 410k, 1.2M."""
    if n < 10_000:
        return str(n)
    if n < 99_950:
        return f"{n / 1e3:.1f}k"
    return f"{n / 1e3:.0f}k" if n < 999_500 else f"{n / 1e6:.1f}M"


def percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"


def eta(low_ms: float | None, high_ms: float | None) -> str:
    """Between two times from now: 2-5s; the longer one alone where they read the same."""
    if low_ms is None or high_ms is None:
        return "-"
    low, high = span(low_ms / 1e3), span(high_ms / 1e3)
    if low == high:
        return high
    plain_seconds = all(text.endswith("s") and text[:-1].replace(".", "").isdigit() for text in (low, high))
    return f"{low[:-1]}-{high}" if plain_seconds else f"{low}-{high}"
