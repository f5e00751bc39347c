"""`inferd bench`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from inferd.daemon.cli.app import app
from inferd.protos import inferd_pb2 as pb

if TYPE_CHECKING:
    from pathlib import Path

    from typer.testing import Result


@pytest.fixture
def trace(tmp_path: Path) -> str:
    path = tmp_path / "trace.csv"
    rows = [f"{i / 10},{'ab'[i % 2]},{20 + i},{10 + i % 7}" for i in range(100)]
    path.write_text("\n".join(["req_time_s,client,prompt_len,output_len", *rows]))
    return str(path)


def bench(*args: str) -> Result:
    return CliRunner().invoke(app, ["bench", *args])


def test_people_see_a_table_and_what_has_no_column(trace: str) -> None:
    shown = bench("--trace", trace, "--classes", "interactive=1,batch=1", "--slots", "2", "--limit-s", "batch=3").stdout
    assert "fair, 2 slots, 30 tokens/s a stream, prompts at 3,000 tokens/s: 100 requests in 9.9 s" in shown
    for part in ("interactive", "batch", "all", "TTFT p50", "refused: wait", "service gap", "preemptions", "ETA: "):
        assert part in shown


def test_the_json_twin(trace: str) -> None:
    shown = json.loads(
        bench("--trace", trace, "--json", "--policy", "fifo", "--deadline-ms", "interactive=60000").stdout
    )
    assert shown["setting"].startswith("fifo, 8 slots")
    assert shown["total"]["requests"] == shown["total"]["done"] == 100
    assert [one["name"] for one in shown["classes"]] == ["interactive"]


def test_the_same_run_twice_is_the_same(trace: str) -> None:
    assert bench("--trace", trace).stdout == bench("--trace", trace).stdout


def test_a_window_of_the_trace_faster_and_cut(trace: str) -> None:
    args = (
        "--from",
        "2",
        "--to",
        "4",
        "--speed",
        "2",
        "--max-output-tokens",
        "1",
        "--max-prompt-tokens",
        "5",
        "--json",
    )
    shown = json.loads(bench("--trace", trace, *args).stdout)
    assert shown["total"]["requests"] == 20
    assert shown["span_s"] == pytest.approx(0.95)


def test_what_is_replayed_can_be_saved_and_replayed_again(trace: str, tmp_path: Path) -> None:
    saved = str(tmp_path / "saved.csv")
    shown = bench("--trace", trace, "--classes", "normal=1,batch=1", "--speed", "2", "--save", saved).stdout
    assert bench("--trace", saved).stdout == shown
    done = bench("--trace", trace, "--save", str(tmp_path))
    assert (done.exit_code, done.stderr) == (2, f"inferd: {tmp_path}: Is a directory\n")


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        (("--classes", "urgent=1"), "--classes: there is no class 'urgent'; there are interactive, normal, batch"),
        (("--tenants", "a"), "--tenants must be NAME=NUMBER,... with numbers above 0, not 'a'"),
        (("--limit-s", "batch=-1"), "--limit-s must be"),
        (("--speed", "0"), "--speed must be above 0"),
        (("--from", "900"), "no request between 900 and inf s"),
        (("--live", "--policy", "fifo"), "--live asks the daemon that runs"),
    ],
)
def test_bad_usage_is_named(trace: str, args: tuple[str, ...], complaint: str) -> None:
    done = bench("--trace", trace, *args)
    assert done.exit_code == 2
    assert complaint in done.stderr


def test_a_trace_that_cannot_be_read_is_bad_usage(tmp_path: Path) -> None:
    done = bench("--trace", str(tmp_path / "none.csv"))
    assert (done.exit_code, done.stderr) == (2, f"inferd: {tmp_path}/none.csv: No such file or directory\n")


def test_live_the_daemon_is_asked(inferd: Any, daemon: Any, trace: str) -> None:
    shown = inferd("bench", "--trace", trace, "--live", "--speed", "50", "--to", "1").stdout
    assert "live, demo: 10 requests in" in shown
    assert len(daemon.requests) == 10


def test_a_replay_with_the_costs_of_the_daemons_model(inferd: Any, daemon: Any, trace: str) -> None:
    daemon.seen = pb.Snapshot(models=[pb.ModelState(name="demo", slots=3, kv_cells=2048, context_tokens=1024)])
    shown = inferd("bench", "--trace", trace, "--measure").stdout
    assert "fair, 3 slots, steps of 10.00 ms + 0.00 ms a stream, prompts at 128,000 tokens/s" in shown


def test_no_daemon_is_the_usual_failure(trace: str, tmp_path: Path) -> None:
    assert bench("--trace", trace, "--live", "--address", f"unix:{tmp_path}/none.sock").exit_code == 3
