"""Tools and their calls, from OpenAI's dicts or flat ones to the contract's messages."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from . import inferd_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Sequence

MODES = {"auto": pb.ToolChoice.AUTO, "none": pb.ToolChoice.NONE, "required": pb.ToolChoice.REQUIRED}


def set_tools(request: pb.GenerateRequest, tools: Sequence[Mapping[str, Any]]) -> None:
    for tool in tools:
        function = _function(tool)
        parameters = json_text(function["parameters"]) if function.get("parameters") is not None else ""
        description = function.get("description") or ""
        request.tools.add(name=function["name"], description=description, parameters=parameters)


def set_tool_choice(request: pb.GenerateRequest, choice: str | Mapping[str, Any]) -> None:
    if not isinstance(choice, str):
        request.tool_choice.function = _function(choice)["name"]
    elif choice in MODES:
        request.tool_choice.mode = MODES[choice]
    else:
        raise ValueError(f"it must be {', '.join(MODES)} or the name of a function in a dict, not {choice!r}")


def to_message(message: Mapping[str, Any]) -> pb.Message:
    """One of a chat. Content may be missing where there are calls."""
    calls = message.get("tool_calls") or ()
    content: str = (message.get("content") or "") if calls else message["content"]
    wire = pb.Message(role=message["role"], content=content)
    for call in calls:
        if isinstance(call, Mapping):
            function, call_id = _function(call), call.get("id") or ""
            wire.tool_calls.add(id=call_id, name=function["name"], arguments=json_text(function["arguments"]))
        else:  # as an answer has them
            wire.tool_calls.add(id=call.id, name=call.name, arguments=call.arguments)
    wire.tool_call_id = message.get("tool_call_id") or ""
    wire.name = message.get("name") or ""
    return wire


def json_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _function(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """OpenAI puts one more dict around it."""
    function = given.get("function", given)
    return {"name": function} if isinstance(function, str) else function
