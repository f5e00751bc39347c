"""`inferd explain`: one line a decision, on one screen."""

from __future__ import annotations

import json
from typing import Any

from inferd.daemon.cli.explain import SCREEN
from inferd.protos import inferd_pb2 as pb


def record(age_ms: float, kind: str, summary: str) -> pb.DecisionRecord:
    return pb.DecisionRecord(
        age_ms=age_ms, kind=kind, model="m", inputs='{"model": "m"}', chosen='"r1"', rejected="[]", summary=summary
    )


def test_decisions_are_shown_in_their_order(inferd: Any, daemon: Any) -> None:
    daemon.records = [record(3000, "admit", "taken in"), record(1500, "start", "got a slot")]
    lines = inferd("explain", "r1").stdout.splitlines()
    assert lines[1].split() == ["+0.0", "s", "admit", "m", "taken", "in"]
    assert lines[2].split() == ["+1.5", "s", "start", "m", "got", "a", "slot"]


def test_turns_that_were_lost_in_a_row_for_one_reason_are_one_line(inferd: Any, daemon: Any) -> None:
    lost = [record(100 - i, "start", f"passed over for r{i}: batch goes before (x{i})") for i in range(40)]
    daemon.records = [record(200, "admit", "taken in"), *lost, record(1, "start", "got a slot")]
    out = inferd("explain", "me").stdout
    assert out.count("passed over for") == 1
    assert "passed over 40 times in all" in out


def test_it_fits_on_a_screen(inferd: Any, daemon: Any) -> None:
    daemon.records = [record(100 - i, "queue", f"waits: reason {i}") for i in range(60)]
    lines = inferd("explain", "me").stdout.splitlines()
    assert len(lines) <= SCREEN + 2
    assert any("44 more" in line for line in lines)


def test_scripts_get_every_record(inferd: Any, daemon: Any) -> None:
    daemon.records = [record(5, "admit", "taken in")]
    shown = json.loads(inferd("explain", "r1", "--json").stdout)
    assert shown["request_id"] == "r1"
    (only,) = shown["records"]
    assert (only["kind"], only["inputs"], only["chosen"], only["rejected"]) == ("admit", {"model": "m"}, "r1", [])
