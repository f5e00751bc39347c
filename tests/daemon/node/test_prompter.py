"""One model's prompt helper, a real process with the fake's tokenizer: it may die, its callers may not hang."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import TYPE_CHECKING

import pytest

from inferd.backends import process
from inferd.backends.facts import LoadPlan
from inferd.backends.messages import ChatMessage, FromWorker, Prepared, PrepareFailed, Ready, Tool, ToolUse
from inferd.backends.tools import call_text
from inferd.daemon.domain.errors import Code, InferdError
from inferd.daemon.domain.form import Form
from inferd.daemon.node import prompter as prompters
from inferd.daemon.node.prompter import GROUP_BYTES, PROCESS_BYTES, Prompter
from inferd.daemon.policy.ledger import Ledger
from inferd.daemon.system.processes import activity
from inferd.daemon.system.workgroups import Group, Groups
from inferd.tests.e2e.daemons import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable
    from pathlib import Path

PLAN = LoadPlan(backend="fake", path="", n_ctx=256, n_slots=1, kv_cells=256, n_threads=1)


@pytest.fixture
def ledger() -> Ledger:
    it = Ledger()
    it.add_pool("host", 4 * PROCESS_BYTES, 0)
    return it


@pytest.fixture
async def prompter(ledger: Ledger) -> AsyncIterator[Prompter]:
    it = Prompter("m", PLAN, ledger)
    yield it
    it.close()
    await it.wait()
    assert ledger.reservations == {}


def pid(it: Prompter) -> int:
    assert it._process is not None
    assert it._process.pid is not None
    return it._process.pid


async def failure(reading: Awaitable[object]) -> InferdError:
    with pytest.raises(InferdError) as caught:
        await reading
    return caught.value


async def test_a_form_that_cannot_be_followed_is_refused_by_its_field(prompter: Prompter) -> None:
    error = await failure(prompter.compile(Form("json_object")))
    assert (error.code, error.field) == (Code.UNSUPPORTED, "response_format")
    assert await prompter.prepare(prompt="x") == [ord("x")]


async def test_tools_are_compiled_in_the_models_way(prompter: Prompter) -> None:
    compiled = await prompter.compile_tools(ToolUse((Tool("f", "", ""),), "required"))
    assert compiled.calls is not None
    assert (compiled.grammar, compiled.calls.begin) == (call_text("f", "{}"), "<tool_call>")


async def test_a_tool_at_fault_is_named(prompter: Prompter) -> None:
    await prompter.prepare(prompt="x")
    asking = asyncio.create_task(prompter.compile_tools(ToolUse((Tool("f", "", ""),))))
    await asyncio.sleep(0)
    (ticket,) = prompter._pending
    prompter._receive(PrepareFailed(ticket, "grammar", "it is bad", "tools[0].parameters"))
    error = await failure(asking)
    assert (error.code, error.field, error.message) == (Code.INVALID, "tools[0].parameters", "m: it is bad")


async def test_many_prompts_go_through_one_helper(prompter: Prompter, ledger: Ledger) -> None:
    assert ledger.booked_bytes("host") == 0
    texts = [f"prompt {i}" for i in range(20)]
    answers = await asyncio.gather(*(prompter.prepare(prompt=text) for text in texts))
    assert answers == [list(text.encode()) for text in texts]
    chat = await prompter.prepare(messages=[ChatMessage("user", "hi")])
    assert bytes(chat).endswith(b"assistant: ")
    assert prompter.open
    assert ledger.booked_bytes("host") == PROCESS_BYTES


@pytest.mark.parametrize("text", ["", "x" * (4 * 2**20 + 1)], ids=["none", "too long"])
async def test_a_prompt_that_cannot_be_used_is_the_callers_fault(prompter: Prompter, text: str) -> None:
    error = await failure(prompter.prepare(prompt=text))
    assert error.code is Code.INVALID
    assert error.message.startswith("m: ")
    assert await prompter.prepare(prompt="hi") == [104, 105]


async def kill_under(prompter: Prompter) -> None:
    """Once two prompts are with the helper; until the next one has them."""
    async with asyncio.timeout(30):
        while len(prompter._pending) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        old = prompter._process
        os.kill(pid(prompter), signal.SIGKILL)
        while prompter._process is old:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_a_helper_that_dies_costs_no_prompt_anything(prompter: Prompter) -> None:
    await prompter.prepare(prompt="hi")
    old = pid(prompter)
    os.kill(old, signal.SIGSTOP)
    reading = [asyncio.create_task(prompter.prepare(prompt=text)) for text in "ab"]
    await asyncio.sleep(0)
    os.kill(old, signal.SIGKILL)
    assert await asyncio.gather(*reading) == [[97], [98]]
    assert pid(prompter) != old


async def test_what_a_helper_dies_of_twice_fails_and_what_waits_behind_does_not(
    prompter: Prompter, monkeypatch: pytest.MonkeyPatch
) -> None:
    receive = prompter._receive
    deaf = True  # nothing that it says is heard, so it is for ever at its first prompt

    def hear(message: FromWorker) -> None:
        if isinstance(message, Ready) or not deaf:
            receive(message)

    monkeypatch.setattr(prompter, "_receive", hear)
    bad, good = (asyncio.create_task(prompter.prepare(prompt=text)) for text in "ab")
    await kill_under(prompter)
    await kill_under(prompter)
    assert (await failure(bad)).code is Code.TEMPLATE_FAILED
    deaf = False
    assert await good == [98]


async def test_one_that_takes_too_long_is_ended(prompter: Prompter, monkeypatch: pytest.MonkeyPatch) -> None:
    await prompter.prepare(prompt="hi")
    old = pid(prompter)
    monkeypatch.setattr(prompters, "TIMEOUT_S", 0.05)
    os.kill(old, signal.SIGSTOP)
    assert (await failure(prompter.prepare(prompt="stuck"))).code is Code.TEMPLATE_FAILED
    await prompter.wait()
    monkeypatch.setattr(prompters, "TIMEOUT_S", 60.0)
    assert await prompter.prepare(prompt="hi") == [104, 105]


async def test_waiting_behind_others_is_not_held_against_a_prompt(
    prompter: Prompter, monkeypatch: pytest.MonkeyPatch
) -> None:
    await prompter.prepare(prompt="hi")
    os.kill(pid(prompter), signal.SIGSTOP)  # the answers come from here
    monkeypatch.setattr(prompters, "TIMEOUT_S", 1.0)
    asking = [asyncio.create_task(prompter.prepare(prompt=f"{i}")) for i in range(3)]
    await asyncio.sleep(0)
    for i, ticket in enumerate(list(prompter._pending)):
        await asyncio.sleep(0.5)  # half of the limit for each, more than it for all
        prompter._receive(Prepared(ticket, [i]))
    assert await asyncio.gather(*asking) == [[0], [1], [2]]
    os.kill(pid(prompter), signal.SIGCONT)


async def test_one_that_nobody_waits_for_has_its_turn_and_its_limit(
    prompter: Prompter, monkeypatch: pytest.MonkeyPatch
) -> None:
    await prompter.prepare(prompt="hi")
    old = pid(prompter)
    monkeypatch.setattr(prompters, "TIMEOUT_S", 0.05)
    os.kill(old, signal.SIGSTOP)
    left = asyncio.create_task(prompter.prepare(prompt="stuck"))
    await asyncio.sleep(0)
    left.cancel()
    async with asyncio.timeout(30):
        await prompter.wait()
    monkeypatch.setattr(prompters, "TIMEOUT_S", 60.0)
    assert await prompter.prepare(prompt="hi") == [104, 105]


async def test_a_prompt_right_after_a_close_gets_a_helper_of_its_own(prompter: Prompter, ledger: Ledger) -> None:
    await prompter.prepare(prompt="hi")
    old = prompter._process
    assert old is not None
    prompter.close()
    early = asyncio.create_task(prompter.prepare(prompt="a"))
    await old.wait()
    late = asyncio.create_task(prompter.prepare(prompt="b"))
    assert [await early, await late] == [[97], [98]]
    assert prompter._process is not old
    assert len(ledger.reservations) == 1


class Folders(Groups):
    """Groups that are mere folders."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.given: list[tuple[Group, str]] = []

    def begin(self, name: str, limit_bytes: int, n_pids: int) -> Group:
        path = self.folder / f"{len(self.given)}"
        path.mkdir()
        (path / "cgroup.procs").touch()
        self.given.append((Group(str(path), limit_bytes), name))
        return self.given[-1][0]


async def test_each_helper_has_a_group_of_its_own(ledger: Ledger, tmp_path: Path) -> None:
    groups = Folders(tmp_path)
    it = Prompter("m", PLAN, ledger, groups)
    for i in range(2):
        await it.prepare(prompt="hi")
        group, name = groups.given[i]
        assert (name, group.limit_bytes, group.ended) == (it.owner, GROUP_BYTES, False)
        assert (tmp_path / f"{i}" / "cgroup.procs").read_text() == str(pid(it))
        it.close()
        await it.wait()
        assert group.ended
    assert len(groups.given) == 2


async def test_without_room_no_helper_is_started(prompter: Prompter, ledger: Ledger) -> None:
    ledger.observe("host", 4 * PROCESS_BYTES)
    error = await failure(prompter.prepare(prompt="hi"))
    assert (error.code, error.details) == (Code.NO_ROOM, {"needed_bytes": PROCESS_BYTES, "free_bytes": 0})
    ledger.observe("host", 0)
    assert await prompter.prepare(prompt="hi") == [104, 105]


async def test_no_process_can_be_made(prompter: Prompter, monkeypatch: pytest.MonkeyPatch) -> None:
    python = sys.executable
    monkeypatch.setattr(sys, "executable", "/no/such/program")
    assert (await failure(prompter.prepare(prompt="hi"))).code is Code.INTERNAL
    monkeypatch.setattr(sys, "executable", python)
    assert await prompter.prepare(prompt="hi") == [104, 105]


async def test_a_helper_that_dies_at_birth_is_told_and_tried_again(
    prompter: Prompter, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = sys.executable
    monkeypatch.setattr(sys, "executable", "/bin/false")
    first, second = (asyncio.create_task(prompter.prepare(prompt="hi")) for _ in range(2))
    assert (await failure(first)).code is Code.MODEL_FAILED
    assert (await failure(second)).code is Code.MODEL_FAILED
    monkeypatch.setattr(sys, "executable", python)
    assert await prompter.prepare(prompt="hi") == [104, 105]


async def test_a_helper_that_was_stopped_is_replaced_and_nothing_is_lost(prompter: Prompter) -> None:
    assert await prompter.prepare(prompt="x")
    old = pid(prompter)
    os.kill(old, signal.SIGSTOP)
    reading = asyncio.create_task(prompter.prepare(prompt="y"))
    await asyncio.to_thread(until, lambda: activity(old).state == "T")
    prompter.look()
    assert pid(prompter) == old  # it may be for a moment only
    prompter.look()
    assert await reading == [ord("y")]
    assert pid(prompter) != old


async def test_a_helper_that_cannot_be_ended_keeps_its_memory_and_the_next_one_reads(
    prompter: Prompter, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "UNKILLABLE_S", 0.05)
    monkeypatch.setattr(process, "LOOK_AGAIN_S", 0.01)
    assert await prompter.prepare(prompt="x")
    old, helper = pid(prompter), prompter._process
    assert helper is not None
    freed, released = asyncio.Event(), asyncio.Event()
    prompter.on_released = released.set
    monkeypatch.setattr(helper._child, "kill", lambda: None)  # as if the kernel held it
    prompter._kill()
    async with asyncio.timeout(30):
        await released.wait()
        assert await prompter.prepare(prompt="y") == [ord("y")]
    assert ledger.held == {"!held-1": old}
    assert ledger.booked_bytes("host") == 2 * PROCESS_BYTES
    release, helper.on_freed = helper.on_freed, freed.set
    os.kill(old, signal.SIGKILL)
    async with asyncio.timeout(30):
        await freed.wait()
    release()
    assert ledger.booked_bytes("host") == PROCESS_BYTES


async def test_one_that_never_gets_ready_is_given_up(prompter: Prompter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompters, "START_LIMIT_S", 0.0)
    error = await failure(prompter.prepare(prompt="x"))
    assert error.code is Code.MODEL_FAILED
