"""`inferd plan`: the verdict first, then the figures."""

from __future__ import annotations

import json
from typing import Any

import pytest

from inferd.daemon.cli.plan import verdict
from inferd.protos import inferd_pb2 as pb


def test_a_model_that_fits(inferd: Any) -> None:
    result = inferd("plan", "demo")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0] == "demo on cpu: fits, about 1.5 s"
    assert lines[2].split() == ["host", "64.0", "MiB", "1.0", "GiB"]


def test_who_makes_way_and_who_does_not(inferd: Any, daemon: Any) -> None:
    daemon.plan = pb.PlanLoadResponse(model="big", outcome="evicts", devices=["gpu0"], victims=["a"], load_ms=4000)
    daemon.plan.holders.add(model="a", bytes=1 << 30, cost=0.5)
    daemon.plan.holders.add(model="b", bytes=1 << 30, stays="pinned")
    daemon.plan.holders.add(model="c", bytes=1 << 30, cost=9.0)
    out = inferd("plan", "big").stdout
    assert "big on gpu0: fits after a made way, about 4.0 s" in out
    assert [line.split()[3] for line in out.splitlines()[-3:]] == ["yes", "pinned", "could"]


def test_a_refusal_says_what_would_help(inferd: Any, daemon: Any) -> None:
    daemon.plan = pb.PlanLoadResponse(
        model="big", outcome="refused", devices=["cpu"], message="big needs 9 MiB", change="kv_cells = 4096"
    )
    out = inferd("plan", "big").stdout
    assert "big on cpu: does not fit: big needs 9 MiB" in out
    assert "it would fit with: kv_cells = 4096" in out


def test_scripts_get_all_of_it(inferd: Any) -> None:
    shown = json.loads(inferd("plan", "demo", "--json").stdout)
    assert shown["outcome"] == "fits"
    assert shown["pools"] == [{"pool": "host", "needed_bytes": 64 << 20, "free_bytes": 1 << 30}]
    assert shown["holders"] == []


@pytest.mark.parametrize(("outcome", "words"), [("loaded", "is loaded already"), ("waits", "has to wait: x")])
def test_other_verdicts(outcome: str, words: str) -> None:
    report = pb.PlanLoadResponse(model="m", outcome=outcome, devices=["cpu"], message="x")
    assert verdict(report) == f"m on cpu: {words}"
