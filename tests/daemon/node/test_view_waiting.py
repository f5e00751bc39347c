"""Why each one waits, from the state of the daemon; and that asking for many costs little."""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from inferd.daemon.domain.config import ClassOptions, Queue, Turns
from inferd.daemon.domain.model import ModelState
from inferd.daemon.domain.request import Priority
from inferd.daemon.node.view_waiting import waiting
from inferd.daemon.policy.line import Line
from inferd.daemon.policy.rooms import Rooms
from inferd.tests.daemon.node.house import ENDLESS, SLOW, House, first_text
from inferd.tests.daemon.node.test_machine import HOST, machine

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    import pytest

    from inferd.daemon.node.stream import Stream

    Open = Callable[..., House]

MIB = 1 << 20
PATIENT = Turns(min_resident_s=0.0, normal=ClassOptions(max_wait_s=60.0))


def why(house: House, stream: Stream, after_s: float = 0.0, psi: float | None = None) -> str:
    it = machine(memory=replace(HOST, psi_some_avg10=psi))
    return waiting(house.node, it, time.monotonic() + after_s)[stream.job].text


async def ready_to_run(*streams: Stream) -> None:
    """Their prompts are tokens already, and are taken in at once."""
    await asyncio.sleep(0)
    assert all(stream.job.prompt is not None for stream in streams)


async def test_nobody_who_runs_is_told_why_it_waits(house: House) -> None:
    await first_text(house.submit(ENDLESS))
    assert waiting(house.node, machine(), time.monotonic()) == {}


async def test_slots_that_are_taken(open_house: Open) -> None:
    house = open_house(options={"slots": 1}, tokens_per_s=SLOW)
    await first_text(house.submit(ENDLESS))
    first, second = house.submit(), house.submit()
    assert why(house, first) == "its prompt is being read"
    await ready_to_run(first, second)
    assert why(house, first) == "the slot of alpha is taken; it is next"
    assert why(house, second) == "the slot of alpha is taken; 1 request is before it"
    batch = house.submit(tenant="web", priority=Priority.BATCH)
    await ready_to_run(batch)
    assert why(house, batch) == "the slot of alpha is taken; 2 requests are before it: normal goes before batch"


async def test_cells_that_are_missing_and_those_who_wait_behind(open_house: Open) -> None:
    house = open_house(options={"slots": 3, "context_tokens": 256, "kv_cells": 256}, tokens_per_s=SLOW)
    await first_text(house.submit(ENDLESS, max_tokens=200))
    large, small = house.submit("x" * 230, max_tokens=10), house.submit(max_tokens=3)
    await ready_to_run(large, small)
    text = why(house, large)
    assert re.fullmatch(r"it needs 240 KV cells, one for each token, and \d+ of alpha are free; it is next", text), text
    text = why(house, small)
    assert re.fullmatch(
        r"1 request is served before it; the first of them needs 240 KV cells, one for each token, and \d+ are free",
        text,
    ), text


async def test_a_load_and_how_far_it_is(open_house: Open) -> None:
    house = open_house(load_s=60.0, gpus=1)
    stream = house.submit()
    await ready_to_run(stream)
    await house.until(lambda: house.state() is ModelState.LOADING)
    house.resident().model.load_progress = 0.4
    assert why(house, stream) == "alpha is being loaded on gpu0: 40 %"


async def test_memory_that_busy_models_hold(open_house: Open) -> None:
    house = open_house(host_bytes=40 * MIB, tokens_per_s=SLOW, scheduler=PATIENT)
    await first_text(house.submit(ENDLESS))
    first, second = house.submit(model="beta"), house.submit(model="beta")
    await ready_to_run(first, second)
    text = why(house, first, after_s=1.0)
    needs = r"beta needs 30 MiB of memory and 10 MiB are free; held by alpha \(busy, about 5\d\.\d s more\)"
    assert re.fullmatch(needs, text), text
    assert re.fullmatch(f"{needs}; 1 request is before it", why(house, second, after_s=1.0))


async def test_memory_that_other_programs_use(open_house: Open) -> None:
    house = open_house(host_bytes=70 * MIB, tokens_per_s=SLOW, scheduler=PATIENT)
    await first_text(house.submit(ENDLESS))
    house.node.ledger.observe("host", 25 * MIB)
    stream = house.submit(model="beta")
    await ready_to_run(stream)
    text = why(house, stream, after_s=1.0)
    assert text.startswith("beta needs 30 MiB of memory and 15 MiB are free; held by alpha (busy")
    assert text.endswith("; it would fit without the 25 MiB that other programs use")


async def test_memory_that_is_about_to_be_free(open_house: Open) -> None:
    house = open_house(host_bytes=40 * MIB, scheduler=PATIENT)
    await house.load("alpha")
    stream = house.submit(model="beta")
    await ready_to_run(stream)
    assert why(house, stream) == "beta is loaded as soon as alpha has made way"
    (place,) = house.node.scheduler.lanes["beta"].places
    place.granted.add(place.name)  # another worker of its own
    assert why(house, stream) == "beta is loaded as soon as alpha has made way"
    place.granted.discard(place.name)


async def test_a_machine_that_is_short_of_memory(house: House) -> None:
    house.node.scheduler.on_pressure(30.0, time.monotonic())
    stream = house.submit()
    await ready_to_run(stream)
    text = why(house, stream, psi=30.0)
    assert text.startswith("the machine is short of memory (tasks stood still for it 30 % of the last 10 s)")


async def test_one_that_made_way(open_house: Open) -> None:
    house = open_house(options={"slots": 1}, tokens_per_s=SLOW)
    batch = house.submit(ENDLESS, priority=Priority.BATCH)
    await first_text(batch)
    await first_text(house.submit(ENDLESS, priority=Priority.INTERACTIVE))
    assert why(house, batch) == "it made way for an interactive request; the slot of alpha is taken; it is next"


async def test_one_whose_worker_has_died(house: House) -> None:
    stream = house.submit("fake:crash=0")
    await house.until(lambda: house.state() is ModelState.FAILED)
    text = why(house, stream)
    assert re.fullmatch(r"the worker that it ran in ended; alpha has failed, and is tried again in \d\.\d s", text), (
        text
    )


async def test_a_thousand_who_wait_cost_one_order_and_one_look_at_memory_for_each_model(
    open_house: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = open_house(
        host_bytes=40 * MIB,
        options={"slots": 1},
        tokens_per_s=SLOW,
        scheduler=PATIENT,
        queue=Queue(max_requests_per_tenant=2000),
    )
    await first_text(house.submit(ENDLESS))
    streams = [house.submit(model=model, tenant=f"t{i % 7}") for i in range(500) for model in ("alpha", "beta")]
    await ready_to_run(*streams)
    asked: list[str] = []
    count(monkeypatch, Line, "order", asked)
    count(monkeypatch, Rooms, "options_of", asked)
    found = waiting(house.node, machine(), time.monotonic())
    assert len(found) == 1000
    assert sorted(asked) == ["options_of", "order", "order"]
    assert {found[stream.job].position for stream in streams} == set(range(500))
    for stream in streams:
        house.node.cancel(stream.job.id)


def count(monkeypatch: pytest.MonkeyPatch, owner: type, name: str, asked: list[str]) -> None:
    original: Any = getattr(owner, name)

    def counted(*args: Any, **options: Any) -> Any:
        asked.append(name)
        return original(*args, **options)

    monkeypatch.setattr(owner, name, counted)
