"""Tools and their calls: protobuf to words and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ...backends.messages import ChatMessage, Tool, ToolCall, ToolUse
from ...protos import inferd_pb2 as pb
from ..domain.errors import Code, InferdError
from ..domain.tools import FIELD, check_n_tools, check_tool_use

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..domain.tools import CallPiece

CHOICES: dict[int, Literal["auto", "none", "required"]] = {
    pb.ToolChoice.AUTO: "auto",
    pb.ToolChoice.NONE: "none",
    pb.ToolChoice.REQUIRED: "required",
}


def to_tool_use(wire: pb.GenerateRequest) -> ToolUse | None:
    """None without tools. Raises InferdError naming the first wrong field."""
    choice, function = wire.tool_choice, ""
    if choice.mode not in CHOICES:
        raise InferdError(Code.INVALID, f"tool_choice.mode has no value {choice.mode}", field="tool_choice")
    mode = CHOICES[choice.mode]
    if choice.WhichOneof("choice") == "function":
        mode, function = "required", choice.function
        if not function:
            raise InferdError(Code.INVALID, "tool_choice.function is empty", field="tool_choice")
    if not wire.tools:
        if mode == "required":
            raise InferdError(Code.INVALID, "tool_choice asks for a call, but there are no tools", field="tool_choice")
        return None
    check_n_tools(len(wire.tools))
    _check_company(wire)
    parallel = wire.parallel_tool_calls if wire.HasField("parallel_tool_calls") else True
    tools = tuple(Tool(tool.name, tool.description, tool.parameters) for tool in wire.tools)
    return check_tool_use(ToolUse(tools, mode, function, parallel))


def _check_company(wire: pb.GenerateRequest) -> None:
    """What tools need, and what they do not go with."""
    if wire.WhichOneof("input") != "messages":
        raise InferdError(Code.INVALID, "tools need messages: a model's chat template tells it of them", field=FIELD)
    form = wire.response_format.WhichOneof("format")
    if form not in (None, "text") and getattr(wire.response_format, form):
        text = f"response_format.{form} and tools do not go together: an answer has one form"
        raise InferdError(Code.INVALID, text, field="response_format")


def to_message(wire: pb.Message) -> ChatMessage:
    calls = tuple(ToolCall(call.id, call.name, call.arguments) for call in wire.tool_calls)
    return ChatMessage(wire.role, wire.content, calls, wire.tool_call_id, wire.name)


def to_call_deltas(pieces: Iterable[CallPiece]) -> list[pb.ToolCallDelta]:
    return [pb.ToolCallDelta(index=p.index, id=p.id, name=p.name, arguments=p.arguments) for p in pieces]
