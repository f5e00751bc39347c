"""Lines in a file, or none: never an exception."""

from __future__ import annotations

import json
import resource
import signal
import stat
from typing import TYPE_CHECKING

from inferd.daemon.policy.journal import recompute
from inferd.daemon.replay.arrivals import read_trace
from inferd.daemon.system import recorder as recorders
from inferd.daemon.system.recorder import Arrivals, Decisions
from inferd.tests.daemon.policy.tools import BATCH, CHAT, job, ready

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_arrivals_can_be_replayed(tmp_path: Path) -> None:
    path = tmp_path / "arrivals.csv"
    recorder = Arrivals(path, epoch_s=1e9)
    for arrived_s, priority, deadline_ms in ((101.5, BATCH, None), (103.25, CHAT, 5000)):
        one = job(priority, tenant="a, b", n_prompt=7, arrived_s=arrived_s, deadline_ms=deadline_ms)
        one.generated = [1] * 9
        recorder.on_over(one)
    recorder.on_over(job(n_prompt=None))  # refused before it was read
    recorder.close()
    first, second = read_trace(path)
    assert (first.at_s, first.tenant, first.priority, first.prompt_tokens, first.output_tokens) == (
        0.0, "a, b", BATCH, 7, 9,
    )  # fmt: skip
    assert (second.at_s, second.deadline_ms) == (1.75, 5000)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_second_daemon_goes_on_in_the_same_file(tmp_path: Path) -> None:
    one = job(arrived_s=5.0)
    one.generated = [1]
    for started_s in (1000.0, 4600.0):
        recorder = Arrivals(tmp_path / "a.csv", epoch_s=started_s)
        recorder.on_over(one)
        recorder.close()
    assert [arrival.at_s for arrival in read_trace(tmp_path / "a.csv")] == [0.0, 3600.0]


def test_decisions_can_be_made_again(tmp_path: Path) -> None:
    path, it = tmp_path / "decisions.jsonl", ready()
    decisions = Decisions(path)
    it.journal.sink = decisions.note
    it.on_request(job(BATCH), 0.0)
    it.on_request(job(CHAT), 0.0)
    decisions.close()
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert [record["kind"] for record in records] == ["admit", "start", "admit", "preempt"]
    for record in records:
        assert recompute(record["kind"], record["question"]) == record["answer"]


def test_what_cannot_be_written_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    recorder = Decisions(tmp_path / "missing" / "decisions.jsonl")
    recorder.write("x")
    recorder.write("y")
    assert len(caplog.records) == 1


def test_it_goes_on_when_there_is_room_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorders, "PAUSE_S", 0.0)
    path = tmp_path / "decisions.jsonl"
    recorder = Decisions(path)
    recorder.write("first\n")
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 3, hard))  # as good as a full disk
    try:
        recorder.write("second\n")
        recorder.write("third\n")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        signal.signal(signal.SIGXFSZ, before)
    recorder.write("fourth\n")
    recorder.write("fifth\n")
    recorder.close()
    assert path.read_text().splitlines() == ["first", "fourth", "fifth"]
    assert len(caplog.records) == 1
