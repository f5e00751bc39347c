"""`inferd ps` and `inferd cancel`."""

from __future__ import annotations

import json
from typing import Any

import pytest
from rich.console import Console

from inferd.daemon.cli import common
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
        requests=[
            pb.RequestState(id="r0", model="demo", state="running"),
            pb.RequestState(
                id="r2", model="demo", state="queued", why="slot", why_text="all 4 slots of demo are taken", position=3
            ),
            pb.RequestState(
                id="r1",
                model="demo",
                priority="batch",
                tenant="ada",
                state="queued",
                why="slot",
                position=0,
                why_text="all 4 slots of demo are taken; it is next",
                eta_low_ms=1200,
                eta_high_ms=3400,
            ),
        ],
        state="draining",
        tenants=[pb.TenantState(tenant="ada", waiting=1)],
        host=pb.HostState(name="here", cores=4),
        devices=[pb.DeviceState(id="cpu", kind="cpu", name="CPU", state="ok", utilization=0.5)],
        rates=pb.Rates(num_requests_running=1, generation_tokens_per_s=42),
        warnings=[pb.Warning(code="c", severity="warning", message="memory is short", remedy="buy some")],
    )


@pytest.mark.usefixtures("busy")
def test_the_json_twin_is_the_contract(inferd: Any) -> None:
    shown = json.loads(inferd("ps", "--json").stdout)
    assert set(shown) == {
        "models", "requests", "devices", "rates", "warnings", "tenants", "host", "state", "version", "uptime_s",
        "sequence",
    }  # fmt: skip
    model = {
        "name": "demo", "state": "ready", "backend": "llama", "pid": 7, "devices": ["cpu"], "bytes": 2**30,
        "slots": 4, "running": 0, "pinned": False,
    }  # fmt: skip
    assert model.items() <= shown["models"][0].items()
    assert shown["models"][1]["pid"] is None
    request = {
        "id": "r1", "model": "demo", "priority": "batch", "tenant": "ada", "state": "queued", "why": "slot",
        "tokens": 0, "tokens_per_s": 0.0, "position": 0, "eta_low_ms": 1200.0, "deadline_in_ms": None,
    }  # fmt: skip
    assert request.items() <= shown["requests"][2].items()
    assert shown["tenants"][0]["waiting"] == 1
    assert (shown["host"]["name"], shown["state"], shown["version"], shown["uptime_s"]) == (
        "here", "draining", "0.1.0", 7200.0,
    )  # fmt: skip
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


@pytest.mark.usefixtures("busy")
def test_people_see_why_each_one_waits_and_until_when_in_the_order_of_service(inferd: Any) -> None:
    shown = inferd("ps").stdout
    assert "0.1.0, draining, up" in shown
    lines = shown.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("waits"))
    first, second, after = (line.split() for line in lines[at + 1 : at + 4])
    assert first[:7] == ["r1", "0", "1.2", "s", "to", "3.4", "s"]
    assert " ".join(first[7:]) == "all 4 slots of demo are taken; it is next"
    assert second[:3] == ["r2", "3", "-"]
    assert after == []


@pytest.mark.usefixtures("busy")
def test_a_long_reason_is_wrapped_between_words(daemon: Any, inferd: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "llama3-70b needs 31.0 GiB on gpu0 and 4.9 GiB are free; held by qwen2.5-7b (busy), embed-e5 (just loaded)"
    daemon.seen.requests[1].why_text = text
    monkeypatch.setattr(common, "console", lambda: Console(width=80, markup=False, highlight=False, emoji=False))
    lines = inferd("ps").stdout.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("r2") and "llama3" in line)
    wrapped = [line[lines[at].index("llama3") :] for line in lines[at:]]
    assert " ".join(piece.strip() for piece in wrapped[: wrapped.index("")]) == text


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
