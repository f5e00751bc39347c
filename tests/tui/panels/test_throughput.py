from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from inferd.tests.tui import samples
from inferd.tui import state
from inferd.tui.cells import text_of, width_of
from inferd.tui.panels import throughput as panel
from inferd.tui.state import State
from inferd.tui.symbols import ASCII, UNICODE


def history(n: int) -> State:
    now = State()
    for i in range(n):
        snapshot = samples.snapshot([])
        snapshot.rates.generation_tokens_per_s = 10.0 * i
        now = state.on_snapshot(now, snapshot, float(i))
    return now


def test_the_axes_say_how_much_and_since_when() -> None:
    lines = [text_of(line) for line in panel.panel(history(20), 60, 11, UNICODE)]
    assert len(lines) == 11
    assert lines[0] == "out 190 tok/s   in 2100 tok/s"
    assert lines[1].startswith("  200┤")
    assert lines[4].startswith("  100┤")
    assert lines[8].endswith("-19s now")


def test_latencies_and_load_stand_below() -> None:
    text = "\n".join(text_of(line) for line in panel.panel(history(3), 100, 11, ASCII))
    for word in ("TTFT p50 180ms", "p99 1.2s", "per token p50 21ms", "queue p50 300ms", "p95 4.1s", "moved 1"):
        assert word in text
    assert text.isascii()


@given(st.integers(0, 40), st.integers(10, 120), st.integers(0, 20))
def test_it_keeps_to_its_room(n: int, width: int, height: int) -> None:
    lines = panel.panel(history(n), width, height, UNICODE)
    assert len(lines) <= max(height, 0)
    assert all(width_of(line) <= width for line in lines)
