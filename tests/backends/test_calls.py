"""The words of tools and calls."""

from __future__ import annotations

from inferd.backends.calls import CallSyntax, Tool


def test_marks_are_those_there_are() -> None:
    assert CallSyntax(begin="<a>", end="</a>").marks == ("<a>", "</a>")
    assert CallSyntax(begin="[A]", call_id="[I]", split="[S]").marks == ("[A]", "[I]", "[S]")


def test_all_that_a_prompt_may_hold_of_a_tool_counts() -> None:
    assert sum(map(len, Tool("f", "abc", "{}").texts)) == 5
