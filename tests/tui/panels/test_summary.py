from __future__ import annotations

import pytest

from inferd.protos import inferd_pb2 as pb
from inferd.tests.tui import samples
from inferd.tui import state
from inferd.tui.cells import text_of, width_of
from inferd.tui.panels import summary as panel
from inferd.tui.state import State
from inferd.tui.symbols import ASCII, UNICODE

NOW = state.on_greeting(state.on_snapshot(State(), samples.snapshot(), 100.0), "operator", "default")


def title(now: State, width: int = 80) -> str:
    return text_of(panel.title(now, width, UNICODE, address="unix:/run/inferd/inferd.sock", pace="1s ▲ live"))


def test_the_title_has_state_machine_age_and_role() -> None:
    line = title(NOW)
    for word in ("● serving", "ws1", "up 3d03h", "v0.1.0", "unix", "operator", "1s ▲ live"):
        assert word in line
    assert len(line) == 80


def test_a_wide_title_has_the_whole_address() -> None:
    assert "unix:/run/inferd/inferd.sock" in title(NOW, 160)


def test_before_the_first_picture_and_after_the_last() -> None:
    assert "✗ connecting" in title(State())
    assert "✗ lost" in title(state.on_lost(NOW, "gone", None))
    draining = samples.snapshot()
    draining.state = "draining"
    assert "! draining" in title(state.on_snapshot(NOW, draining, 1.0))


def test_the_banner_says_why_when_again_and_how_old_it_all_is() -> None:
    lost = state.on_lost(NOW, "no daemon at unix:/d.sock", 104.0)
    (line,) = panel.banner(lost, 102.5, 100, UNICODE)
    assert text_of(line).strip() == "✗ what you see is 2s old; trying again in 1s; no daemon at unix:/d.sock"
    assert width_of(line) == 100
    assert panel.banner(NOW, 102.5, 100, UNICODE) == []


def test_the_worst_warning_comes_first_and_the_rest_is_counted() -> None:
    snapshot = pb.Snapshot()
    for severity in ("info", "error", "warning"):
        snapshot.warnings.add(severity=severity, message=f"an {severity}", remedy="do this")
    (line,) = panel.warnings(snapshot, 100, UNICODE, 1)
    assert text_of(line) == " ✗ an error (and 2 more); do this"
    assert len(panel.warnings(snapshot, 100, UNICODE, 5)) == 3


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_small_screen_has_devices_warnings_and_rates(width: int) -> None:
    lines = panel.small(NOW, width, UNICODE)
    assert all(width_of(line) <= width for line in lines)
    text = "\n".join(text_of(line) for line in lines)
    assert text.index("gpu0") < text.index("cpu ")
    assert "fell off the bus" in text
    assert "148" in text
    assert "run 4  wait 3" in text


def test_more_devices_than_lines_are_counted() -> None:
    snapshot = samples.snapshot()
    for i in range(2, 8):
        snapshot.devices.add(id=f"gpu{i}", kind="gpu", name="L4", state="ok")
    text = "\n".join(text_of(line) for line in panel.small(state.on_snapshot(NOW, snapshot, 1.0), 80, ASCII))
    assert "and 6 more devices" in text
    assert panel.small(State(), 80, ASCII) == []
