from __future__ import annotations

import pytest

from inferd.protos import inferd_pb2 as pb
from inferd.tests.tui.samples import request, requests, snapshot
from inferd.tui import state
from inferd.tui.cells import text_of
from inferd.tui.columns import table
from inferd.tui.lens import Lens
from inferd.tui.panels import requests as panel
from inferd.tui.state import State
from inferd.tui.symbols import UNICODE


def seen(rows: list[pb.RequestState], width: int = 78) -> list[str]:
    return [text_of(line) for line in table(panel.LIVE, sorted(rows, key=panel.LIVE.order), width, UNICODE)]


def test_classes_come_first_then_who_runs_then_the_line() -> None:
    names = [row.id for row in sorted(requests(), key=panel.LIVE.order)]
    assert names == ["r8f21", "r8f1e", "r8f02", "r8f2a", "r8f2b", "r8ef0", "r8f2c"]


def test_the_queue_is_in_the_order_of_turns() -> None:
    now = state.on_snapshot(State(), snapshot(), 1.0)
    waiting = sorted(panel.waiting(now), key=panel.QUEUE.order)
    assert [row.id for row in waiting] == ["r8f2c", "r8ef0", "r8f2a", "r8f2b"]
    assert panel.live(State()) == panel.waiting(State()) == []


def test_at_eighty_columns_one_sees_who_where_how_fast_and_why() -> None:
    head, first, *_ = seen(requests(), 78)
    assert head.split() == ["ID", "CLASS", "MODEL", "TENANT", "STATE", "OUT", "TOK/S", "TTFT", "AGE", "WHY"]
    assert first.split() == ["r8f21", "inter", "qwen2.5-7b…", "ide", "●", "running", "412", "48.1", "142ms", "9s", "-"]


def test_a_wide_table_has_the_sentence() -> None:
    lines = seen(requests(), 200)
    assert "needs 5.8 GiB on gpu0" in next(line for line in lines if line.startswith("r8f2a"))


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"why": "slot"}, "slot"),
        ({"why": ""}, "-"),
    ],
)
def test_why_it_waits(fields: dict[str, object], why: str) -> None:
    assert panel.why_of(request("r1", "queued", **fields), UNICODE)[0] == why


def test_a_running_one_without_a_token_has_its_prompt_computed() -> None:
    assert panel.why_of(request("r1"), UNICODE)[0] == "prompt"
    assert panel.why_of(request("r1", tokens=1), UNICODE)[0] == "-"
    assert panel.why_of(request("r1", task="embed"), UNICODE)[0] == "-"


def test_a_client_that_takes_nothing_shows() -> None:
    slow = request("r1", tokens=5, stalled_ms=4200.0)
    assert panel.why_of(slow, UNICODE) == ("client", "warn")
    assert "4.2s" in panel.because(slow, UNICODE)[0]


def test_what_is_not_known_is_a_dash() -> None:
    bare = pb.RequestState(id="r1", state="queued")
    cells = {column.key: column.cell(bare, UNICODE)[0] for column in (*panel.LIVE.columns, *panel.QUEUE.columns)}
    dashes = {key for key, text in cells.items() if text == "-"}
    assert {"prompt", "ttft", "position", "eta", "deadline", "moves", "device", "why"} - dashes == set()


def test_progress_is_of_what_it_may_write() -> None:
    assert panel.progress_of(request("r1", tokens=50, max_tokens=100), UNICODE)[0].startswith("█████")
    assert panel.progress_of(request("r1", tokens=50), UNICODE) == ("", "")


def test_every_column_sorts_rows_of_all_kinds() -> None:
    rows = [*requests(), pb.RequestState(id="bare")]
    for sheet in (panel.LIVE, panel.QUEUE):
        for column in sheet.columns:
            assert len(Lens(column.key, True).look(rows, sheet, UNICODE)) == len(rows)
