from __future__ import annotations

from dataclasses import fields

import pytest
from rich.cells import cell_len

from inferd.tui import symbols
from inferd.tui.symbols import ASCII, UNICODE, Symbols


@pytest.mark.parametrize("signs", [UNICODE, ASCII], ids=["unicode", "ascii"])
def test_every_sign_is_one_cell_wide(signs: Symbols) -> None:
    for field in fields(signs):
        value = getattr(signs, field.name)
        if isinstance(value, str):
            assert all(cell_len(sign) == 1 for sign in value), field.name


def test_ascii_is_ascii() -> None:
    assert all(str(getattr(ASCII, field.name)).isascii() for field in fields(ASCII))


@pytest.mark.parametrize("table", [symbols.REQUEST_STATES, symbols.MODEL_STATES, symbols.SEVERITIES])
def test_states_that_mean_well_and_ill_differ_in_their_sign_not_only_in_colour(
    table: dict[str, tuple[str, str]],
) -> None:
    by_style = {style: sign for sign, style in table.values()}
    assert len({by_style[style] for style in ("ok", "fail") if style in by_style}) == len(
        {"ok", "fail"} & set(by_style)
    )


def test_what_is_not_ok_has_failed() -> None:
    assert symbols.device_state("ok") == ("ok", "ok")
    assert symbols.device_state("lost") == symbols.device_state("no_driver") == ("fail", "fail")
    assert symbols.daemon_state("draining")[1] == "warn"
