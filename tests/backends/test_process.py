"""One worker held from outside: real processes with the fake engine, from birth to burial."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec
import pytest

from inferd.backends import process
from inferd.backends.exit import Exit
from inferd.backends.facts import LoadPlan
from inferd.backends.messages import Delta, FromWorker, Loading, Ready, SamplingParams, Step, Submit
from inferd.backends.process import NEXT, Process, WorkerState

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

PLAN = LoadPlan(backend="fake", path="", n_ctx=256, n_slots=1, kv_cells=256, n_threads=1)


class Held:
    """A process and everything it was heard to do, in order."""

    def __init__(self, module: str = "inferd.backends.worker") -> None:
        self.messages: asyncio.Queue[FromWorker] = asyncio.Queue()
        self.history: list[str] = []
        self.exit: Exit | None = None
        self.process = Process(module, self._on_message, self._on_gone, self._on_reaped)

    def _on_message(self, message: FromWorker) -> None:
        self.messages.put_nowait(message)

    def _on_gone(self) -> None:
        self.history.append("gone")

    def _on_reaped(self, how: Exit) -> None:
        self.history.append("reaped")
        self.exit = how

    async def until(self, wanted: Callable[[FromWorker], bool]) -> FromWorker:
        while not wanted(message := await self.messages.get()):
            pass
        return message

    async def ready(self) -> None:
        await self.process.start(PLAN)
        await self.until(lambda message: isinstance(message, Ready))
        self.process.ready()

    async def ended(self) -> Exit:
        async with asyncio.timeout(20):
            await self.process.wait()
        assert self.exit is not None
        assert self.history == ["gone", "reaped"]
        assert self.process.state is WorkerState.GONE
        return self.exit


@pytest.fixture
async def held(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Held]:
    monkeypatch.setattr(process, "KILL_AFTER_S", 15.0)  # a busy machine is no reason to kill
    it = Held()
    yield it
    it.process.kill()
    await it.process.wait()


def prompt(text: str) -> Submit:
    return Submit("job", 1, list(text.encode()), len(text), SamplingParams(max_tokens=100))


@pytest.mark.parametrize(("start", "to"), list(product(WorkerState, WorkerState)))
async def test_a_worker_takes_the_steps_of_the_table_and_no_other(start: WorkerState, to: WorkerState) -> None:
    it = Held().process
    it.state = start
    if to in NEXT[start]:
        it._move(to)
        assert it.state is to
    else:
        with pytest.raises(AssertionError, match=f"{start.value} -> {to.value}"):
            it._move(to)
        assert it.state is start


def test_every_state_but_the_last_can_end() -> None:
    assert all(WorkerState.GONE in NEXT[state] for state in set(WorkerState) - {WorkerState.GONE})
    assert NEXT[WorkerState.GONE] == set()


async def test_a_worker_loads_works_and_ends_when_it_is_told_to(held: Held) -> None:
    await held.process.start(PLAN)
    assert held.process.pid is not None
    assert isinstance(await held.messages.get(), Loading)
    await held.until(lambda message: isinstance(message, Ready))
    held.process.ready()
    os.kill(held.process.pid, signal.SIGTERM)  # only the daemon decides when a worker ends
    os.kill(held.process.pid, signal.SIGINT)
    held.process.send(prompt("fake:tokens=2"))
    step = await held.until(lambda message: isinstance(message, Step))
    assert isinstance(step, Step)
    held.process.stop()
    held.process.stop()
    assert await held.ended() == Exit(0, True, ())


async def test_a_crash_is_heard_before_the_process_is_reaped(held: Held) -> None:
    await held.ready()
    held.process.send(prompt("fake:crash=1"))
    step = await held.until(lambda message: isinstance(message, Step))
    assert isinstance(step, Step)
    assert any(isinstance(event, Delta) for event in step.events)
    how = await held.ended()
    assert (how.expected, how.reason) == (False, "signal SIGABRT")
    held.process.send(prompt("to nobody"))


async def test_one_that_does_not_listen_is_killed(held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "KILL_AFTER_S", 0.05)
    await held.ready()
    assert held.process.pid is not None
    os.kill(held.process.pid, signal.SIGSTOP)
    held.process.stop()
    how = await held.ended()
    assert (how.expected, how.reason) == (True, "signal SIGKILL")


async def test_one_that_not_even_a_kill_ends_is_reaped_in_name(held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "UNKILLABLE_S", 0.05)
    monkeypatch.setattr(process, "LOOK_AGAIN_S", 0.01)
    await held.ready()
    child = held.process._child
    assert child is not None
    freed = asyncio.Event()
    held.process.on_freed = freed.set
    monkeypatch.setattr(child, "kill", lambda: None)  # as if the kernel held it
    held.process.kill()
    end = await held.ended()
    assert (end.held, end.code, child.returncode) == (True, -signal.SIGKILL, None)
    assert not freed.is_set()
    os.kill(child.pid, signal.SIGKILL)
    async with asyncio.timeout(20):
        await freed.wait()
    assert held.history == ["gone", "reaped"]


async def test_one_that_ended_as_we_stood_still_is_not_held(held: Held) -> None:
    """The kernel knows that it is dead; the loop has not heard of it yet."""
    await held.ready()
    child = held.process._child
    assert child is not None
    os.kill(child.pid, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):  # the loop's thread was there before
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # noqa: ASYNC222
    held.process._look(again=True)
    assert not (await held.ended()).held


async def test_what_a_stopping_worker_says_is_not_listened_to(held: Held) -> None:
    await held.process.start(PLAN)
    held.process.stop()
    await held.ended()
    assert held.messages.empty()


async def test_a_stop_while_it_is_born_is_not_forgotten(held: Held) -> None:
    birth = asyncio.create_task(held.process.start(PLAN))
    while held.process.pid is None:  # noqa: ASYNC110 (no event tells of this moment)
        await asyncio.sleep(0)
    held.process.stop()
    await birth
    assert await held.ended() == Exit(0, True, ())


async def test_its_last_words_are_kept(held: Held) -> None:
    it = Held("inferd.backends.no_such_module")
    await it.process.start(PLAN)
    how = await it.ended()
    assert (how.reason, how.expected) == ("exit status 1", False)
    assert "no_such_module" in how.tail[-1]


async def test_no_process_can_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    it = Held()
    with pytest.raises(FileNotFoundError):
        await it.process.start(PLAN)
    await it.process.wait()
    assert (it.process.pid, it.history) == (None, [])


@pytest.mark.parametrize("numerics", ["fast", "exact"])
async def test_only_a_worker_that_keeps_its_threads_spins_briefly(
    numerics: Literal["fast", "exact"], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    held = Held()
    await held.process.start(msgspec.structs.replace(PLAN, numerics=numerics))
    await held.until(lambda message: isinstance(message, Ready))
    held.process.ready()
    environment = await asyncio.to_thread(Path(f"/proc/{held.process.pid}/environ").read_bytes)
    held.process.stop()
    await held.ended()
    assert (b"GOMP_SPINCOUNT=2000" in environment.split(b"\0")) == (numerics == "exact")
