"""`inferd ps` and `inferd cancel`."""

from __future__ import annotations

import json
from typing import Any

import pytest

from inferd.protos import inferd_pb2 as pb


@pytest.fixture
def busy(daemon: Any) -> None:
    daemon.seen = pb.Snapshot(
        version="0.1.0",
        uptime_s=7200,
        models=[
            pb.ModelState(name="demo", state="ready", backend="llama", pid=7, devices=["cpu"], bytes=2**30, slots=4),
            pb.ModelState(name="[red]big", state="loading", load_progress=0.43),
        ],
        requests=[pb.RequestState(id="r1", model="demo", priority="batch", tenant="ada", state="queued", why="slot")],
        devices=[pb.DeviceState(id="cpu", kind="cpu", name="CPU", state="ok", utilization=0.5)],
        rates=pb.Rates(num_requests_running=1, generation_tokens_per_s=42),
        warnings=[pb.Warning(code="c", severity="warning", message="memory is short", remedy="buy some")],
    )


@pytest.mark.usefixtures("busy")
def test_the_json_twin_is_the_contract(inferd: Any) -> None:
    shown = json.loads(inferd("ps", "--json").stdout)
    assert set(shown) == {"models", "requests", "devices", "rates", "warnings"}
    assert shown["models"][0] == {
        "name": "demo", "state": "ready", "backend": "llama", "pid": 7, "devices": ["cpu"], "bytes": 2**30,
        "slots": 4, "running": 0, "pinned": False,
    }  # fmt: skip
    assert shown["models"][1]["pid"] is None
    assert shown["requests"][0] == {
        "id": "r1", "model": "demo", "priority": "batch", "tenant": "ada", "state": "queued", "why": "slot",
        "tokens": 0, "tokens_per_s": 0.0,
    }  # fmt: skip
    assert shown["devices"][0]["utilization"] == 0.5
    assert shown["devices"][0]["power_watts"] is None
    assert shown["rates"]["generation_tokens_per_s"] == 42
    assert shown["rates"]["ttft_p50_ms"] is None
    assert shown["warnings"][0]["remedy"] == "buy some"


@pytest.mark.usefixtures("busy")
def test_people_see_tables(inferd: Any) -> None:
    shown = inferd("ps").stdout
    for part in ("up 2.0 h", "1 running", "42.0 tokens/s", "1.0 GiB", "[red]big", "loading 43%", "queued (slot)"):
        assert part in shown
    assert "memory is short" in shown
    assert "buy some" in shown


def test_an_idle_daemon_has_no_empty_tables(inferd: Any) -> None:
    shown = inferd("ps").stdout
    assert "model" in shown
    assert "request " not in shown


def test_cancel(inferd: Any) -> None:
    done = inferd("cancel", "r1")
    assert (done.exit_code, done.stdout) == (0, "r1 is cancelled\n")
    gone = inferd("cancel", "r2")
    assert (gone.exit_code, gone.stderr) == (4, "inferd: no request r2 is live\n")
    assert json.loads(inferd("cancel", "r2", "--json").stdout) == {"request_id": "r2", "cancelled": False}
