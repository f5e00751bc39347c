"""The fake engine's prompts."""

from __future__ import annotations

from inferd.backends.fake_tokenizer import FakeTokenizer
from inferd.backends.messages import ChatMessage, Tool, ToolUse
from inferd.backends.tools import HERMES, call_text


def test_lone_surrogates_are_replaced_not_fatal() -> None:
    assert FakeTokenizer().plain("a\ud800", add_special=True, parse_special=True) == list(b"a?")


def test_a_pair_is_two_lines() -> None:
    assert [bytes(pair) for pair, _ in FakeTokenizer().pairs("q", ["a", "b"])] == [b"q\na", b"q\nb"]


def test_messages_are_lines() -> None:
    tokens = FakeTokenizer().chat([ChatMessage("system", "s"), ChatMessage("user", "u")])
    assert bytes(tokens) == b"system: s\nuser: u\nassistant: "


def test_tools_are_explained_and_called_where_they_must_be() -> None:
    tools = (Tool("f", "does f", ""), Tool("g", "", ""))
    assert b"does f" in bytes(FakeTokenizer().chat([ChatMessage("user", "u")], tools))
    said, syntax = FakeTokenizer().compile_tools(ToolUse(tools))
    assert (said, syntax) == ("", HERMES)
    assert FakeTokenizer().compile_tools(ToolUse(tools, "required"))[0] == call_text("f", "{}")
    assert FakeTokenizer().compile_tools(ToolUse(tools, "required", "g"))[0] == call_text("g", "{}")
