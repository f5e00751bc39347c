"""Tool calls as a grammar: the name of a tool and arguments of its schema, in the way the model writes calls."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec

from ..calls import MAX_LEAD
from ..engine import GrammarError
from .grammar import WHITESPACE, check_schema, checked

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..messages import CallSyntax, Tool, ToolUse

    Marker = Callable[[str], int | None]  # the token that is spelled so, if it is none of text

# What a schema says of an object beside its properties; where there is any, it alone says what else may come.
OPEN = {"additionalProperties", "patternProperties", "unevaluatedProperties", "allOf", "anyOf", "oneOf", "$ref", "if"}
# LEAD are the blanks that a call may have before it is seen to be one; where it must come there are few.
TERMINALS = f"""
TEXT: /(?s:.*)/
W: /{WHITESPACE}/
LEAD: /[ \\t\\r\\n]{{0,{MAX_LEAD}}}/
ID: /[a-zA-Z0-9_-]{{1,64}}/
"""


def translate_tools(use: ToolUse, syntax: CallSyntax, marker: Marker) -> tuple[str, CallSyntax]:
    """What llguidance understands, and when it holds. Raises GrammarError that names the tool."""
    once = not use.parallel or bool(use.function) or syntax.bare or syntax.listed
    if use.choice == "none":
        text = "" if syntax.bare or marker(syntax.begin) is not None else _without(syntax.begin)
        return text and checked(text), msgspec.structs.replace(syntax, grammar="no_calls")
    at_once = use.choice == "required"
    tools = [(i, tool) for i, tool in enumerate(use.tools) if use.function in ("", tool.name)]
    single = not use.parallel or bool(use.function)
    lead = "W" if at_once else "LEAD"
    lines = [
        *_start(syntax, marker, at_once=at_once, once=once),
        *_block(syntax, marker, lead, single=single),
        TERMINALS,
    ]
    lines += [line for i, tool in tools for line in _tool(i, tool, syntax, marker, lead)]
    lines.append("call: " + " | ".join(f"t{i}" for i, _ in tools))
    try:
        made = checked("\n".join(lines))
    except GrammarError:
        for i, tool in tools:
            check_schema(_arguments(tool), f"tools[{i}].parameters")
        raise
    return made, msgspec.structs.replace(syntax, grammar="at_once" if at_once else "on_call", once=once)


def _start(syntax: CallSyntax, marker: Marker, *, at_once: bool, once: bool) -> list[str]:
    """`on_call`, what is matched begins with the token in which `begin` begins."""
    begin = _mark(syntax.begin, marker)
    if at_once:
        first = "block" if syntax.bare else f"{begin} block"
        return [f"start: {first}" if once else f"start: {first} (W {first})*"]
    ways = [begin] if marker(syntax.begin) is not None else []
    if syntax.bare:
        ways.append("LEAD")
    else:
        ways.append("head")
    return [f"start: ({' | '.join(ways)}) block", f"head[lazy]: TEXT {json.dumps(syntax.begin)}"]


def _block(syntax: CallSyntax, marker: Marker, lead: str, *, single: bool) -> list[str]:
    """From after `begin` to `end`."""
    end = f" W {_mark(syntax.end, marker)}" if syntax.end else ""
    if syntax.split:
        return [f"block: call{end}"]
    if not syntax.listed:
        return [f"block: {lead} call{end}" if lead == "W" or not syntax.bare else f"block: call{end}"]
    more = "" if single else ' (W "," W call)*'
    return [f'block: {lead} "[" {lead} call{more} W "]"{end}']


def _tool(i: int, tool: Tool, syntax: CallSyntax, marker: Marker, lead: str) -> list[str]:
    arguments = f"a{i}: %json {json.dumps(_arguments(tool))}"
    if syntax.split:
        call_id = f" ({_mark(syntax.call_id, marker)} ID)?" if syntax.call_id else ""
        return [f"t{i}: {json.dumps(tool.name)}{call_id} {_mark(syntax.split, marker)} W a{i}", arguments]
    name, key, its_arguments = (json.dumps(json.dumps(s)) for s in (tool.name, syntax.name_key, syntax.arguments_key))
    call_id = rf' (W "," W {json.dumps(json.dumps(syntax.id_key))} W ":" W "\"" ID "\"")?' if syntax.id_key else ""
    return [
        f't{i}: OPEN{i} a{i}{call_id} W "}}"',
        f'OPEN{i}: "{{" {lead} {key} {lead} ":" W {name} W "," W {its_arguments} W ":" W',
        arguments,
    ]


def _arguments(tool: Tool) -> dict[str, Any]:
    """A tool has no use for arguments that it does not name, and a schema's keywords must not make it unusable."""
    schema: dict[str, Any] = json.loads(tool.parameters) if tool.parameters else {"properties": {}}
    if "properties" in schema and not OPEN & schema.keys():
        schema["additionalProperties"] = False
    return {**schema, "type": "object", "x-guidance": {"lenient": True, "whitespace_pattern": WHITESPACE}}


def _without(begin: str) -> str:
    """Any text in which no call begins."""
    return f"start: FREE\nFREE: TEXT & ~(TEXT {json.dumps(begin)} TEXT){TERMINALS}"


def _mark(text: str, marker: Marker) -> str:
    token = marker(text)
    return json.dumps(text) if token is None else f"<[{token}]>"
