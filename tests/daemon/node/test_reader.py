"""Prompts that are read while their requests wait, and the limits that are checked then."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Any

import pytest

from inferd.backends.messages import ChatMessage, Compiled, FinishReason, Tool, ToolUse
from inferd.backends.tools import call_text
from inferd.daemon.domain.errors import Code
from inferd.daemon.domain.form import Form
from inferd.daemon.domain.inputs import Inputs
from inferd.daemon.node.reader import TOKENS_AT_ONCE, _check_inputs, lasting_ids
from inferd.daemon.node.stream import Text
from inferd.tests.daemon.node.house import House, failure, finished, read, text

if TYPE_CHECKING:
    from collections.abc import Callable

    Open = Callable[..., House]

TOOL = Tool("f", "does it", "")


async def test_a_chat_and_a_plain_prompt_are_read_beside_the_engine(house: House) -> None:
    chat = house.submit(None, messages=[ChatMessage("user", "fake:tokens=2 §")])
    plain = house.submit(None, prompt="fake:tokens=4")
    assert finished(await read(chat)).completion_tokens == 2
    assert finished(await read(plain)).completion_tokens == 4
    assert plain.job.prompt == list(b"fake:tokens=4")
    assert await house.node.tokenize("alpha", prompt="§") == list("§".encode())


@pytest.mark.parametrize(
    ("said", "fields", "code", "field", "numbers"),
    [
        ("x" * 256, {}, Code.PROMPT_TOO_LONG, "prompt", {"prompt_tokens": 256, "context_tokens": 256}),
        ("", {}, Code.INVALID, "prompt", {}),
        ("x", {"max_tokens": 257}, Code.INVALID, "max_tokens", {"highest": 256}),
        (None, {"tokens": [1, 512]}, Code.INVALID, "tokens[1]", {"highest": 511}),
        ("x", {"params": {"logit_bias": {512: 1.0}}}, Code.INVALID, "logit_bias[512]", {"highest": 511}),
    ],
)
async def test_what_does_not_fit_is_refused_with_its_numbers(
    open_house: Open, said: str | None, fields: dict[str, Any], code: Code, field: str, numbers: dict[str, int]
) -> None:
    house = open_house(options={"context_tokens": 256})
    error = await failure(read(house.submit(said, **fields)))
    assert (error.code, error.field) == (code, field)
    assert error.details == numbers
    assert all(f"{number:,}" in error.message for number in numbers.values())
    assert house.node.scheduler.lanes["alpha"].waiting == []


async def test_a_prompt_that_cannot_be_read_for_want_of_memory_is_refused(open_house: Open) -> None:
    house = open_house(host_bytes=64 << 20)
    error = await failure(read(house.submit(None, prompt="hi")))
    assert error.code is Code.NO_ROOM


async def test_half_a_pair_of_surrogates_harms_nobody_else(house: House) -> None:
    error = await failure(read(house.submit(None, messages=[ChatMessage("user", "\ud800")])))
    assert error.code in (Code.INVALID, Code.INTERNAL)
    assert await house.answer()


def asked(said: str, choice: str = "auto") -> dict[str, Any]:
    order = f"fake:say={said.encode().hex()}"
    return {"messages": [ChatMessage("user", order)], "tools": ToolUse((TOOL,), choice)}  # type: ignore[arg-type]


async def test_tools_are_read_with_the_prompt_and_calls_found_in_the_answer(house: House) -> None:
    stream = house.submit(None, **asked(call_text("f", '{"a": 1}') * 2))
    events = await read(stream)
    assert b"does it" in bytes(stream.job.prompt or ())
    pieces = [piece for event in events if isinstance(event, Text) for piece in event.calls or ()]
    starts = [piece for piece in pieces if piece.name]
    assert [(piece.index, piece.name) for piece in starts] == [(0, "f"), (1, "f")]
    assert all(re.fullmatch("[a-zA-Z0-9]{9}", piece.id) for piece in starts)
    assert starts[0].id != starts[1].id
    assert "".join(piece.arguments for piece in pieces) == '{"a": 1}' * 2
    assert finished(events).reason is FinishReason.TOOL_CALLS


@pytest.mark.parametrize("fields", [{"form": Form("json_object")}, {"tools": ToolUse((TOOL,))}])
async def test_what_does_not_fit_is_not_compiled_for(open_house: Open, fields: dict[str, Any]) -> None:
    house = open_house(options={"context_tokens": 256})
    compiled = watch(house)
    error = await failure(read(house.submit(None, messages=[ChatMessage("user", "x" * 256)], **fields)))
    assert (error.code, compiled) == (Code.PROMPT_TOO_LONG, [])


@pytest.mark.parametrize("fields", [{"form": Form("json_object")}, {"tools": ToolUse((TOOL,))}])
async def test_for_one_that_is_gone_nothing_is_compiled(house: House, fields: dict[str, Any]) -> None:
    compiled = watch(house)
    await house.node.tokenize("alpha", prompt="the helper is there")
    stream = house.submit(None, messages=[ChatMessage("user", "x")], **fields)
    (reading,) = house.node.reader._tasks
    house.node.hang_up(stream)
    await reading
    assert compiled == []


def watch(house: House) -> list[object]:
    """What the helper of alpha is asked to compile from now on."""
    asked: list[object] = []
    prompter = house.deployment().prompter
    forms, tools = prompter.compile, prompter.compile_tools

    async def compile_form(form: Form) -> str:
        asked.append(form)
        return await forms(form)

    async def compile_tools(use: ToolUse) -> Compiled:
        asked.append(use)
        return await tools(use)

    prompter.compile, prompter.compile_tools = compile_form, compile_tools  # type: ignore[method-assign]
    return asked


async def test_others_have_their_turn_while_millions_of_tokens_are_checked(house: House) -> None:
    await house.load()
    inputs = Inputs([[1] * 250] * 2048)
    checking = _check_inputs(inputs, [[1] * 250] * 2048, house.resident().model)
    turns = 0
    with contextlib.suppress(StopIteration):
        while True:
            checking.send(None)
            turns += 1
    assert turns == 2048 * 250 // TOKENS_AT_ONCE


async def test_where_no_call_may_come_none_is_looked_for(house: House) -> None:
    said = call_text("f", "{}")
    events = await read(house.submit(None, **asked(said, "none")))
    assert text(events) == said
    assert finished(events).reason is FinishReason.STOP


def test_ids_that_last_are_the_same_ones_again() -> None:
    first, again, other = lasting_ids("j1"), lasting_ids("j1"), lasting_ids("j2")
    ids = [first() for _ in range(50)]
    assert ids == [again() for _ in range(50)]
    assert len({*ids, *(other() for _ in range(50))}) == 100
    assert all(re.fullmatch("[a-zA-Z0-9]{9}", it) for it in ids)
