from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.protos import inferd_pb2 as pb
from inferd.tests.tui import samples
from inferd.tui import state
from inferd.tui.cells import text_of, width_of
from inferd.tui.panels import devices as panel
from inferd.tui.state import State
from inferd.tui.symbols import ASCII, UNICODE

NOW = state.on_snapshot(State(), samples.snapshot(), 1.0)
CPU, GPU, LOST = samples.devices()


def text(lines: list[tuple[tuple[str, str], ...]]) -> str:
    return "\n".join(text_of(line) for line in lines)


def test_a_device_in_one_line() -> None:
    line = text_of(panel.brief(GPU, 80, UNICODE))
    for word in ("gpu0", "RTX 6000 Ada", "41.0G/48.0G", "87%", "61°C", "212/300W", "! throttled"):
        assert word in line
    assert "✗ lost" in text_of(panel.brief(LOST, 80, UNICODE))
    assert "RAM" in text_of(panel.brief(CPU, 80, UNICODE))


def test_what_is_not_measured_is_not_there() -> None:
    bare = pb.DeviceState(id="npu0", kind="npu", name="NPU", state="ok")
    line = text_of(panel.brief(bare, 80, UNICODE))
    assert "%" not in line
    assert "°" not in line
    assert "W" not in line.removeprefix("npu0")


def test_memory_is_ours_and_others() -> None:
    cells = panel.memory_bar(GPU, 26, UNICODE)
    assert [style for text, style in cells if text.strip() and style.startswith("bar")] == ["bar", "bar-other"]


def test_more_bytes_of_ours_than_are_used_do_not_break_the_bar() -> None:
    odd = pb.DeviceState(id="gpu0", memory_total_bytes=100, memory_used_bytes=10, own_bytes=50)
    assert width_of(panel.memory_bar(odd, 20, UNICODE)) == 20


def test_the_whole_page_names_everything() -> None:
    page = text(panel.blocks(NOW, 100, UNICODE))
    for word in (
        "driver 580.82", "NUMA node 0", "ours 40.0G", "others 1.0G", "2505 of 3105 MHz", "throttled: power cap",
        "llama3-70b-q4", "not ours", "the GPU fell off the bus", "212 of 300 W", "io 12.5%", "swap 0B of 8.0G",
        "32 cores, 70.0G of 128G free",
    ):  # fmt: skip
        assert word in page, word


def test_gpus_come_before_the_processor() -> None:
    page = text(panel.blocks(NOW, 100, UNICODE))
    assert page.index("gpu0") < page.index("gpu1") < page.index("cpu  AMD")


def test_what_has_no_room_in_the_corner_is_counted() -> None:
    assert "and 2 more: see Devices" in text(panel.panel(NOW, 76, 5, UNICODE))
    full = text(panel.panel(NOW, 76, 12, UNICODE))
    assert "gpu1" in full
    assert "host" in full


def test_processes_have_an_end() -> None:
    many = [pb.ProcessState(pid=i, bytes=1) for i in range(20)]
    crowd = pb.DeviceState(id="gpu0", name="X", state="ok", processes=many)
    assert "and 14 more processes" in text(panel._process_lines(crowd))


def test_pressure_and_limits_of_the_host_show() -> None:
    snapshot = samples.snapshot()
    snapshot.host.pressure = "no_loads"
    snapshot.host.memory_limit_bytes = 2**30
    page = text(panel.host_lines(snapshot, 120))
    assert "! no loads" in page
    assert "cgroup limit 1.0G" in page


@pytest.mark.parametrize("symbols", [UNICODE, ASCII], ids=["unicode", "ascii"])
@given(width=st.integers(20, 200), height=st.integers(1, 20))
def test_nothing_is_wider_than_its_room(symbols: object, width: int, height: int) -> None:
    assert all(width_of(line) <= width for line in panel.panel(NOW, width, height, symbols))  # type: ignore[arg-type]
    assert all(width_of(line) <= width for line in panel.blocks(NOW, width, symbols))  # type: ignore[arg-type]
