"""The snapshot says what is: models, requests, devices, rates, and what an operator should look at."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec
import pytest

from inferd.daemon.domain.device import DeviceState, Reading
from inferd.daemon.domain.errors import InferdError
from inferd.daemon.node.view import snapshot
from inferd.tests.daemon.node.house import ENDLESS, GIB, SLOW, House, first_text, read
from inferd.tests.daemon.node.test_machine import GPU, HOST, machine

if TYPE_CHECKING:
    from collections.abc import Callable

    from inferd.daemon.domain.snapshot import Snapshot
    from inferd.daemon.node.machine import Machine


def look(house: House, it: Machine | None = None, after_s: float = 0.0) -> Snapshot:
    now_s = time.monotonic() + after_s
    return snapshot(house.node, it or machine(), sequence=1, version="v", uptime_s=1.0, now_s=now_s)


async def test_a_daemon_that_does_nothing_shows_its_machine(house: House) -> None:
    seen = look(house)
    assert (seen.models, seen.requests, seen.warnings) == ((), (), ())
    assert [(row.id, row.kind, row.state) for row in seen.devices] == [("cpu", "cpu", "ok")]
    assert (seen.host.memory_total_bytes, seen.host.memory_available_bytes) == (HOST.total_bytes, HOST.available_bytes)
    assert (seen.rates.num_requests_running, seen.rates.ttft_p50_ms) == (0, None)


async def test_what_runs_and_what_waits_is_seen(open_house: Callable[..., House]) -> None:
    house = open_house(options={"slots": 1, "context_tokens": 512}, tokens_per_s=SLOW)
    runs = house.submit(ENDLESS)
    await first_text(runs)
    waits = house.submit(tenant="other")
    await house.until(lambda: True)
    seen = look(house)
    (model,) = seen.models
    assert (model.name, model.state, model.backend, model.devices) == ("alpha", "ready", "fake", ("cpu",))
    assert (model.slots, model.running, model.waiting, model.context_tokens) == (1, 1, 1, 512)
    assert (model.pid, model.bytes, model.idle_s) == (house.resident().model.pid, 30 << 20, None)
    by_id = {row.id: row for row in seen.requests}
    running, waiting = by_id[runs.job.id], by_id[waits.job.id]
    assert (running.state, running.why, running.prompt_tokens) == ("running", "", len(ENDLESS))
    assert running.tokens >= 1
    assert running.ttft_ms is not None
    assert 0 < running.ttft_ms <= running.age_ms
    assert (waiting.state, waiting.tenant, waiting.ttft_ms, waiting.tokens_per_s) == ("queued", "other", None, 0.0)
    assert waiting.why in ("prompt", "slot")
    assert (seen.rates.num_requests_running, seen.rates.num_requests_waiting) == (1, 1)
    assert seen.rates.prompt_tokens_total == len(ENDLESS)
    assert msgspec.json.decode(msgspec.json.encode(seen))["models"][0]["name"] == "alpha"


async def test_what_is_over_is_counted_and_no_longer_shown(house: House) -> None:
    stream = house.submit("fake:tokens=6")
    await read(stream)
    seen = look(house, after_s=7.0)
    assert seen.requests == ()
    assert (seen.rates.requests_finished_total, seen.rates.generation_tokens_total) == (1, 6)
    assert seen.rates.ttft_p50_ms == seen.rates.ttft_p95_ms is not None
    idle_s = seen.models[0].idle_s
    assert idle_s is not None
    assert 6.0 < idle_s < 60.0


async def test_a_model_that_failed_is_a_warning(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/program")
    with pytest.raises(InferdError):
        await house.load()
    seen = look(house)
    assert (seen.models[0].state, seen.models[0].pid) == ("failed", None)
    (warning,) = seen.warnings
    assert (warning.code, warning.severity) == ("model_failed", "error")
    assert warning.message == seen.models[0].error != ""
    assert warning.remedy


async def test_a_device_that_is_lost_and_memory_that_is_short_are_warnings(house: House) -> None:
    it = machine(GPU, replace(GPU, id="gpu1"))
    it.readings = {"gpu0": Reading("gpu0", state=DeviceState.LOST), "gpu1": Reading("gpu1", used_bytes=GIB)}
    house.node.ledger.observe("host", 10_000 * GIB)
    seen = look(house, it)
    assert [(row.id, row.state, row.memory_used_bytes) for row in seen.devices] == [
        ("cpu", "ok", None),
        ("gpu0", "lost", None),
        ("gpu1", "ok", GIB),
    ]
    assert [warning.code for warning in seen.warnings] == ["device_lost", "low_memory"]


async def test_each_worker_of_a_model_has_its_row_and_who_waits_is_counted_once(
    open_house: Callable[..., House],
) -> None:
    house = open_house(gpus=2, tokens_per_s=SLOW, options={"slots": 1, "replicas": 2})
    for stream in [house.submit(ENDLESS), house.submit(ENDLESS)]:
        await first_text(stream)
    house.submit(ENDLESS)
    assert [(row.name, row.devices, row.running, row.waiting) for row in look(house).models] == [
        ("alpha", ("gpu0",), 1, 1),
        ("alpha", ("gpu1",), 1, 0),
    ]
    for job in house.node.jobs:
        house.node.cancel(job.id)
