"""Grammars of tool calls: a model that says anything says calls whose arguments fit their schema."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from inferd.backends.engine import GrammarError
from inferd.backends.llama.calls import translate_tools
from inferd.backends.llama.loading import load_generator as load
from inferd.backends.messages import CallSyntax, Finished, FinishReason, SamplingParams, Submit, Tool, ToolUse
from inferd.backends.tools import FAMILIES
from inferd.daemon.domain.tools import CallPiece, join
from inferd.daemon.policy.calls import CallParser
from inferd.tests.models.random_gguf import SHAPES, write_random_gguf

from .engines import Heard, plan, run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from inferd.backends.llama.engine import LlamaEngine

pytestmark = pytest.mark.llama

SYNTAXES = {family.name: family.syntax for family in FAMILIES}
# As control tokens in one model and as text in the other, and for both in each family.
CONTROL = ("[TOOL_CALLS]", "[ARGS]", "[CALL_ID]", "<tool_call>", "</tool_call>", "<|python_tag|>", "<|tool_call|>")
WEATHER = Tool(
    "get_weather",
    "",
    json.dumps(
        {
            "type": "object",
            "properties": {
                "city": {"type": "string", "maxLength": 6},
                "unit": {"enum": ["C", "F"]},
                "days": {"$ref": "#/$defs/days"},
            },
            "required": ["city", "unit", "days"],
            "$defs": {"days": {"type": "integer", "minimum": 1, "maximum": 7}},
        }
    ),
)
STOP = Tool("stop", "", "")
TOOLS = (WEATHER, STOP)


@pytest.fixture(scope="module", params=["text", "control"])
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaEngine]:
    control = CONTROL if request.param == "control" else ()
    path = tmp_path_factory.mktemp("models") / "tools.gguf"
    write_random_gguf(path, SHAPES["tiny"], control=control)
    engine = load(plan(path), lambda _: None)
    yield engine
    engine.close()


def answered(engine: LlamaEngine, use: ToolUse, syntax: CallSyntax, prompt: str = "abc", **params: Any) -> Heard:
    grammar, calls = translate_tools(use, syntax, engine._vocab.marker)
    given = {"max_tokens": 300, "temperature": 1.0, **params}
    tokens = engine._vocab.tokenize(prompt.encode(), add_special=False, parse_special=True)
    submit = Submit("a", 1, tokens, len(tokens), SamplingParams(grammar=grammar, calls=calls, **given))
    heard = run(engine, submit)["a"]
    assert isinstance(heard.end, Finished)
    assert heard.end.error == ""
    return heard


def parsed(syntax: CallSyntax, text: str) -> tuple[str, list[CallPiece]]:
    parser = CallParser(syntax, [tool.name for tool in TOOLS], lambda: "id")
    said, calls = parser.feed(text)
    tail, more = parser.feed("", last=True)
    return said + tail, join(calls, more)


def check(call: CallPiece) -> None:
    arguments = json.loads(call.arguments)
    if call.name == "stop":
        assert arguments == {}
    else:
        assert set(arguments) == {"city", "unit", "days"}
        assert len(arguments["city"]) <= 6
        assert arguments["unit"] in ("C", "F")
        assert 1 <= arguments["days"] <= 7


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("syntax", SYNTAXES.values(), ids=SYNTAXES)
def test_a_call_that_must_come_comes_and_fits(engine: LlamaEngine, syntax: CallSyntax, seed: int) -> None:
    heard = answered(engine, ToolUse(TOOLS, "required", parallel=False), syntax, seed=seed)
    assert isinstance(heard.end, Finished)
    assert heard.end.reason is FinishReason.STOP
    text, (call,) = parsed(syntax, heard.text)
    assert text == ""
    check(call)


@pytest.mark.parametrize("syntax", SYNTAXES.values(), ids=SYNTAXES)
def test_the_named_one_comes(engine: LlamaEngine, syntax: CallSyntax) -> None:
    for tool in TOOLS:
        text, (call,) = parsed(syntax, answered(engine, ToolUse(TOOLS, "required", tool.name), syntax, seed=1).text)
        assert (text, call.name) == ("", tool.name)
        check(call)


@pytest.mark.parametrize("syntax", SYNTAXES.values(), ids=SYNTAXES)
def test_several_may_come(engine: LlamaEngine, syntax: CallSyntax) -> None:
    n_most = 0
    for seed in range(40):
        heard = answered(engine, ToolUse((STOP,), "required"), syntax, seed=seed, temperature=2.0, ignore_eos=True)
        text, calls = parsed(syntax, heard.text)
        assert isinstance(heard.end, Finished)
        assert text == "" or heard.end.reason is FinishReason.LENGTH
        n_most = max(n_most, len(calls))
        assert {call.name for call in calls} == {"stop"}
        if n_most > 1:
            break
    assert (n_most > 1) != syntax.bare


def test_a_schema_that_nothing_can_be_made_of_is_refused_by_its_place() -> None:
    bad = Tool("bad", "", '{"type": "object", "properties": {"a": {"type": "nonsense"}}}')
    with pytest.raises(GrammarError, match=r"tools\[1\]\.parameters: .*nonsense") as caught:
        translate_tools(ToolUse((STOP, bad)), SYNTAXES["mistral"], lambda mark: None)
    assert caught.value.field == "tools[1].parameters"
    translate_tools(ToolUse((STOP, bad), "required", "stop"), SYNTAXES["mistral"], lambda mark: None)


@pytest.mark.parametrize(
    "parameters",
    [
        '{"properties": 5}', '{"properties": {"a": 5}}', '{"required": 5, "properties": {}}',
        '{"additionalProperties": false, "required": ["a"]}', '{"properties": {"a": {"const": "\\ud800"}}}',
        '{"properties": {"a": {"$ref": "https://example.com/schema"}}}', '{"properties": {"a": {"pattern": "("}}}',
    ],
)  # fmt: skip
def test_odd_schemas_are_refused_in_one_line(parameters: str) -> None:
    with pytest.raises(GrammarError) as caught:
        translate_tools(ToolUse((Tool("f", "", parameters),)), SYNTAXES["mistral"], lambda mark: None)
    assert caught.value.field == "tools[0].parameters"
    assert "\n" not in str(caught.value)


def test_keywords_that_no_grammar_can_follow_are_left_to_the_tool() -> None:
    odd = Tool("odd", "", '{"type": "object", "properties": {"a": {"type": "array", "uniqueItems": true}}}')
    assert translate_tools(ToolUse((odd,)), SYNTAXES["mistral"], lambda mark: None)[0]


@pytest.mark.parametrize("syntax", SYNTAXES.values(), ids=SYNTAXES)
def test_none_lets_no_call_begin(engine: LlamaEngine, syntax: CallSyntax) -> None:
    marker = engine._vocab.marker(syntax.begin)
    grammar = translate_tools(ToolUse(TOOLS, "none"), syntax, engine._vocab.marker)[0]
    assert bool(grammar) == (marker is None and not syntax.bare)
    bias = {marker: 100.0} if marker is not None else {}
    heard = answered(engine, ToolUse(TOOLS, "none"), syntax, logit_bias=bias, max_tokens=20, ignore_eos=True)
    assert len(heard.tokens) == 20
    assert syntax.begin not in heard.text
