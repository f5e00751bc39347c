"""Tools and calls are refused by their numbers, names, bytes and nesting before any parser sees them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from inferd.backends.messages import ChatMessage, Tool, ToolCall, ToolUse
from inferd.daemon.domain.errors import Code, InferdError
from inferd.daemon.domain.form import MAX_FORM_BYTES, MAX_NESTING
from inferd.daemon.domain.tools import (
    MAX_CALL_ID_CHARS,
    MAX_CALLS,
    MAX_CALLS_BYTES,
    MAX_CALLS_IN_ALL,
    MAX_DESCRIPTION_BYTES,
    MAX_TOOLS,
    MAX_TOOLS_BYTES,
    CallPiece,
    check_calls,
    check_tool_use,
    join,
)

DEEP = '{"a":' * 129 + "1" + "}" * 129


def tool(name: str = "f", description: str = "", parameters: str = "{}") -> Tool:
    return Tool(name, description, parameters)


def many(n: int, **fields: str) -> tuple[Tool, ...]:
    return tuple(tool(f"f{i}", **fields) for i in range(n))


def test_what_is_within_the_limits_passes_as_it_is() -> None:
    use = ToolUse((tool("a-Z_09" + "x" * 58), *many(MAX_TOOLS - 1, parameters="")), "required", "f3")
    assert check_tool_use(use) is use
    nested = '{"a":' * MAX_NESTING + "1" + "}" * MAX_NESTING
    assert check_tool_use(ToolUse((tool(parameters=nested),)))


@pytest.mark.parametrize(
    ("tools", "field", "highest"),
    [
        (many(MAX_TOOLS + 1), "tools", MAX_TOOLS),
        (many(9, parameters=json.dumps({"title": "x" * 60_000})), "tools", MAX_TOOLS_BYTES),
        ((tool(), tool("")), "tools[1].name", None),
        ((tool("x" * 65),), "tools[0].name", None),
        ((tool("a.b"),), "tools[0].name", None),
        ((tool("é"),), "tools[0].name", None),
        ((tool("a\n"),), "tools[0].name", None),
        ((tool("f"), tool("g"), tool("f")), "tools[2].name", None),
        ((tool(description="é" * (MAX_DESCRIPTION_BYTES // 2) + "x"),), "tools[0].description", MAX_DESCRIPTION_BYTES),
        ((tool(), tool("g", "", " " * (MAX_FORM_BYTES + 1))), "tools[1].parameters", MAX_FORM_BYTES),
        ((tool(parameters=DEEP),), "tools[0].parameters", MAX_NESTING),
        ((tool(parameters="{"),), "tools[0].parameters", None),
        ((tool(parameters="[]"),), "tools[0].parameters", None),
        ((tool(parameters='{"type": "string"}'),), "tools[0].parameters", None),
    ],
)
def test_each_limit_is_named_by_its_field(tools: tuple[Tool, ...], field: str, highest: int | None) -> None:
    with pytest.raises(InferdError) as caught:
        check_tool_use(ToolUse(tools))
    assert (caught.value.code, caught.value.field) == (Code.INVALID, field)
    assert caught.value.details.get("highest") == highest


def test_the_choice_is_one_of_the_tools() -> None:
    with pytest.raises(InferdError, match="'g', which is not among the tools") as caught:
        check_tool_use(ToolUse((tool(),), "required", "g"))
    assert caught.value.field == "tool_choice"


def call(**fields: str) -> tuple[ToolCall, ...]:
    return (ToolCall(**{"id": "1", "name": "f", "arguments": "{}", **fields}),)


def test_calls_and_results_of_earlier_turns_pass() -> None:
    check_calls([ChatMessage("assistant", "", call()), ChatMessage("tool", "x", tool_call_id="1", name="f")])


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ({"role": "user", "tool_calls": call()}, "tool_calls"),
        ({"role": "assistant", "tool_call_id": "1"}, "tool_call_id"),
        ({"role": "assistant", "tool_calls": call() * (MAX_CALLS + 1)}, "tool_calls"),
        ({"role": "assistant", "tool_calls": call(id="x" * (MAX_CALL_ID_CHARS + 1))}, "tool_calls[0].id"),
        ({"role": "assistant", "tool_calls": call() + call(name="a b")}, "tool_calls[1].name"),
        ({"role": "assistant", "tool_calls": call(arguments="{")}, "tool_calls[0].arguments"),
        ({"role": "assistant", "tool_calls": call(arguments=DEEP)}, "tool_calls[0].arguments"),
        ({"role": "assistant", "tool_calls": call(arguments=" " * (MAX_FORM_BYTES + 1))}, "tool_calls[0].arguments"),
        ({"role": "tool", "tool_call_id": "a\nb"}, "tool_call_id"),
        ({"role": "tool", "name": "a b"}, "name"),
    ],
)
def test_what_is_no_call_is_named_by_its_field(message: dict[str, Any], field: str) -> None:
    with pytest.raises(InferdError) as caught:
        check_calls([ChatMessage("user", "x"), ChatMessage(**{"content": "", **message})])
    assert (caught.value.code, caught.value.field) == (Code.INVALID, f"messages[1].{field}")


@pytest.mark.parametrize(
    ("n_messages", "calls", "highest"),
    [
        (MAX_CALLS_IN_ALL // MAX_CALLS, call() * MAX_CALLS, None),
        (MAX_CALLS_IN_ALL // MAX_CALLS + 1, call() * MAX_CALLS, MAX_CALLS_IN_ALL),
        (4, call(arguments="{" * (MAX_CALLS_BYTES // 4)), MAX_CALLS_BYTES),
        (1, call(id="x" * MAX_CALLS_BYTES), MAX_CALLS_BYTES),
        (1, call(arguments="é" * (MAX_CALLS_BYTES // 2)), MAX_CALLS_BYTES),
    ],
)
def test_the_calls_of_all_messages_have_limits_together(
    n_messages: int, calls: tuple[ToolCall, ...], highest: int | None
) -> None:
    messages = [ChatMessage("assistant", "", calls)] * n_messages
    if highest is None:
        return check_calls(messages)
    with pytest.raises(InferdError) as caught:
        check_calls(messages)
    assert (caught.value.field, caught.value.details) == ("messages", {"highest": highest})


def test_pieces_join_until_another_call_begins() -> None:
    first = [CallPiece(0, "i", "f"), CallPiece(0, arguments="{")]
    assert join([], first) == [CallPiece(0, "i", "f", "{")]
    more = [CallPiece(0, arguments="}"), CallPiece(1, "j", "g", "{}")]
    assert join([CallPiece(0, "i", "f", "{")], more) == [CallPiece(0, "i", "f", "{}"), CallPiece(1, "j", "g", "{}")]
