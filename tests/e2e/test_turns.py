"""Turns, swaps and leases as clients see them: a real daemon, real sockets, the fake engine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from inferd import Client, InferdError
from inferd.tests.e2e.daemons import Daemon, until

if TYPE_CHECKING:
    from inferd.tests.e2e.daemons import Launcher

RATE = 200.0
FOR_ONE = 45 << 20  # the fake engine books 30 MiB; prompts come as tokens, so that no helper is needed
CONFIG = f"""
[models.defaults]
slots = 1
[fake]
enabled = true
tokens_per_s = {RATE}
[scheduler]
min_resident_s = 0.0
[scheduler.interactive]
max_wait_s = 1.5
[memory]
host_budget_bytes = {FOR_ONE}
"""


@pytest.fixture(scope="module")
def tight(launcher: Launcher) -> Daemon:
    """Room for one of `small` and `other`."""
    return launcher.start(CONFIG, name="tight")


def say(daemon: Daemon, tokens: int, model: str = "small", **options: Any) -> Any:
    prompt = [ord(char) for char in f"fake:tokens={tokens}"]
    return daemon.client.generate(model, prompt, **options)


def test_an_urgent_request_does_not_wait_for_those_that_can(tight: Daemon) -> None:
    batch = [say(tight, 400, priority="batch", request_id=f"batch-{i}") for i in range(20)]
    until(lambda: tight.snapshot().rates.generation_tokens_total)
    urgent = say(tight, 2, request_id="urgent")
    assert urgent.text()
    assert sum(name.startswith("batch-") for name in tight.live()) >= 18
    assert tight.snapshot().rates.preemptions_total >= 1
    for one in batch:
        one.cancel()
    until(tight.idle)
    explained = {record.kind for record in tight.client.explain("urgent")}
    assert {"admit", "preempt", "start"} <= explained


def test_two_models_in_the_room_of_one_are_both_served(tight: Daemon) -> None:
    hog = [say(tight, 800) for _ in range(4)]  # 16 s of work
    until(lambda: tight.snapshot().rates.num_requests_running)
    assert tight.client.plan("other").outcome in ("waits", "evicts")
    before = tight.snapshot().rates.evictions_total
    assert say(tight, 2, model="other").text()
    assert any(request.model == "small" for request in tight.snapshot().requests)
    until(lambda: tight.snapshot().rates.evictions_total >= before + 2)  # and back
    for one in hog:
        one.cancel()
    until(tight.idle)


def test_a_killed_client_leaves_no_lease(tight: Daemon) -> None:
    code = "import sys, time; from inferd import Client; lease = Client(sys.argv[1]).lease('small').__enter__()\n"
    code += "print('held', flush=True); time.sleep(600)"
    holder = subprocess.Popen([sys.executable, "-c", code, tight.address], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    try:
        assert tight.client.plan("other").outcome == "waits"
    finally:
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
    with Client(tight.address) as client:
        until(lambda: client.plan("other").outcome == "evicts")
    holder.stdout.close()


def test_a_deadline_that_cannot_be_met_is_refused_with_a_time_to_come_back(tight: Daemon) -> None:
    for _ in range(3):
        say(tight, 40, max_tokens=40).text()
    busy = say(tight, 400, max_tokens=400)
    until(lambda: tight.snapshot().rates.num_requests_running)
    with pytest.raises(InferdError) as caught:
        say(tight, 100, max_tokens=100, deadline_ms=300).text()
    assert caught.value.code == "overloaded"
    assert caught.value.retry_after_ms is not None
    assert caught.value.details["reason"] == "deadline"
    busy.cancel()
    until(tight.idle)


def test_the_newest_of_a_key_is_the_one_that_is_answered(tight: Daemon) -> None:
    typed = [say(tight, 4000, supersede_key="editor") for _ in range(20)]
    last = say(tight, 3, supersede_key="editor")
    assert last.text().count(" ") == 3
    codes = []
    for one in typed:
        with pytest.raises(InferdError) as caught:
            one.text()
        codes.append(caught.value.code)
    assert set(codes) == {"superseded"}


def test_every_decision_can_be_made_again_from_what_the_daemon_tells(tight: Daemon) -> None:
    from inferd.daemon.policy.journal import recompute

    say(tight, 3, request_id="told").text()
    records = tight.client.explain("told")
    assert records[0].kind == "admit"
    for record in records:
        answer = recompute(record.kind, json.loads(record.inputs))
        assert json.loads(record.chosen) == getattr(answer, "value", answer)


def test_nobody_knows_a_request_that_never_was(tight: Daemon) -> None:
    with pytest.raises(InferdError) as caught:
        tight.client.explain("nobody")
    assert (caught.value.code, caught.value.field) == ("not_found", "request_id")
