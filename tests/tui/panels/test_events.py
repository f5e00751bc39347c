from __future__ import annotations

import pytest

from inferd.tests.tui import samples
from inferd.tui import state
from inferd.tui.cells import text_of, width_of
from inferd.tui.columns import table
from inferd.tui.panels import events as panel
from inferd.tui.state import State
from inferd.tui.symbols import ASCII, UNICODE

NOW = state.on_events(State(), samples.events())


@pytest.mark.parametrize(("least", "n"), [("info", 4), ("warning", 3), ("error", 2)])
def test_a_level_hides_what_is_less(least: str, n: int) -> None:
    assert len(panel.rows(NOW, least)) == n


def test_a_severity_of_a_newer_daemon_is_not_hidden() -> None:
    now = state.on_events(NOW, [samples.event(500, "?", severity="fatal")])
    assert panel.rows(now, "error")[-1].severity == "fatal"
    assert len(table(panel.EVENTS, panel.rows(now), 80, UNICODE)) == 6
    for column in panel.EVENTS.columns:
        assert len(sorted(now.events, key=column.sort)) == 5


def test_a_row_has_time_level_kind_and_the_sentence() -> None:
    line = text_of(table(panel.EVENTS, panel.rows(NOW), 120, UNICODE)[2])
    assert line.split()[:5] == ["12:00:01", "!", "warning", "preempted", "r8ef0"]
    assert line.rstrip().endswith("r8ef0 makes way for r8f02")


def test_the_newest_fit_into_a_corner() -> None:
    lines = panel.last_lines(NOW.events, 40, 2, ASCII)
    assert [text_of(line).split()[0] for line in lines] == ["12:00:02", "12:00:03"]
    assert all(width_of(line) <= 40 for line in lines)
    assert panel.last_lines(NOW.events, 40, 0, ASCII) == []
