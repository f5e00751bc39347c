"""What an operator does while the daemon runs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from inferd.protos import inferd_pb2 as pb


def test_a_request_is_moved_to_another_class(inferd: Any, daemon: Any) -> None:
    done = inferd("priority", "r1", "interactive")
    assert (done.exit_code, done.stdout) == (0, "r1 is interactive\n")
    assert (daemon.asked[0].request_id, daemon.asked[0].priority) == ("r1", pb.INTERACTIVE)
    shown = json.loads(inferd("priority", "r1", "batch", "--json").stdout)
    assert shown == {"request_id": "r1", "priority": "batch", "changed": True}


def test_one_that_is_over_cannot_be_moved(inferd: Any) -> None:
    gone = inferd("priority", "r2", "batch")
    assert (gone.exit_code, gone.stderr) == (4, "inferd: no request r2 is live\n")
    gone = inferd("priority", "r2", "batch", "--json")
    assert (gone.exit_code, json.loads(gone.stdout)["changed"]) == (4, False)


# The scripted daemon says that it was the other way round before.
@pytest.mark.parametrize(("verb", "pinned", "said"), [("pin", True, "is pinned"), ("unpin", False, "is not pinned")])
def test_a_model_is_pinned_and_unpinned(inferd: Any, daemon: Any, verb: str, pinned: bool, said: str) -> None:
    assert inferd(verb, "demo").stdout == f"demo {said}\n"
    assert (daemon.asked[0].model, daemon.asked[0].pinned) == ("demo", pinned)
    shown = json.loads(inferd(verb, "demo", "--json").stdout)
    assert shown == {"model": "demo", "pinned": pinned, "was_pinned": not pinned}


def test_the_daemon_drains_and_serves_again(inferd: Any, daemon: Any) -> None:
    assert inferd("drain").stdout == "the daemon is draining: no new request is taken in\n"
    assert inferd("drain", "--off").stdout == "the daemon is serving\n"
    assert [request.draining for request in daemon.asked] == [True, False]
    assert json.loads(inferd("drain", "--json").stdout) == {"draining": True, "was_draining": False}
    assert json.loads(inferd("drain", "--off", "--json").stdout) == {"draining": False, "was_draining": True}


def test_what_was_so_already_is_said(inferd: Any, daemon: Any) -> None:
    daemon.already = True
    assert inferd("drain").stdout == "the daemon is already draining: no new request is taken in\n"
    assert inferd("drain", "--off").stdout == "the daemon is already serving\n"
    assert inferd("pin", "demo").stdout == "demo is already pinned\n"
    assert inferd("unpin", "demo").stdout == "demo is already not pinned\n"


def test_the_config_is_read_again(inferd: Any) -> None:
    told = "changed: queue.max_requests, log_level\nfrom the next start of the daemon: fake.enabled\n"
    assert inferd("reload").stdout == told
    shown = json.loads(inferd("reload", "--json").stdout)
    assert shown == {"changed": ["queue.max_requests", "log_level"], "needs_restart": ["fake.enabled"]}


def test_who_the_daemon_takes_you_for(inferd: Any) -> None:
    assert inferd("whoami").stdout == "operator of tenant default\n"
    assert json.loads(inferd("whoami", "--json").stdout) == {"tenant": "default", "role": "operator"}
