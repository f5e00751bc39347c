"""Tools and calls on the wire: what arrives, what is refused by name, what goes back."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest

from inferd.backends.messages import ChatMessage, Tool, ToolCall, ToolUse
from inferd.daemon.api import wire
from inferd.daemon.api.tools import to_call_deltas, to_message, to_tool_use
from inferd.daemon.domain.errors import Code, InferdError
from inferd.daemon.domain.tools import MAX_CALLS, MAX_CALLS_IN_ALL, MAX_TOOLS, CallPiece
from inferd.protos import inferd_pb2 as pb

MESSAGES = pb.Messages(messages=[pb.Message(role="user", content="hi")])
F, G = pb.Tool(name="f", description="does", parameters="{}"), pb.Tool(name="g")


def ask(**given: Any) -> pb.GenerateRequest:
    fields: dict[str, Any] = {"model": "m", "messages": MESSAGES, "tools": [F, G]}
    return pb.GenerateRequest(**fields | given)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, ("auto", "", True)),
        ({"tool_choice": pb.ToolChoice(mode=pb.ToolChoice.AUTO)}, ("auto", "", True)),
        ({"tool_choice": pb.ToolChoice(mode=pb.ToolChoice.NONE)}, ("none", "", True)),
        ({"tool_choice": pb.ToolChoice(mode=pb.ToolChoice.REQUIRED)}, ("required", "", True)),
        ({"tool_choice": pb.ToolChoice(function="g"), "parallel_tool_calls": False}, ("required", "g", False)),
        ({"parallel_tool_calls": True, "response_format": pb.ResponseFormat(text=True)}, ("auto", "", True)),
    ],
)
def test_the_tools_and_what_may_come_of_them(given: dict[str, Any], expected: tuple[Any, ...]) -> None:
    (request,) = wire.to_requests(ask(**given), "t")
    use = request.tools
    assert use == ToolUse((Tool("f", "does", "{}"), Tool("g", "", "")), *expected)
    assert request.prompt_bytes == len("hi" + "does" + "{}")


def test_without_tools_there_is_no_use() -> None:
    assert to_tool_use(ask(tools=[])) is None
    assert to_tool_use(ask(tools=[], tool_choice=pb.ToolChoice(mode=pb.ToolChoice.NONE))) is None


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"tools": [], "tool_choice": pb.ToolChoice(mode=pb.ToolChoice.REQUIRED)}, "tool_choice"),
        ({"tools": [], "tool_choice": pb.ToolChoice(function="f")}, "tool_choice"),
        ({"tool_choice": pb.ToolChoice(function="unknown")}, "tool_choice"),
        ({"tool_choice": pb.ToolChoice(function="")}, "tool_choice"),
        ({"tool_choice": pb.ToolChoice(mode=9)}, "tool_choice"),  # type: ignore[arg-type]
        ({"messages": None, "prompt": "p"}, "tools"),
        ({"messages": None, "tokens": pb.Tokens(ids=[1])}, "tools"),
        ({"response_format": pb.ResponseFormat(json_object=True)}, "response_format"),
        ({"response_format": pb.ResponseFormat(json_schema="{}")}, "response_format"),
        ({"response_format": pb.ResponseFormat(grammar='root ::= "a"')}, "response_format"),
        ({"tools": [F, F]}, "tools[1].name"),
        ({"tools": [G, pb.Tool(name="x", parameters="[")]}, "tools[1].parameters"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(given: dict[str, Any], field: str) -> None:
    with pytest.raises(InferdError) as caught:
        wire.to_requests(ask(**given), "t")
    assert (caught.value.code, caught.value.field) == (Code.INVALID, field)


def test_messages_carry_calls_and_results() -> None:
    call = pb.ToolCall(id="1", name="f", arguments="{}")
    assert to_message(pb.Message(role="assistant", tool_calls=[call])) == ChatMessage(
        "assistant", "", (ToolCall("1", "f", "{}"),)
    )
    assert to_message(pb.Message(role="tool", content="x", tool_call_id="1", name="f")) == ChatMessage(
        "tool", "x", (), "1", "f"
    )


def test_bad_calls_of_earlier_turns_are_refused_wherever_messages_are_read() -> None:
    bad = pb.Messages(messages=[pb.Message(role="user", tool_calls=[pb.ToolCall(name="f", arguments="{}")])])
    with pytest.raises(InferdError) as caught:
        wire.to_messages(bad)
    assert caught.value.field == "messages[0].tool_calls"


def test_numbers_are_checked_before_what_is_counted() -> None:
    with pytest.raises(InferdError) as caught:
        wire.to_requests(ask(tools=[pb.Tool()] * (MAX_TOOLS + 1), messages=None, prompt="p"), "t")
    assert (caught.value.field, caught.value.details["highest"]) == ("tools", MAX_TOOLS)


@pytest.mark.parametrize(
    ("n_calls", "n_messages", "field", "highest"),
    [(50_000, 1, "messages[0].tool_calls", MAX_CALLS), (MAX_CALLS, 400, "messages", MAX_CALLS_IN_ALL)],
)
def test_calls_are_counted_before_they_are_read(n_calls: int, n_messages: int, field: str, highest: int) -> None:
    nobodys = pb.Message(role="user", tool_calls=[pb.ToolCall()] * n_calls)
    messages = pb.Messages(messages=[nobodys] * n_messages)
    tracemalloc.start()
    with pytest.raises(InferdError) as caught:
        wire.to_messages(messages)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 2**20, "nothing was made of them"
    assert (caught.value.field, caught.value.details) == (field, {"highest": highest})


def test_pieces_go_back_as_they_are() -> None:
    pieces = [CallPiece(0, "i", "f", "{"), CallPiece(0, arguments="}")]
    assert to_call_deltas(pieces) == [
        pb.ToolCallDelta(index=0, id="i", name="f", arguments="{"),
        pb.ToolCallDelta(index=0, arguments="}"),
    ]
