"""`inferd events`."""

from __future__ import annotations

import json
from typing import Any

import grpc

from inferd.daemon.cli.events import line
from inferd.protos import inferd_pb2 as pb


def test_what_is_kept_is_shown_and_that_is_all(inferd: Any, daemon: Any) -> None:
    shown = inferd("events").stdout.splitlines()
    assert [text.split("  ", 1)[1] for text in shown] == [
        "info     model_ready       demo is ready",
        "warning  draining          nothing is taken in",
    ]
    assert (daemon.asked[0].follow, daemon.asked[0].severity) == (False, "")


def test_json_is_one_object_a_line(inferd: Any, daemon: Any) -> None:
    first, second = map(json.loads, inferd("events", "--json", "--severity", "warning").stdout.splitlines())
    assert first == {
        "sequence": 8, "unix_s": 1.5, "severity": "info", "kind": "model_ready", "message": "demo is ready",
        "model": "demo", "request_id": "", "tenant": "", "device": "",
    }  # fmt: skip
    assert second["sequence"] == 9
    assert daemon.asked[0].severity == "warning"


def test_following_goes_on_until_the_daemon_ends(inferd: Any, daemon: Any) -> None:
    daemon.ended.set()  # as if it ended at once
    assert len(inferd("events", "-f").stdout.splitlines()) == 2
    assert daemon.asked[0].follow


def test_a_severity_that_nobody_knows_is_bad_usage(inferd: Any, daemon: Any, steps: Any) -> None:
    invalid = grpc.StatusCode.INVALID_ARGUMENT
    daemon.refusal = steps.fail(invalid, "invalid", "severity must be one of info, warning, error", field="severity")
    shown = inferd("events", "--severity", "loud")
    assert (shown.exit_code, shown.stderr) == (2, "inferd: severity must be one of info, warning, error\n")


def test_an_event_is_one_line_without_what_a_terminal_obeys() -> None:
    text = line(pb.Event(severity="error", kind="worker_crashed", message="a\nb\x1b[31m"))
    assert text.endswith("error    worker_crashed    a b[31m")
