"""Tools as people write them, into the contract's messages."""

from __future__ import annotations

from typing import Any, cast

import pytest

from inferd.protos import inferd_pb2 as pb
from inferd.protos.answer import ToolCall
from inferd.protos.compose import GenerateOptions, generate_request
from inferd.protos.errors import InferdError

OPENAI = {"type": "function", "function": {"name": "f", "description": "does", "parameters": {"type": "object"}}}


def compose(prompt: Any = "hi", **options: Any) -> pb.GenerateRequest:
    return generate_request("demo", prompt, cast(GenerateOptions, options))


def test_tools_may_be_flat_or_as_openai_has_them() -> None:
    flat, wrapped = compose(tools=[OPENAI["function"], OPENAI]).tools
    assert flat == wrapped == pb.Tool(name="f", description="does", parameters='{"type": "object"}')
    (bare,) = compose(tools=[{"name": "g", "description": None, "parameters": None}]).tools
    assert bare == pb.Tool(name="g")


@pytest.mark.parametrize(
    ("choice", "wire"),
    [
        ("auto", pb.ToolChoice(mode=pb.ToolChoice.AUTO)),
        ("none", pb.ToolChoice(mode=pb.ToolChoice.NONE)),
        ("required", pb.ToolChoice(mode=pb.ToolChoice.REQUIRED)),
        ({"type": "function", "function": {"name": "f"}}, pb.ToolChoice(function="f")),
        ({"function": "f"}, pb.ToolChoice(function="f")),
        ({"name": "f"}, pb.ToolChoice(function="f")),
    ],
)
def test_the_choice(choice: Any, wire: pb.ToolChoice) -> None:
    request = compose(tool_choice=choice, parallel_tool_calls=False)
    assert request.tool_choice == wire
    assert request.tool_choice.WhichOneof("choice") is not None
    assert request.HasField("parallel_tool_calls")
    assert not request.parallel_tool_calls


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tools", [{"function": {}}]),
        ("tools", 5),
        ("tool_choice", "maybe"),
        ("tool_choice", {"x": 1}),
        ("tool_choice", 5),
    ],
)
def test_what_is_none_of_these_names_its_field(field: str, value: Any) -> None:
    with pytest.raises(InferdError) as caught:
        compose(**{field: value})
    assert (caught.value.code, caught.value.field) == ("invalid", field)


@pytest.mark.parametrize(
    "call",
    [
        {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}},
        {"id": "1", "name": "f", "arguments": {"a": 1}},
        ToolCall("1", "f", '{"a": 1}'),
    ],
)
def test_a_chat_with_calls_and_their_results(call: Any) -> None:
    chat = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "name": "f", "content": "2"},
    ]
    user, assistant, tool = compose(chat).messages.messages
    assert user == pb.Message(role="user", content="hi")
    wire = pb.ToolCall(id="1", name="f", arguments='{"a": 1}')
    assert assistant == pb.Message(role="assistant", tool_calls=[wire])
    assert tool == pb.Message(role="tool", content="2", tool_call_id="1", name="f")


@pytest.mark.parametrize("message", [{"role": "assistant"}, {"role": "assistant", "tool_calls": [{}]}])
def test_a_message_that_says_nothing_is_refused(message: Any) -> None:
    with pytest.raises(InferdError, match="prompt"):
        compose([message])
