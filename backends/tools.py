"""Tools in prompts: how which model writes calls, and what its chat template is given.

A template that knows tools gets them as OpenAI's dicts. One that does not is given ordinary messages, which explain the
tools and spell out calls and results.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from .messages import CallSyntax, ChatMessage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .messages import Tool

HERMES = CallSyntax(begin="<tool_call>", end="</tool_call>")
NO_PARAMETERS: dict[str, Any] = {"type": "object", "properties": {}}


class Family(NamedTuple):
    """Models whose template has all of `says` and none of `lacks`."""

    name: str
    syntax: CallSyntax
    says: tuple[str, ...]
    lacks: tuple[str, ...] = ()


# The first one that fits counts.
FAMILIES = (
    Family(
        "mistral v11", CallSyntax(begin="[TOOL_CALLS]", call_id="[CALL_ID]", split="[ARGS]"), ("[TOOL_CALLS]", "[ARGS]")
    ),
    Family("mistral", CallSyntax(begin="[TOOL_CALLS]", listed=True, id_key="id"), ("[TOOL_CALLS]",)),
    Family("hermes, qwen", HERMES, ("<tool_call>",), ("<function=", "<arg_key>")),
    Family(
        "llama 3",
        CallSyntax(begin="<|python_tag|>", arguments_key="parameters", bare=True),
        ("<|start_header_id|>ipython",),
        ("<function=",),
    ),
    Family(
        "functionary 3.1",
        CallSyntax(begin="<function=", split=">", end="</function>"),
        ("<function=", "</function>"),
        ("<parameter=", "<tool_call>"),
    ),
    Family("granite 3", CallSyntax(begin="<|tool_call|>", listed=True), ("<|tool_call|>", "<|start_of_role|>")),
    Family("nemotron", CallSyntax(begin="<TOOLCALL>", end="</TOOLCALL>", listed=True), ("<TOOLCALL>",)),
)

INSTRUCTIONS = """# Tools

These functions can be called. Each line is one of them, with a JSON schema of its arguments:
{tools}

To call a function, answer with its name and its arguments as JSON between tags, like this:
<tool_call>
{{"name": "the_name", "arguments": {{"argument": "value"}}}}
</tool_call>
What it returns comes in the next message between <tool_response> and </tool_response>. Call a function only where it
helps; otherwise just answer."""


def knows_tools(template: str) -> bool:
    return re.search(r"\btools\b", template) is not None


def syntax_of(template: str) -> CallSyntax | None:
    """How the model of this template writes calls; None when it has a way that is not known here."""
    if not knows_tools(template):
        return HERMES
    for family in FAMILIES:
        if all(word in template for word in family.says) and not any(word in template for word in family.lacks):
            return family.syntax
    return None


def tool_dicts(tools: Sequence[Tool]) -> list[dict[str, Any]]:
    """As OpenAI has them."""
    return [
        {
            "type": "function",
            "function": {
                "name": tool.name,
                "description": tool.description,
                "parameters": json.loads(tool.parameters) if tool.parameters else NO_PARAMETERS,
            },
        }
        for tool in tools
    ]


def message_dicts(messages: Sequence[ChatMessage], *, parsed: bool = True) -> list[dict[str, Any]]:
    """As OpenAI has them, but for the arguments of calls: these are mappings, where `parsed`."""
    made = []
    for message in messages:
        row: dict[str, Any] = {"role": message.role, "content": message.content}
        if message.tool_calls:  # absent otherwise: templates ask whether the key is there
            row["tool_calls"] = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {
                        "name": call.name,
                        "arguments": json.loads(call.arguments) if parsed else call.arguments,
                    },
                }
                for call in message.tool_calls
            ]
        row |= {key: value for key in ("tool_call_id", "name") if (value := getattr(message, key))}
        made.append(row)
    return made


def spelled_out(messages: Sequence[ChatMessage], tools: Sequence[Tool]) -> list[ChatMessage]:
    """For a template that knows no tools."""
    made: list[ChatMessage] = []
    before = ""
    for message in messages:
        content, role = message.content, message.role
        if message.tool_calls:
            calls = [call_text(call.name, call.arguments) for call in message.tool_calls]
            content = "\n".join(([content] if content else []) + calls)
        elif role == "tool":
            content, role = f"<tool_response>\n{content}\n</tool_response>", "user"
            if before == "tool":  # many templates want user and assistant in turn
                content = f"{made.pop().content}\n{content}"
        made.append(ChatMessage(role, content))
        before = message.role
    return _instructed(made, tools) if tools else made


def _instructed(messages: list[ChatMessage], tools: Sequence[Tool]) -> list[ChatMessage]:
    """Some templates have no system message, so without one the first user message holds the instructions."""
    lines = "\n".join(json.dumps(tool["function"], ensure_ascii=False) for tool in tool_dicts(tools))
    text = INSTRUCTIONS.format(tools=lines)
    for i, message in enumerate(messages):
        if message.role in ("system", "developer", "user"):
            parts = [text, message.content] if message.role == "user" else [message.content, text]
            messages[i] = msgspec.structs.replace(message, content="\n\n".join(parts))
            return messages
    return [ChatMessage("system", text), *messages]


def call_text(name: str, arguments: str) -> str:
    """One call in the way of HERMES."""
    return f'{HERMES.begin}\n{{"name": {json.dumps(name)}, "arguments": {arguments}}}\n{HERMES.end}'
