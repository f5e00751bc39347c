from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from inferd import Unreachable
from inferd.tests.tui.pilots import text_of, watching
from inferd.tui import once
from inferd.tui.cells import width_of
from inferd.tui.main import SCREENS
from inferd.tui.symbols import ASCII, UNICODE

if TYPE_CHECKING:
    from pathlib import Path

    from inferd.tests.tui.stage import Stage

SAYS = {
    "overview": ("r8f21", "embed-e5", "tok/s", "ttft"),
    "queue": ("mistral-7b-q5 needs 5.8 GiB on gpu0", "2-5s", "room"),
    "models": ("tiny-cold", "not a GGUF file", "pinned"),
    "devices": ("throttled: power cap", "others 1.0G", "NUMA node 0", "fell off the bus"),
    "events": ("device_lost", "12:00:03"),
    "clients": ("nightly", "1 now", "410k"),
}


@pytest.mark.parametrize("screen", SCREENS)
@pytest.mark.parametrize("width", [80, 160])
def test_every_screen_has_a_plain_twin(stage: Stage, screen: str, width: int) -> None:
    now, address = once.look(stage.address, screen)
    lines = once.lines(now, screen, width, UNICODE, address)
    assert all(width_of(line) <= width for line in lines)
    text = once.text(lines)
    assert "● serving" in text
    wanted = SAYS[screen] if width == 160 else SAYS[screen][:1] if screen != "queue" else ("room",)
    assert [word for word in wanted if word not in text] == []


def test_ascii_has_nothing_else(stage: Stage) -> None:
    for screen in SCREENS:
        now, address = once.look(stage.address, screen)
        assert once.text(once.lines(now, screen, 160, ASCII, address)).isascii()


async def test_it_says_what_the_screen_says(stage: Stage) -> None:
    """Each row of the table, cell for cell."""
    now, address = once.look(stage.address, "overview")
    printed = {
        " ".join(line.split()) for line in once.text(once.lines(now, "overview", 78, UNICODE, address)).splitlines()
    }
    async with watching(stage) as pilot:
        shown = text_of(pilot.app).splitlines()  # type: ignore[arg-type]
    rows = [" ".join(re.sub(r"[▶◆▁-█]", " ", line).split()) for line in shown if re.search(r"\br8[ef]", line)]
    assert len(rows) == 7
    assert [row for row in rows if row not in printed] == []


def test_no_daemon_is_an_error_with_a_name(tmp_path: Path) -> None:
    with pytest.raises(Unreachable):
        once.look(f"unix:{tmp_path}/none.sock", "overview")
