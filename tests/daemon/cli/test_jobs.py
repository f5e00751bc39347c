"""Work that outlives its client, from the command line."""

from __future__ import annotations

import json
from typing import Any

import pytest

from inferd.protos import inferd_pb2 as pb


def test_a_job_is_submitted(inferd: Any, daemon: Any) -> None:
    done = inferd("jobs", "submit", "demo", "tell a story", "--key", "k", "--max-tokens", "9")
    assert (done.exit_code, done.stdout) == (0, "j1\n")
    (asked,) = daemon.asked
    assert (asked.idempotency_key, asked.request.max_tokens, asked.request.priority) == ("k", 9, pb.BATCH)
    assert asked.request.messages.messages[0].content == "tell a story"
    assert json.loads(inferd("jobs", "submit", "demo", "x", "--json").stdout)["id"] == "j1"


def test_a_prompt_may_come_through_a_pipe(inferd: Any, daemon: Any) -> None:
    assert inferd("jobs", "submit", "demo", stdin="from a pipe").exit_code == 0
    assert inferd("jobs", "submit", "demo", "-", stdin="from a pipe").exit_code == 0
    assert [it.request.messages.messages[0].content for it in daemon.asked] == ["from a pipe"] * 2
    assert inferd("jobs", "submit", "demo", stdin="").exit_code == 2


def test_who_waits_gets_the_answer(inferd: Any) -> None:
    done = inferd("jobs", "submit", "demo", "hi", "--wait")
    assert (done.exit_code, done.stdout) == (0, "hello world\n")
    shown = json.loads(inferd("jobs", "submit", "demo", "hi", "--wait", "--json").stdout)
    assert (shown["state"], shown["text"], shown["finish_reason"]) == ("done", "hello world", "stop")


def test_jobs_are_listed(inferd: Any, daemon: Any) -> None:
    daemon.job.error = "why\x1b[0m"
    shown = inferd("jobs", "list", "--state", "running", "--limit", "7").stdout
    assert "j1" in shown
    assert "why[0m" in shown
    assert (daemon.asked[0].state, daemon.asked[0].limit) == ("running", 7)
    (row,) = json.loads(inferd("jobs", "list", "--json").stdout)["jobs"]
    assert (row["id"], row["tokens"], row["ended_unix_s"]) == ("j1", 2, None)
    assert inferd("jobs", "list", "--state", "done").stdout == "no jobs\n"


def test_one_is_shown(inferd: Any, daemon: Any) -> None:
    daemon.job.resumed = 3
    shown = inferd("jobs", "show", "j1").stdout
    assert "3 times" in shown
    assert "error" not in shown
    assert json.loads(inferd("jobs", "show", "j1", "--json").stdout)["resumed"] == 3


def test_its_answer_is_read_from_a_token_on(inferd: Any, daemon: Any) -> None:
    assert inferd("jobs", "stream", "j1", "--offset", "1").stdout == " world\n"
    assert daemon.asked[0].offset == 1


@pytest.mark.parametrize("as_json", [False, True])
def test_one_that_failed_says_so(inferd: Any, daemon: Any, as_json: bool) -> None:
    daemon.outputs[-1] = pb.JobOutput(ended=pb.Job(id="j1", state="failed", error="it was late"))
    done = inferd("jobs", "stream", "j1", *(["--json"] if as_json else []))
    assert (done.exit_code, done.stderr) == (5, "inferd: job j1 is failed: it was late\n")


def test_one_is_cancelled(inferd: Any) -> None:
    assert inferd("jobs", "cancel", "j1").stdout == "job j1 is cancelled\n"
    gone = inferd("jobs", "cancel", "j2")
    assert (gone.exit_code, gone.stderr) == (4, "inferd: job j2 has ended already\n")
    gone = inferd("jobs", "cancel", "j2", "--json")
    assert (gone.exit_code, json.loads(gone.stdout)) == (4, {"id": "j2", "cancelled": False})
