"""Workers that come up, crash, or never come up: what becomes of their models, and of who waits for them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from inferd.backends import process
from inferd.backends.messages import LoadFailed
from inferd.daemon.domain.config import Server
from inferd.daemon.domain.errors import Code, InferdError
from inferd.daemon.domain.event import Kind
from inferd.daemon.domain.model import ModelState
from inferd.daemon.node import resident as residents
from inferd.daemon.node.stream import Resumed
from inferd.daemon.node.view_warnings import warnings
from inferd.tests.daemon.node.house import (
    LIMIT_S,
    SLOW,
    House,
    finished,
    first_text,
    load_failure,
    read,
    text,
    tokens,
    what_the_fake_says,
)
from inferd.tests.daemon.node.test_machine import machine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from inferd.daemon.node.resident import Resident

    Open = Callable[..., House]


async def test_a_load_that_ran_out_of_memory_is_tried_once_more_with_less(open_house: Open) -> None:
    house = open_house(load_s=2.0)
    waits = house.submit()
    resident = house.resident()
    n_cells = resident.model.plan.kv_cells
    await house.until(lambda: resident.model.pid is not None)
    assert resident.model.pid is not None
    resident.note_load_failure(LoadFailed("memory", "x"))
    os.kill(resident.model.pid, signal.SIGKILL)
    assert text(await read(waits))
    assert resident.model.plan.kv_cells == n_cells // 2
    assert resident.model.failures == 0
    assert house.told(Kind.OUT_OF_MEMORY) == ["alpha ran out of memory while loading; it is tried once more with less"]
    assert house.told(Kind.MODEL_FAILED) == []


@pytest.fixture
def no_process(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Workers are run by this program; an empty name gives Python back."""
    python = sys.executable
    return lambda program: monkeypatch.setattr(sys, "executable", program or python)


async def test_a_worker_that_dies_while_loading_fails_all_who_wait(
    house: House, no_process: Callable[[str], None]
) -> None:
    no_process("/bin/false")
    first, second = house.submit(), house.submit()
    for stream in (first, second):
        with pytest.raises(InferdError, match=r"ended while loading \(exit status 1\)") as caught:
            await read(stream)
        assert caught.value.code is Code.MODEL_FAILED
    model = house.resident().model
    assert (model.state, model.failures) == (ModelState.FAILED, 1)
    assert house.node.ledger.reservations == {}
    assert house.told(Kind.MODEL_FAILED) == [model.error]
    assert house.told(Kind.MODEL_READY, Kind.WORKER_CRASHED) == []


async def test_a_model_in_back_off_refuses_at_once_and_says_how_long(
    house: House, no_process: Callable[[str], None]
) -> None:
    no_process("/no/such/program")
    assert (await load_failure(house)).code is Code.MODEL_FAILED
    for _ in range(2):
        with pytest.raises(InferdError, match="No such file") as caught:
            house.submit()
        assert caught.value.code is Code.MODEL_FAILED
        assert caught.value.retry_after_ms is not None
        assert 0 < caught.value.retry_after_ms <= 1000
    assert (await load_failure(house)).retry_after_ms is not None


async def test_after_the_back_off_a_model_is_tried_again_and_a_token_forgives_it(
    house: House, no_process: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(residents, "BACK_OFF_S", (0.02, 0.04))
    no_process("/no/such/program")
    model = house.resident().model
    for n_failures in (1, 2, 3):
        await load_failure(house)
        assert model.failures == n_failures
        await house.until(lambda: model.state is ModelState.COLD)
    no_process("")
    assert await house.answer()
    assert model.error == ""
    assert finished(await read(house.submit("fake:crash=1 fake:tokens=4"))).completion_tokens == 4
    assert model.failures == 0


async def test_a_crash_before_any_token_counts_as_a_failure(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(residents, "BACK_OFF_S", (0.02, 30.0))
    await house.load()
    with pytest.raises(InferdError, match="ended 2 times while this request ran"):
        await house.answer("fake:crash=0")
    await house.until(lambda: house.resident().model.state is ModelState.FAILED)
    model = house.resident().model
    assert (model.failures, "signal SIGABRT" in model.error) == (2, True)
    assert house.told(Kind.WORKER_CRASHED)[-1] == model.error


async def test_a_death_by_a_signal_while_loading_costs_nobody_anything(open_house: Open) -> None:
    house = open_house(load_s=2.0)
    waits = house.submit()
    model = house.resident().model
    n_cells = model.plan.kv_cells
    await house.until(lambda: model.pid is not None)
    assert model.pid is not None
    os.kill(model.pid, signal.SIGABRT)
    assert text(await read(waits))
    assert (model.plan.kv_cells, model.failures) == (n_cells, 0)
    assert house.told(Kind.WORKER_CRASHED) == ["alpha died while loading (signal SIGABRT); it is tried once more"]


async def test_a_second_death_while_loading_is_the_models_fault(open_house: Open) -> None:
    house = open_house(load_s=2.0)
    waits, model = house.submit(), house.resident().model
    for _ in range(2):
        await house.until(lambda: model.pid is not None)
        assert model.pid is not None
        os.kill(model.pid, signal.SIGSEGV)
        await house.until(lambda: model.pid is None)
    with pytest.raises(InferdError, match=r"ended while loading \(signal SIGSEGV\)"):
        await read(waits)


def is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("T")


async def test_a_worker_that_was_stopped_is_replaced_and_what_ran_in_it_goes_on(open_house: Open) -> None:
    house = open_house(tokens_per_s=SLOW)
    stream = house.submit("fake:tokens=60")
    events = await first_text(stream)
    model = house.resident().model
    assert model.pid is not None
    os.kill(model.pid, signal.SIGSTOP)
    while not is_stopped(model.pid):
        pass
    house.node.tick(time.monotonic())
    assert house.resident().ended_why == ""  # it may be let go on
    house.node.tick(time.monotonic())
    events += await read(stream)
    assert tokens(events) == what_the_fake_says(stream.job)
    assert [event for event in events if isinstance(event, Resumed)] == [Resumed("worker_crashed")]
    assert house.told(Kind.WORKER_CRASHED) == ["the worker of alpha ended while running (it was stopped by a signal)"]


async def test_one_that_is_stopped_while_loading_is_replaced_and_gets_as_much_memory(open_house: Open) -> None:
    house = open_house(load_s=2.0)
    waits, model = house.submit(), house.resident().model
    n_cells = model.plan.kv_cells
    await house.until(lambda: model.pid is not None)
    assert model.pid is not None
    os.kill(model.pid, signal.SIGSTOP)
    while not is_stopped(model.pid):
        pass
    for _ in range(2):
        house.node.tick(time.monotonic())
    assert text(await read(waits))
    assert model.plan.kv_cells == n_cells


@pytest.fixture
def unkillable(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Resident], int]]:
    """From now on the worker of this resident is not ended by SIGKILL, as if the kernel held it; returns its pid."""
    monkeypatch.setattr(process, "UNKILLABLE_S", 0.05)
    monkeypatch.setattr(process, "LOOK_AGAIN_S", 0.01)
    pids: list[int] = []

    def hold(resident: Resident) -> int:
        assert resident._worker is not None
        child = resident._worker._child
        assert child is not None
        monkeypatch.setattr(child, "kill", lambda: None)
        pids.append(child.pid)
        return child.pid

    yield hold
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


async def freed(house: House) -> None:
    """The kernel has let all of them go."""
    async with asyncio.timeout(LIMIT_S):
        while house.node.ledger.held:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_one_that_cannot_be_ended_keeps_its_memory_and_the_next_one_has_its_work(
    open_house: Open, unkillable: Callable[[Resident], int]
) -> None:
    house = open_house(tokens_per_s=SLOW)
    ledger, stream = house.node.ledger, house.submit("fake:tokens=60")
    events = await first_text(stream)
    pids = []
    for _ in range(2):  # the next one, too
        pids.append(unkillable(house.resident()))
        house.resident().kill()
        events += await first_text(stream)
        await house.until(lambda: len(ledger.held) == len(pids) and house.resident().model.pid not in (*pids, None))
    events += await read(stream)
    assert tokens(events) == what_the_fake_says(stream.job)
    assert list(house.node.fleet.residents) == ["alpha"]
    assert [event for event in events if isinstance(event, Resumed)] == [Resumed("worker_crashed")] * 2
    each = ledger.reservations["alpha"].bytes_on
    assert [ledger.reservations[owner].bytes_on for owner in ledger.held] == [each, each]
    assert list(ledger.held.values()) == pids
    assert [row.code for row in warnings(house.node, machine())] == ["worker_held"] * 2
    assert "the kernel holds it" in house.told(Kind.WORKER_CRASHED)[0]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    await freed(house)
    assert list(ledger.reservations) == ["alpha", *ledger.helpers_of("alpha")]
    assert await house.answer()


async def test_whoever_needs_what_it_keeps_is_refused_and_does_not_wait(
    open_house: Open, unkillable: Callable[[Resident], int]
) -> None:
    house = open_house(host_bytes=150 * 2**20, options={"cache_bytes": 0})
    await house.load("alpha")
    pid = unkillable(house.resident())
    house.resident().kill()
    await house.until(lambda: bool(house.node.ledger.held))
    kept = house.node.ledger.reservations["!held-1"].total_bytes
    house.node.ledger.pools["host"].capacity = kept + kept // 2
    assert (await load_failure(house, "beta")).code is Code.NO_ROOM
    os.kill(pid, signal.SIGKILL)
    await freed(house)
    await house.load("beta")


async def test_neither_an_unload_nor_the_end_waits_for_one_that_cannot_be_ended(
    open_house: Open, unkillable: Callable[[Resident], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "KILL_AFTER_S", 0.05)
    house = open_house()
    for end in (lambda: house.node.wishes.unload("alpha", force=False), lambda: house.node.drain(0.1)):
        await house.load()
        pid = unkillable(house.resident())
        os.kill(pid, signal.SIGSTOP)  # it does not hear that it should end
        async with asyncio.timeout(LIMIT_S):
            await end()
        assert pid in house.node.ledger.held.values()
        assert house.resident().model.state is ModelState.COLD
        os.kill(pid, signal.SIGKILL)
        await freed(house)


async def test_a_load_that_stands_still_is_tried_once_more_and_then_refused(open_house: Open) -> None:
    house = open_house(load_s=1e6, server=Server(step_limit_s=1.0))
    waits, model = house.submit(), house.resident().model
    for _ in range(2):
        await house.until(lambda: model.pid is not None)
        old = model.pid
        async with asyncio.timeout(LIMIT_S):
            while model.pid == old:
                house.node.tick(time.monotonic())
                await asyncio.sleep(0.01)
    with pytest.raises(InferdError, match=r"ended while loading \(it has done nothing at all for \d s of its load\)"):
        await read(waits)
    assert len(house.told(Kind.WORKER_CRASHED)) == len(house.told(Kind.MODEL_FAILED)) == 1


async def test_a_worker_that_hangs_in_a_step_is_replaced(open_house: Open) -> None:
    house = open_house(tokens_per_s=SLOW, server=Server(step_limit_s=0.2))
    stream = house.submit("fake:hang=2 fake:tokens=4")
    events = await first_text(stream)
    worker = house.resident()._worker

    def hangs() -> bool:
        signs = worker.signs() if worker is not None else None
        assert signs is not None
        return signs.step_s > 0.0 and time.monotonic() - signs.step_s > max(0.2, 10 * signs.longest_s)

    while not hangs():  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    house.node.tick(time.monotonic())
    events += await read(stream)
    assert tokens(events) == what_the_fake_says(stream.job)
    assert "one step has taken it more than 0.2 s" in house.told(Kind.WORKER_CRASHED)[0]


async def test_the_life_of_a_worker_is_told(house: House) -> None:
    await house.load()
    assert await house.node.wishes.unload("alpha", force=False)
    kinds = [event.kind for event in house.node.events.after(0)]
    assert kinds == [Kind.MODEL_LOADING, Kind.MODEL_READY, Kind.MODEL_UNLOADED]
    loading, ready, unloaded = house.node.events.after(0)
    assert (loading.model, loading.device) == ("alpha", "cpu")
    assert re.fullmatch(r"alpha is being loaded on cpu, with 30 MiB", loading.message)
    assert re.fullmatch(r"alpha is ready on fake after \d+\.\d s", ready.message)
    assert unloaded.message == "alpha is unloaded"
