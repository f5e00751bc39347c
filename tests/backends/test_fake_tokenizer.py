"""The fake engine's prompts."""

from __future__ import annotations

from inferd.backends.fake_tokenizer import FakeTokenizer
from inferd.backends.messages import ChatMessage


def test_lone_surrogates_are_replaced_not_fatal() -> None:
    assert FakeTokenizer().plain("a\ud800", add_special=True, parse_special=True) == list(b"a?")


def test_a_pair_is_two_lines() -> None:
    assert [bytes(pair) for pair in FakeTokenizer().pairs("q", ["a", "b"])] == [b"q\na", b"q\nb"]


def test_messages_are_lines() -> None:
    tokens = FakeTokenizer().chat([ChatMessage("system", "s"), ChatMessage("user", "u")])
    assert bytes(tokens) == b"system: s\nuser: u\nassistant: "
