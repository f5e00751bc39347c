"""The tools of a request and what comes of them, and the limits that are checked before any parser sees them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .errors import Code, InferdError
from .form import check_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...backends.messages import ChatMessage, Tool, ToolUse

FIELD = "tools"
MAX_TOOLS, MAX_CALLS = 128, 128  # of a request; of a message
MAX_CALLS_IN_ALL = 1024  # of all messages together
MAX_DESCRIPTION_BYTES = 16 * 1024
MAX_TOOLS_BYTES = 256 * 1024  # of all descriptions and parameters together
MAX_CALLS_BYTES = 512 * 1024  # of all calls in the messages of a request
MAX_CALL_ID_CHARS = 128
NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}", re.ASCII)


@dataclass(slots=True)
class CallPiece:
    """Some of the call with this index in an answer; id and name come with the first piece, arguments with any."""

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""


def join(pieces: list[CallPiece], more: list[CallPiece]) -> list[CallPiece]:
    """The same in fewer pieces; takes over both lists."""
    for piece in more:
        if pieces and not piece.name and pieces[-1].index == piece.index:
            pieces[-1].arguments += piece.arguments
        else:
            pieces.append(piece)
    return pieces


def check_n_tools(n: int) -> None:
    """Of the wire, before anything is made of them. Raises INVALID."""
    if n > MAX_TOOLS:
        raise _invalid(FIELD, f"takes at most {MAX_TOOLS} tools, not {n}", MAX_TOOLS)


def check_tool_use(use: ToolUse) -> ToolUse:
    """Raises INVALID naming the first wrong field."""
    check_n_tools(len(use.tools))
    if (n_bytes := sum(len(text.encode()) for tool in use.tools for text in tool.texts)) > MAX_TOOLS_BYTES:
        raise _invalid(FIELD, f"takes at most {MAX_TOOLS_BYTES} bytes, not {n_bytes}", MAX_TOOLS_BYTES)
    names: set[str] = set()
    for i, tool in enumerate(use.tools):
        check_name(tool.name, f"{FIELD}[{i}].name")
        if tool.name in names:
            raise _invalid(f"{FIELD}[{i}].name", f"is {tool.name}, as another tool's")
        names.add(tool.name)
        _check_tool(tool, f"{FIELD}[{i}]")
    if use.function and use.function not in names:
        raise _invalid("tool_choice", f"names {use.function[:64]!r}, which is not among the tools")
    return use


def _check_tool(tool: Tool, field: str) -> None:
    if (n_bytes := len(tool.description.encode())) > MAX_DESCRIPTION_BYTES:
        text = f"takes at most {MAX_DESCRIPTION_BYTES} bytes, not {n_bytes}"
        raise _invalid(f"{field}.description", text, MAX_DESCRIPTION_BYTES)
    if tool.parameters and check_json(tool.parameters, f"{field}.parameters").get("type", "object") != "object":
        raise _invalid(f"{field}.parameters", "must be the schema of an object")


def check_n_calls(each: Sequence[int]) -> None:
    """Of each message on the wire, before anything is made of them. Raises INVALID."""
    for i, n in enumerate(each):
        if n > MAX_CALLS:
            raise _invalid(f"messages[{i}].tool_calls", f"takes at most {MAX_CALLS} calls, not {n}", MAX_CALLS)
    if (n_calls := sum(each)) > MAX_CALLS_IN_ALL:
        text = f"take at most {MAX_CALLS_IN_ALL:,} tool calls together, not {n_calls:,}"
        raise _invalid("messages", text, MAX_CALLS_IN_ALL)


def check_calls(messages: Sequence[ChatMessage]) -> None:
    """Calls of earlier turns and their results. Raises INVALID naming the first wrong field."""
    check_n_calls([len(message.tool_calls) for message in messages])
    calls = (call for message in messages for call in message.tool_calls)
    n_bytes = sum(len(text.encode()) for call in calls for text in (call.id, call.name, call.arguments))
    if n_bytes > MAX_CALLS_BYTES:
        text = f"take at most {MAX_CALLS_BYTES:,} bytes of tool calls together, not {n_bytes:,}"
        raise _invalid("messages", text, MAX_CALLS_BYTES)
    for i, message in enumerate(messages):
        field = f"messages[{i}]"
        if message.tool_calls and message.role != "assistant":
            raise _invalid(
                f"{field}.tool_calls", f"belongs to an assistant's message, not to one of role {message.role}"
            )
        if message.tool_call_id and message.role != "tool":
            raise _invalid(f"{field}.tool_call_id", f"belongs to a tool's message, not to one of role {message.role}")
        _check_id(message.tool_call_id, f"{field}.tool_call_id")
        if message.name:
            check_name(message.name, f"{field}.name")
        for j, call in enumerate(message.tool_calls):
            at = f"{field}.tool_calls[{j}]"
            _check_id(call.id, f"{at}.id")
            check_name(call.name, f"{at}.name")
            check_json(call.arguments, f"{at}.arguments")


def check_name(name: str, field: str) -> None:
    if NAME.fullmatch(name) is None:
        raise _invalid(field, f"must be 1 to 64 of a-z, A-Z, 0-9, _ and -, not {name[:64]!r}")


def _check_id(call_id: str, field: str) -> None:
    if len(call_id) > MAX_CALL_ID_CHARS or not call_id.isprintable():
        raise _invalid(field, f"must be at most {MAX_CALL_ID_CHARS} printable characters", MAX_CALL_ID_CHARS)


def _invalid(field: str, why: str, highest: int | None = None) -> InferdError:
    limit = {} if highest is None else {"highest": highest}
    return InferdError(Code.INVALID, f"{field} {why}", field=field, **limit)
