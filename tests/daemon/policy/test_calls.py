"""Calls in the text of an answer: found in every syntax, however it is cut, and nothing that is said gets lost."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.backends.messages import MAX_LEAD
from inferd.backends.tools import FAMILIES, HERMES
from inferd.daemon.domain.tools import CallPiece, join
from inferd.daemon.policy.calls import CallParser

if TYPE_CHECKING:
    from inferd.backends.messages import CallSyntax

SYNTAXES = {family.name: family.syntax for family in FAMILIES}
NAMES = ("get_weather", "add")
OSLO = '{"city": "Os\\"lo}{"}'


def parse(syntax: CallSyntax, *pieces: str) -> tuple[str, list[tuple[str, str]], int]:
    """Text, calls as (name, arguments), and how many are whole."""
    ids = map(str, itertools.count())
    parser = CallParser(syntax, NAMES, lambda: next(ids))
    text, calls = "", list[CallPiece]()
    for i, piece in enumerate(pieces):
        said, more = parser.feed(piece, last=i == len(pieces) - 1)
        text += said
        calls = join(calls, more)
    assert [(call.index, call.id) for call in calls] == [(i, str(i)) for i in range(len(calls))]
    return text, [(call.name, call.arguments) for call in calls], parser.n_whole


def spelled(syntax: CallSyntax, *calls: tuple[str, str]) -> str:
    """Calls as the model writes them."""
    if syntax.split:
        return "".join(f"{syntax.begin}{name}{syntax.split}{arguments}{syntax.end}" for name, arguments in calls)
    bodies = [f'{{"{syntax.name_key}": "{name}", "{syntax.arguments_key}": {arguments}}}' for name, arguments in calls]
    if syntax.listed:
        return f"{syntax.begin}[{', '.join(bodies)}]{syntax.end}"
    return "\n".join(f"{syntax.begin}\n{body}\n{syntax.end}" for body in bodies)


@pytest.mark.parametrize("syntax", SYNTAXES.values(), ids=SYNTAXES)
def test_calls_of_every_family(syntax: CallSyntax) -> None:
    said = spelled(syntax, ("get_weather", OSLO), ("add", "{}"))
    calls = [("get_weather", OSLO), ("add", "{}")]
    assert parse(syntax, said) == ("", calls, 2)
    assert parse(syntax, f"Let me see.\n\n{said}\n") == ("Let me see.", calls, 2)


@pytest.mark.parametrize("syntax", SYNTAXES.values(), ids=SYNTAXES)
def test_an_answer_without_a_call_is_said_as_it_is(syntax: CallSyntax) -> None:
    for text in ("", " \n", "Hello there. \n", f"a {syntax.begin[:-1]} b", f"{syntax.begin} is how a call begins\n"):
        assert parse(syntax, text) == (text, [], 0)


FRAGMENTS = [*'{}[]":,\\', "Hi <", " \n", "é", "x1", '{"name": "add"', '"arguments": {', "get_weather", "true"]


@st.composite
def answers(draw: st.DrawFn) -> tuple[CallSyntax, str]:
    syntax = draw(st.sampled_from(list(SYNTAXES.values())))
    marks = [*syntax.marks, syntax.begin[:3], syntax.begin[:-1], syntax.end[:4]]
    good = [spelled(syntax, ("add", '{"a": [1, {"b": "}"}]}')), spelled(syntax, ("get_weather", OSLO), ("add", "{}"))]
    bad = [spelled(syntax, ("unknown", "{}")), good[0][:-9], good[1][7:], spelled(syntax, ("add", "12"))]
    parts = draw(st.lists(st.sampled_from(FRAGMENTS + marks + good + bad), max_size=8))
    return syntax, "".join(parts)


@given(answers(), st.data())
def test_any_cut_gives_the_same(answer: tuple[CallSyntax, str], data: st.DataObject) -> None:
    syntax, text = answer
    whole = parse(syntax, text)
    cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=12))
    edges = [0, *sorted(cuts), len(text)]
    assert parse(syntax, *(text[a:b] for a, b in itertools.pairwise(edges))) == whole
    assert parse(syntax, *text, "") == whole


@given(answers())
def test_what_is_no_call_is_said_and_nothing_twice(answer: tuple[CallSyntax, str]) -> None:
    """Text and arguments are parts of the answer, one after the other and in this order."""
    syntax, text = answer
    said, calls, _ = parse(syntax, text)
    if not calls:
        assert said == text
    at = 0
    for _, arguments in calls:
        at = text.index(arguments, at) + len(arguments)
    letters = iter(text)
    assert all(letter in letters for letter in said)


@given(st.lists(st.sampled_from(["Well. ", "\n", "<tool", "é"]), max_size=4), st.integers(0, 3))
def test_text_around_calls_survives(words: list[str], n_calls: int) -> None:
    call = spelled(HERMES, ("add", '{"a": 1}'))
    before = "".join(words)
    said, calls, n_whole = parse(HERMES, before + call * n_calls + "after")
    assert len(calls) == n_whole == n_calls
    assert said == (before.rstrip() if n_calls else before) + "after"


def test_arguments_flow_before_the_call_ends() -> None:
    parser = CallParser(HERMES, NAMES, lambda: "id")
    assert parser.feed('Hm. <tool_call>\n{"name": "add", "argum') == ("Hm.", [])
    assert parser.feed('ents": {"a"') == ("", [CallPiece(0, "id", "add", '{"a"')])
    assert parser.feed(": 1") == ("", [CallPiece(0, arguments=": 1")])
    assert parser.n_whole == 0
    assert parser.feed("}}\n</tool") == ("", [CallPiece(0, arguments="}")])
    assert parser.n_whole == 1
    assert parser.feed("_call>", last=True) == ("", [])


def test_text_flows_although_it_might_become_a_call() -> None:
    parser = CallParser(HERMES, NAMES, lambda: "id")
    assert parser.feed("one <b>two") == ("one <b>two", [])
    assert parser.feed(" <tool") == ("", [])
    assert parser.feed("box>") == (" <toolbox>", [])


@pytest.mark.parametrize(
    ("answer", "text", "calls"),
    [
        ('<tool_call>{"name": "add", "arguments": {}, "id": 7, "x": ["}"]}</tool_call>', "", [("add", "{}")]),
        ('<tool_call>{"arguments": {"a": 1}, "name": "add"}</tool_call>', None, []),
        ('<tool_call>{"name": "add", "arguments": {}} so', " so", [("add", "{}")]),
        ('<tool_call>{"name": "add", "arguments": {}}</tool', "", [("add", "{}")]),
        ('<tool_call>{"name": "add", "arguments": {"a": 1', "", [("add", '{"a": 1')]),
        ('<tool_call><tool_call>{"name": "add", "arguments": {}}</tool_call>', "<tool_call>", [("add", "{}")]),
        ('<tool_call>{"name": "rm", "arguments": {}}</tool_call>', None, []),
        ('<tool_call>{"name": 5, "arguments": {}}</tool_call>', None, []),
        ('<tool_call>{"name": "add", "arguments": "x"}</tool_call>', None, []),
        ('<tool_call>{"name": "add"}</tool_call>', None, []),
        ('<tool_call>{"name": "a\\', None, []),
        ("<tool_call>[]</tool_call>", None, []),
    ],
)
def test_what_a_model_may_make_of_it(answer: str, text: str | None, calls: list[tuple[str, str]]) -> None:
    assert parse(HERMES, answer)[:2] == (answer if text is None else text, calls)


def test_a_bare_call_is_the_whole_answer_or_none() -> None:
    llama = SYNTAXES["llama 3"]
    call = '{"name": "add", "parameters": {"a": 1}}'
    assert parse(llama, f" {call}") == ("", [("add", '{"a": 1}')], 1)
    assert parse(llama, f"<|python_tag|>{call}") == ("", [("add", '{"a": 1}')], 1)
    for text in (
        f"I call {call}",
        '{"city": "Oslo"}',
        '{"parameters": {}, "name": "add"}',
        ' {"name": "Ann", "parameters": {}}',
        "{",
        " ",
    ):
        assert parse(llama, text) == (text, [], 0)


def test_a_call_in_a_list_that_is_none_does_not_take_the_others_with_it() -> None:
    mistral = SYNTAXES["mistral"]
    said = '[TOOL_CALLS] [{"name": "add", "arguments": {}, "id": "abcdefghi"}, {"name": "rm", "arguments": {}}]'
    assert parse(mistral, said) == (', {"name": "rm", "arguments": {}}]', [("add", "{}")], 1)


def test_the_id_of_the_newer_mistrals_is_read_over() -> None:
    mistral = SYNTAXES["mistral v11"]
    assert parse(mistral, "[TOOL_CALLS]add[CALL_ID]abcdefghi[ARGS]{}")[1] == [("add", "{}")]
    assert parse(mistral, "[TOOL_CALLS]add[CALL_ID]abcdefghi{}") == ("[TOOL_CALLS]add[CALL_ID]abcdefghi{}", [], 0)


def test_a_long_answer_costs_little() -> None:
    arguments = json.dumps({"text": "x" * 200_000})
    pieces = [spelled(HERMES, ("add", arguments))[i : i + 4] for i in range(0, 200_100, 4)]
    assert parse(HERMES, *pieces)[1] == [("add", arguments)]


def test_a_name_that_is_no_string_is_no_call_however_deep_it_nests() -> None:
    said = f'<tool_call>{{"name": {"[" * 100_000}'
    assert parse(HERMES, said, said) == (said + said, [], 0)
    escaped = '<tool_call>{"name": "' + "\\" * 3 + 'x", "arguments": {}}</tool_call>'
    assert parse(HERMES, escaped)[1] == []


@pytest.mark.parametrize("n_blanks", [MAX_LEAD, MAX_LEAD + 1])
@pytest.mark.parametrize("syntax", [s for s in SYNTAXES.values() if not s.split])
def test_as_many_blanks_come_before_a_call_as_its_grammar_takes(syntax: CallSyntax, n_blanks: int) -> None:
    inside = spelled(syntax, ("add", "{}")).removeprefix(syntax.begin)
    said = f"{syntax.begin}{' ' * n_blanks}{inside.lstrip()}"
    found = parse(syntax, said)
    assert found == (("", [("add", "{}")], 1) if n_blanks == MAX_LEAD else (said, [], 0))
