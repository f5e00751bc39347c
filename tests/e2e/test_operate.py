"""Operators at a running daemon: another class, pins, events, draining, by the command line and from Python."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from inferd import AsyncClient, InferdError
from inferd.tests.e2e.daemons import environment, is_serving, until

if TYPE_CHECKING:
    from typing import Any

    from inferd.tests.e2e.daemons import Daemon, Launcher

WAIT_S = 60.0


def inferd(daemon: Daemon, *arguments: str) -> subprocess.CompletedProcess[str]:
    """One command line, as somebody in a terminal would run it."""
    words = [sys.executable, "-m", "inferd.daemon.cli.app", *arguments, "--address", daemon.address]
    variables = environment(daemon.log.parent)
    return subprocess.run(words, capture_output=True, text=True, timeout=WAIT_S, env=variables, check=False)


def as_json(daemon: Daemon, *arguments: str) -> Any:
    done = inferd(daemon, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def happened(daemon: Daemon, *arguments: str) -> list[dict[str, Any]]:
    done = inferd(daemon, "events", "--json", *arguments)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_one_that_waits_behind_others_is_moved_to_the_front(daemon: Daemon) -> None:
    client = daemon.client
    busy = client.generate("single", "fake:tokens=20000", request_id="busy")
    deltas = iter(busy)
    next(deltas)
    first = client.generate("single", "fake:tokens=4000", request_id="first", priority="batch")
    second = client.generate("single", "fake:tokens=5", request_id="second", priority="batch")
    until(lambda: {r.id: r.why for r in daemon.snapshot().requests if r.why} == {"first": "slot", "second": "slot"})
    moved = inferd(daemon, "priority", "second", "interactive")
    assert (moved.returncode, moved.stdout) == (0, "second is interactive\n")
    assert {r.id: r.priority for r in daemon.snapshot().requests}["second"] == "interactive"
    busy.cancel()
    assert len(second.text().split()) == 5
    assert "first" in daemon.live()
    first.cancel()
    until(daemon.idle)
    kinds = [record["kind"] for record in as_json(daemon, "explain", "second")["records"]]
    assert kinds.index("priority") < kinds.index("start")
    assert "moved from batch to interactive by an operator" in inferd(daemon, "explain", "second").stdout
    (event,) = [event for event in happened(daemon) if event["kind"] == "priority_changed"]
    assert (event["request_id"], event["model"], event["tenant"]) == ("second", "single", "default")
    gone = inferd(daemon, "priority", "second", "batch")
    assert (gone.returncode, gone.stderr) == (4, "inferd: no request second is live\n")


def test_one_that_becomes_interactive_has_a_running_batch_request_make_way(daemon: Daemon) -> None:
    client = daemon.client
    batch = client.generate("single", "fake:tokens=20000", request_id="batch", priority="batch")
    deltas = iter(batch)
    next(deltas)
    waits = client.generate("single", "fake:tokens=5", request_id="waits", priority="batch")
    until(lambda: daemon.live().get("waits") == "queued")
    assert client.set_priority("waits", "interactive")
    assert len(waits.text().split()) == 5
    assert "batch" in daemon.live()
    batch.cancel()
    until(daemon.idle)


def test_a_worker_that_dies_is_an_event_and_so_is_what_goes_on(daemon: Daemon) -> None:
    answer = daemon.client.generate("small", "fake:tokens=400", request_id="hit")
    deltas = iter(answer)
    next(deltas)
    with daemon.client.events(follow=False) as so_far:
        last = max(event.sequence for event in so_far)
    os.kill(daemon.worker_pid("small"), signal.SIGKILL)
    assert sum(len(delta.tokens) for delta in deltas) > 0
    assert answer.resumed == 1
    with daemon.client.events(after=last) as events:  # those that are there, and those that come
        kinds = []
        for event in events:
            kinds.append(event.kind)
            if event.kind == "resumed":
                assert (event.request_id, event.model) == ("hit", "small")
                break
    assert kinds == ["worker_crashed", "model_loading", "model_ready", "resumed"]
    (crash,) = [event for event in happened(daemon, "--severity", "error") if event["kind"] == "worker_crashed"]
    assert crash["model"] == "small"
    assert "signal SIGKILL" in crash["message"]
    shown = inferd(daemon, "events", "--severity", "error").stdout
    assert f"error    worker_crashed    {crash['message']}" in shown
    bad = inferd(daemon, "events", "--severity", "loud")
    assert bad.returncode == 2
    assert "info, warning, error" in bad.stderr


def test_a_model_is_pinned_and_unpinned(daemon: Daemon) -> None:
    assert list(daemon.client.load("other"))
    assert as_json(daemon, "pin", "other") == {"model": "other", "pinned": True, "was_pinned": False}
    assert (model := daemon.model("other")) is not None
    assert model.pinned
    assert as_json(daemon, "unpin", "other") == {"model": "other", "pinned": False, "was_pinned": True}
    assert (model := daemon.model("other")) is not None
    assert not model.pinned
    unknown = inferd(daemon, "pin", "nobody")
    assert unknown.returncode == 4
    assert "there is no model 'nobody'" in unknown.stderr


def serving(daemon: Daemon, service: str) -> bool:
    request = health_pb2.HealthCheckRequest(service=service)
    answer = health_pb2_grpc.HealthStub(daemon.channel).Check(request, timeout=WAIT_S)
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def test_draining_lets_nobody_in_until_it_ends(daemon: Daemon) -> None:
    runs = daemon.client.generate("small", "fake:tokens=200")
    deltas = iter(runs)
    next(deltas)
    try:
        assert as_json(daemon, "drain") == {"draining": True, "was_draining": False}
        refused = inferd(daemon, "run", "small", "hello", "--json")
        assert refused.returncode == 4
        error = json.loads(refused.stderr)["error"]
        assert (error["code"], error["retry_after_ms"]) == ("draining", 5000)
        with pytest.raises(InferdError, match="draining"):
            daemon.client.load("small").wait()
        until(lambda: not serving(daemon, "inferd.v1.Inference"))
        assert not serving(daemon, "inference.GRPCInferenceService")
        assert serving(daemon, "inferd.v1.Monitor")
        assert is_serving(daemon.address)
        assert sum(len(delta.tokens) for delta in deltas) > 0
        assert runs.usage is not None
        assert runs.usage.completion_tokens == 200
    finally:
        assert inferd(daemon, "drain", "--off").stdout == "the daemon is serving\n"
    until(lambda: serving(daemon, "inferd.v1.Inference"))
    assert len(daemon.client.generate("small", "fake:tokens=2").text().split()) == 2
    switched = ("draining", "serving")  # the second comes with the next second where the first is less than that ago
    until(lambda: [event["kind"] for event in happened(daemon) if event["kind"] in switched] == list(switched))


async def test_operating_from_asyncio(daemon: Daemon) -> None:
    async with AsyncClient(daemon.address, tenant="ada") as client:
        assert ((await client.whoami()).tenant, (await client.whoami()).role) == ("ada", "operator")
        assert not await client.set_priority("nobody", "batch")
        assert not await client.pin("small", pinned=False)
        assert not await client.drain(draining=False)
        kinds = [event.kind async for event in client.events(follow=False)]
        assert kinds[0] == "daemon_started"


def test_sequences_of_events_grow_over_restarts(launcher: Launcher) -> None:
    config = "[fake]\nenabled = true\n"
    daemon = launcher.start(config, name="again")
    started = happened(daemon)[0]
    assert (started["kind"], started["severity"]) == ("daemon_started", "info")
    assert daemon.terminate() == 0
    again = launcher.start(config, name="again")
    with again.client.events(after=started["sequence"], follow=False) as events:
        assert next(iter(events)).kind == "daemon_started"
