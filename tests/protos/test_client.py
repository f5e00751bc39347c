"""The synchronous client against a scripted daemon."""

from __future__ import annotations

import tempfile
import threading
from itertools import islice
from pathlib import Path
from typing import Any

import grpc
import pytest

from inferd import Client, InferdError, Unreachable
from inferd.protos import inferd_pb2 as pb


def test_one_line_is_enough(daemon: Any) -> None:
    assert Client(daemon.address).generate("demo", "hi").text() == "hello world"


def test_threads_share_a_client(daemon: Any) -> None:
    with Client(daemon.address) as client:
        texts: list[str] = []
        threads = [
            threading.Thread(target=lambda: texts.append(client.generate("demo", "hi").text())) for _ in range(6)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert texts == ["hello world"] * 6


def test_tenant_travels_as_metadata(daemon: Any) -> None:
    with Client(daemon.address, tenant="ada") as client:
        client.generate("demo", "hi").text()
    assert daemon.metadata[0]["inferd-tenant"] == "ada"


def test_the_token_travels_as_metadata(daemon: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERD_TOKEN", "theirs")
    for token, sent in ((None, "Bearer theirs"), ("ours", "Bearer ours"), ("", None)):
        with Client(daemon.address, token=token) as client:
            client.whoami()
            client.generate("demo", "hi").text()
        # Both kinds of calls carry it.
        assert [metadata.get("authorization") for metadata in daemon.metadata[-2:]] == [sent, sent]


def test_tokens_are_made_shown_and_revoked(daemon: Any) -> None:
    with Client(daemon.address) as client:
        made = client.create_token("ada", "viewer", ttl_s=60.0)
        assert (made.token, made.info.role, made.info.tenant) == ("inferd_0a1b2c3d_secret", "viewer", "ada")
        assert [token.name for token in client.tokens()] == ["ada"]
        assert (client.revoke_token("ada"), client.revoke_token("bob")) == (True, False)
        client.create_token("bob")
    assert daemon.asked[0].ttl_s == 60.0
    assert (daemon.asked[-1].role, daemon.asked[-1].HasField("ttl_s")) == ("user", False)


def test_a_refusal_carries_reason_limits_and_retry(daemon: Any, steps: Any) -> None:
    refused = grpc.StatusCode.RESOURCE_EXHAUSTED
    daemon.script = [steps.fail(refused, "no_room", "needs 9 GB", 1500, needed_bytes="9", free_bytes="4")]
    with Client(daemon.address) as client, pytest.raises(InferdError) as caught:
        client.generate("demo", "hi").text()
    error = caught.value
    assert (error.code, error.message, error.retry_after_ms) == ("no_room", "needs 9 GB", 1500)
    assert error.details == {"needed_bytes": "9", "free_bytes": "4"}
    assert not isinstance(error, Unreachable)


def test_shutting_down_is_not_tried_again(daemon: Any, steps: Any) -> None:
    daemon.script = [steps.fail(grpc.StatusCode.UNAVAILABLE, "shutting_down", "draining")]
    with Client(daemon.address) as client, pytest.raises(InferdError) as caught:
        client.generate("demo", "hi").text()
    assert caught.value.code == "shutting_down"
    assert len(daemon.requests) == 1


def test_nobody_there_is_unreachable(quiet_daemon: Any) -> None:
    with Client(quiet_daemon.address, connect_timeout_s=0.2) as client:
        for call in (client.snapshot, client.generate("demo", "hi").text, client.load("demo").wait):
            with pytest.raises(Unreachable, match="no daemon at unix:"):
                call()


@pytest.mark.parametrize("streaming", [True, False])
def test_a_starting_daemon_is_waited_for(quiet_daemon: Any, streaming: Any) -> None:
    timer = threading.Timer(0.3, quiet_daemon.start)
    timer.start()
    with Client(quiet_daemon.address, connect_timeout_s=10) as client:
        if streaming:
            assert client.generate("demo", "hi").text() == "hello world"
        else:
            assert client.snapshot().version == "0.1.0"
    timer.join()


def test_an_unbounded_silence_ends_at_the_timeout(daemon: Any) -> None:
    daemon.refusal = daemon.forever
    with Client(daemon.address, timeout_s=0.1) as client, pytest.raises(InferdError) as caught:
        client.snapshot()
    assert caught.value.code == "deadline"


def test_the_other_calls(daemon: Any) -> None:
    with Client(daemon.address) as client:
        assert client.tokenize("demo", "hi") == [1, 2, 3]
        assert client.cancel("r1") is True
        assert client.cancel("gone") is False
        assert [m.name for m in client.models()] == ["demo"]
        assert [(p.state, p.progress) for p in client.load("demo")] == [("loading", 0.5), ("ready", 1)]
        assert client.unload("demo", force=True) is True
        assert client.snapshot().sequence == 1
    assert daemon.asked[0].prompt == "hi"
    assert daemon.asked[-2].force is True


def test_a_closed_client_says_so(daemon: Any) -> None:
    client = Client(daemon.address)
    client.close()
    with pytest.raises(RuntimeError, match="closed"):
        client.snapshot()
    with pytest.raises(RuntimeError, match="closed"):
        client.generate("demo", "hi")


def test_a_socket_may_have_a_strange_name(steps: Any) -> None:
    with tempfile.TemporaryDirectory(prefix="a b%20#?é") as folder:
        daemon = steps.ScriptedDaemon(Path(folder))
        daemon.start()
        with Client(daemon.address) as client:
            assert client.snapshot().sequence == 1
        daemon.stop()


def test_a_plan_and_an_explanation_are_asked_for(daemon: Any) -> None:
    daemon.records = [pb.DecisionRecord(kind="admit")]
    with Client(daemon.address) as client:
        assert client.plan("demo").outcome == "fits"
        assert [record.kind for record in client.explain("r1")] == ["admit"]
    assert [type(request).__name__ for request in daemon.asked] == ["PlanLoadRequest", "ExplainRequest"]


def test_a_name_that_no_message_can_hold_is_refused_by_field() -> None:
    with Client("unix:/nowhere") as client:
        for call in (client.plan, client.load, client.lease, client.unload, client.pin):
            with pytest.raises(InferdError, match=r"^model: "):
                call("\ud800")
        for ask in (client.explain, client.cancel):
            with pytest.raises(InferdError, match=r"^request_id: "):
                ask("\ud800")


def test_what_operators_ask_for(daemon: Any) -> None:
    with Client(daemon.address, tenant="ada") as client:
        assert client.set_priority("r1", "interactive") is True
        assert client.set_priority("gone", "normal") is False
        assert client.pin("demo") is False
        assert client.pin("demo", pinned=False) is True
        assert client.drain() is False
        assert client.drain(draining=False) is True
        assert list(client.reload().changed) == ["queue.max_requests", "log_level"]
        assert (client.whoami().tenant, client.whoami().role) == ("ada", "operator")
    assert [request.priority for request in daemon.asked[:2]] == [pb.INTERACTIVE, pb.NORMAL]
    assert [request.pinned for request in daemon.asked[2:4]] == [True, False]
    assert [request.draining for request in daemon.asked[4:6]] == [True, False]


def test_a_model_is_pulled_and_named(daemon: Any) -> None:
    with Client(daemon.address) as client:
        assert [report.state for report in client.pull("a/b", "c.gguf")] == ["resolving", "fetching", "ready"]
        last = client.pull("a/b", revision="v1", name="n", sha256=None).wait()
        assert last is not None
        assert last.model == "t"
        assert client.set_alias("mine", "t") == ""
        assert client.set_alias("mine", "") == "old"
    assert daemon.asked[:2] == [
        pb.PullModelRequest(repo="a/b", file="c.gguf"),
        pb.PullModelRequest(repo="a/b", revision="v1", name="n"),
    ]
    assert daemon.asked[2:] == [pb.SetAliasRequest(alias="mine", model="t"), pb.SetAliasRequest(alias="mine")]


def test_events_are_kept_ones_and_then_those_that_come(daemon: Any) -> None:
    with Client(daemon.address) as client:
        assert [event.sequence for event in client.events(after=7, severity="warning", follow=False)] == [8, 9]
        following = client.events()
        assert [event.sequence for event in islice(following, 2)] == [8, 9]
        following.cancel()
        assert daemon.ended.wait(5)
    asked, default = daemon.asked
    assert (asked.after, asked.severity, asked.follow) == (7, "warning", False)
    assert (default.HasField("after"), default.severity, default.follow) == (False, "", True)


def test_a_class_that_nobody_knows_is_refused_by_field() -> None:
    with Client("unix:/nowhere") as client, pytest.raises(InferdError, match=r"^priority: .*interactive, normal"):
        client.set_priority("r1", "urgent")
