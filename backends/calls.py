"""The words of tools and their calls, as messages carry them."""

from __future__ import annotations

from typing import Literal

import msgspec

MAX_LEAD = 64  # blanks before and in a call until its name: the text is free until then, and grammar and parser agree


class Tool(msgspec.Struct, frozen=True):
    name: str
    description: str
    parameters: str  # a JSON schema; "": it takes none

    @property
    def texts(self) -> tuple[str, ...]:
        return self.description, self.parameters


class ToolUse(msgspec.Struct, frozen=True):
    """The tools of a request, and what may come of them."""

    tools: tuple[Tool, ...]
    choice: Literal["auto", "none", "required"] = "auto"
    function: str = ""  # with "required": the one that must be called
    parallel: bool = True


class ToolCall(msgspec.Struct, frozen=True):
    id: str
    name: str
    arguments: str  # a JSON object


class CallSyntax(msgspec.Struct, frozen=True, kw_only=True):
    """How a model writes tool calls: `begin`, a JSON object that names the tool and its arguments, `end`.

    With `split` it is `begin`, name, `split`, arguments, `end` instead.
    """

    begin: str
    end: str = ""
    name_key: str = "name"
    arguments_key: str = "arguments"
    id_key: str = ""  # of an id that the model may write, too; ours is the one that counts
    bare: bool = False  # an answer that is a call may do without `begin`
    listed: bool = False  # the object is in a list, with those of other calls
    split: str = ""
    call_id: str = ""  # before `split`, and followed by an id
    grammar: Literal["on_call", "at_once", "no_calls"] = "on_call"  # from when on the grammar holds
    once: bool = False  # the answer ends with its first call, or the list of them

    @property
    def marks(self) -> tuple[str, ...]:
        """All that may be control tokens of the model, whose text the answer needs nevertheless."""
        return tuple(mark for mark in (self.begin, self.call_id, self.split, self.end) if mark)
