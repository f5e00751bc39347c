"""The snapshot says what is: the whole daemon, rates, tenants, and what an operator should look at."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec
import pytest

from inferd.daemon.domain.config import Queue
from inferd.daemon.domain.device import DeviceState, Reading
from inferd.daemon.domain.errors import InferdError
from inferd.daemon.node.view import STALLED_S, snapshot
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
    house = open_house(options={"slots": 1}, tokens_per_s=SLOW)
    runs = house.submit(ENDLESS)
    await first_text(runs)
    waits = house.submit(tenant="other")
    seen = look(house)
    assert [row.name for row in seen.models] == ["alpha"]
    assert {row.id for row in seen.requests} == {runs.job.id, waits.job.id}
    assert (seen.rates.num_requests_running, seen.rates.num_requests_waiting) == (1, 1)
    assert seen.rates.prompt_tokens_total == len(ENDLESS)
    assert msgspec.json.decode(msgspec.json.encode(seen))["models"][0]["name"] == "alpha"


async def test_what_is_over_is_counted_and_no_longer_shown(house: House) -> None:
    stream = house.submit("fake:tokens=6")
    await read(stream)
    seen = look(house, after_s=7.0)
    assert seen.requests == ()
    assert (seen.rates.requests_finished_total, seen.rates.generation_tokens_total) == (1, 6)
    rates = seen.rates
    assert rates.ttft_p50_ms == rates.ttft_p95_ms == rates.ttft_p99_ms
    assert rates.queue_p50_ms == rates.queue_p95_ms
    assert rates.tpot_p50_ms == rates.tpot_p95_ms is not None
    assert rates.ttft_p50_ms is not None
    assert rates.queue_p50_ms is not None
    assert 0 <= rates.queue_p50_ms <= rates.ttft_p50_ms


async def test_one_token_has_no_time_per_token_and_vectors_have_none(house: House) -> None:
    await house.answer("fake:tokens=1")
    assert (look(house).rates.tpot_p50_ms, look(house).rates.requests_finished_total) == (None, 1)


async def test_who_is_refused_has_not_failed(open_house: Callable[..., House]) -> None:
    house = open_house(queue=Queue(max_requests=1, max_requests_per_tenant=1), options={"slots": 1}, tokens_per_s=SLOW)
    with pytest.raises(InferdError):
        house.submit(model="gamma", tenant="web")  # at the door
    await first_text(house.submit(ENDLESS, tenant="web"))
    house.submit(ENDLESS, tenant="web")
    house.submit(tenant="web")  # the queue is full
    rates, (web,) = look(house).rates, look(house).tenants
    assert (rates.requests_refused_total, rates.requests_failed_total, web.requests_refused_total) == (2, 0, 2)
    assert (web.running, web.waiting, web.requests_failed_total) == (1, 1, 0)


async def test_a_daemon_serves_until_it_drains(house: House) -> None:
    assert look(house).state == "serving"
    house.node.draining = True
    assert look(house).state == "draining"
    house.node.draining, house.node.closing = False, True
    assert look(house).state == "draining"


async def test_tenants_go_by_name_with_what_they_have_got(open_house: Callable[..., House]) -> None:
    house = open_house(options={"slots": 2}, tokens_per_s=SLOW)
    at_s = time.monotonic()
    house.node.tick(at_s)
    await house.answer("fake:tokens=6", tenant="web")
    runs, stays = house.submit(ENDLESS, tenant="web"), house.submit(ENDLESS, tenant="ada")
    await first_text(runs)
    await first_text(stays)
    house.node.tick(at_s + 2.0)
    waits = house.submit(ENDLESS, tenant="ada")
    seen = look(house)
    ada, web = seen.tenants
    assert (ada.tenant, ada.running, ada.waiting, ada.requests_finished_total) == ("ada", 1, 1, 0)
    assert (web.tenant, web.running, web.waiting, web.requests_finished_total) == ("web", 1, 0, 1)
    assert web.prompt_tokens_total == len("fake:tokens=6") + len(ENDLESS)
    assert web.generation_tokens_total == 6 + len(runs.job.generated)
    assert web.prompt_tokens_per_s == pytest.approx(web.prompt_tokens_total / 2.0)
    assert 6 / 2.0 < web.generation_tokens_per_s < web.generation_tokens_total / 2.0 + 0.1
    assert ada.generation_tokens_total + web.generation_tokens_total == seen.rates.generation_tokens_total
    assert 0 <= ada.idle_s < web.idle_s
    house.node.cancel(waits.job.id)
    assert look(house).tenants[0].requests_cancelled_total == 1


async def test_a_client_that_takes_nothing_is_seen_and_when_it_is_cut_counted(slow_house: House) -> None:
    house = slow_house
    stream = house.submit(ENDLESS, tenant="web")
    await first_text(stream)  # and it is not asked for more
    assert look(house).tenants[0].stalled == 0
    late = look(house, after_s=STALLED_S + 0.1)
    assert late.tenants[0].stalled == 1
    assert late.requests[0].stalled_ms > STALLED_S * 1e3
    house.node.tick(time.monotonic() + 31)
    (web,) = look(house, after_s=32.0).tenants
    assert (web.stalled, web.stalls_total, web.requests_cancelled_total) == (0, 1, 1)


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
    assert seen.warnings[0].message == "gpu0 (card): lost"


async def test_a_warning_says_what_is_known_of_a_device(house: House) -> None:
    it = machine(GPU)
    it.readings = {"gpu0": Reading("gpu0", DeviceState.LOST, detail="the GPU fell off the bus")}
    assert look(house, it).warnings[0].message == "gpu0 (card): the GPU fell off the bus"
