from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.tui import words


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [
        (None, "-"),
        (0, "0B"),
        (999, "999B"),
        (1024, "1.0K"),
        (1536, "1.5K"),
        (200 * 2**20, "200M"),
        (41.2 * 2**30, "41.2G"),
    ],
)
def test_bytes_are_in_powers_of_1024(n_bytes: float | None, text: str) -> None:
    assert words.size(n_bytes) == text


@given(st.floats(0, 2**49))
def test_bytes_never_need_more_than_six_cells(n_bytes: float) -> None:
    assert len(words.size(n_bytes)) <= 6


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (0.42, "0.4s"),
        (9.9, "9s"),
        (101, "1m41s"),
        (720, "12m"),
        (11_100, "3h05m"),
        (187_200, "2d04h"),
        (-3, "0.0s"),
    ],
)
def test_spans(seconds: float | None, text: str) -> None:
    assert words.span(seconds) == text


@given(st.floats(0, 1e9))
def test_a_span_never_needs_more_than_six_cells(seconds: float) -> None:
    assert len(words.span(seconds)) <= 6 or seconds > 86_400 * 99


@pytest.mark.parametrize(
    ("value", "text"), [(None, "-"), (4.21, "4.2ms"), (142.4, "142ms"), (1240, "1.2s"), (185_000, "3m05s")]
)
def test_latencies(value: float | None, text: str) -> None:
    assert words.ms(value) == text


@pytest.mark.parametrize(("per_s", "text"), [(0, "-"), (48.11, "48.1"), (212.4, "212"), (21_000, "21.0k")])
def test_rates(per_s: float, text: str) -> None:
    assert words.rate(per_s) == text


@pytest.mark.parametrize(
    ("n", "text"), [(0, "0"), (11_204, "11,204"), (410_000, "410k"), (1_200_000, "1.2M"), (7.6e9, "7.6G")]
)
def test_counts(n: float, text: str) -> None:
    assert words.count(n) == text


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [(None, None, "-"), (2000, 5000, "2-5s"), (2100, 2900, "2s"), (500, 90_000, "0.5s-1m30s"), (None, 3.0, "-")],
)
def test_an_eta_is_between_two_times(low: float | None, high: float | None, text: str) -> None:
    assert words.eta(low, high) == text


@given(st.text())
def test_nothing_that_a_terminal_obeys_gets_through(text: str) -> None:
    shown = words.plain(text)
    assert not any(ord(sign) < 32 or 127 <= ord(sign) < 160 for sign in shown)
    assert not set(shown) & set("\u202e\u2066\u2028\u200f")


def test_lines_and_tabs_become_spaces() -> None:
    assert words.plain("a\tb\nc\x1b[31md") == "a b c[31md"
