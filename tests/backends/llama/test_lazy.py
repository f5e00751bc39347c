"""Free text until a call begins: what begins one, what only looks like it, and where it ends."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from inferd.backends.llama.calls import translate_tools
from inferd.backends.llama.grammar import Grammars
from inferd.backends.llama.lazy import NoCalls, OnCall
from inferd.backends.llama.loading import load_generator as load
from inferd.backends.messages import CallSyntax, Finished, SamplingParams, Submit, Tool, ToolUse
from inferd.backends.tools import FAMILIES, HERMES
from inferd.tests.models.random_gguf import SHAPES, write_random_gguf

from .engines import plan, run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from inferd.backends.llama.engine import LlamaEngine

pytestmark = pytest.mark.llama

SYNTAXES = {family.name: family.syntax for family in FAMILIES}
ADD = Tool("add", "", json.dumps({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}))
control_only = pytest.mark.parametrize("engine", ["control"], indirect=True)
text_only = pytest.mark.parametrize("engine", ["text"], indirect=True)
CALL = '{"name": "add", "arguments": {"a": 1}}'


@pytest.fixture(scope="module", params=["text", "control"])
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaEngine]:
    """Marks are text to one model, and control tokens to the other one, which knows one more of these."""
    control = ("<think>", "<tool_call>", "</tool_call>", "<|python_tag|>") if request.param == "control" else ()
    path = tmp_path_factory.mktemp("models") / "lazy.gguf"
    write_random_gguf(path, SHAPES["tiny"], control=control)
    engine = load(plan(path, numerics="exact", flash_attention=True), lambda _: None)
    yield engine
    engine.close()


def params_of(engine: LlamaEngine, syntax: CallSyntax, *, parallel: bool = True, **given: Any) -> SamplingParams:
    grammar, calls = translate_tools(ToolUse((ADD,), parallel=parallel), syntax, engine._vocab.marker)
    return SamplingParams(grammar=grammar, calls=calls, **{"max_tokens": 100, **given})


def begun(engine: LlamaEngine, syntax: CallSyntax = HERMES, *, parallel: bool = True) -> OnCall:
    grammars = Grammars(engine._vocab)
    params = params_of(engine, syntax, parallel=parallel)
    assert grammars.ready(params.grammar, 20)
    made = grammars.begin(params)
    grammars.close()
    assert isinstance(made, OnCall)
    return made


def say(engine: LlamaEngine, made: OnCall, text: str) -> None:
    made.accept(*engine._vocab.tokenize(text.encode(), add_special=False, parse_special=True))


def n_allowed(engine: LlamaEngine, made: OnCall | NoCalls) -> int:
    row = np.zeros(engine._vocab.n_tokens, np.float32)
    made.mask(row)
    return int(np.isfinite(row).sum())


def test_free_text_is_free_and_a_call_is_not(engine: LlamaEngine) -> None:
    made, n_tokens = begun(engine), engine._vocab.n_tokens
    for text in ("Hello", " <tool", "box> <think>", "<tool_", "call", "s>"):
        say(engine, made, text)
        assert (n_allowed(engine, made), made.forced()) == (n_tokens, [])
    for _ in range(2):
        say(engine, made, "<tool_call>")
        assert 0 < n_allowed(engine, made) < 20
        say(engine, made, f"\n{CALL}\n")
        assert not made.complete
        say(engine, made, "</tool_call>")
        assert (n_allowed(engine, made), made.complete, made.failed) == (n_tokens, False, False)
        say(engine, made, "\nAnd so on.")


def test_it_is_complete_where_only_one_call_may_come(engine: LlamaEngine) -> None:
    made = begun(engine, parallel=False)
    say(engine, made, f"Well. <tool_call>{CALL}</tool_call>")
    assert made.complete


def test_a_mark_in_the_middle_of_tokens_is_found(engine: LlamaEngine) -> None:
    """Byte by byte, and with text before and after it in the same tokens."""
    vocab = engine._vocab
    by_byte = {vocab.piece(token): token for token in range(vocab.n_tokens) if len(vocab.piece(token)) == 1}
    made = begun(engine)
    made.accept(*(by_byte[bytes([b])] for b in "é<tool_call>{".encode()))
    assert 0 < n_allowed(engine, made) < 100
    pieces = {-1: b"ab<tool", -2: b"_cal", -3: b"l>\n{"}
    made = begun(engine)
    fed: list[int] = []
    made._piece = lambda token: pieces[token]
    made._try = lambda: fed.extend(token for token, _ in made._recent)  # type: ignore[method-assign]
    made.accept(-2, -1, -2, -3)
    assert fed == [-1, -2, -3]


@text_only
def test_what_does_not_go_on_as_a_call_is_text(engine: LlamaEngine) -> None:
    vocab, made = engine._vocab, begun(engine)
    tokens = vocab.tokenize(b"<tool_call>nonsense", add_special=False, parse_special=True)
    made._recent = [(token, b"") for token in tokens]
    made._try()
    assert (made.failed, n_allowed(engine, made)) == (False, vocab.n_tokens)


@pytest.mark.parametrize(("before", "opening"), [("", '{"name":'), (" \n", '{ \n\t  "name"  :')])
def test_an_answer_may_be_a_bare_call(engine: LlamaEngine, before: str, opening: str) -> None:
    llama = SYNTAXES["llama 3"]
    made = begun(engine, llama)
    say(engine, made, before + opening)
    assert 0 < n_allowed(engine, made) < 20
    say(engine, made, ' "add", "parameters": {"a": 5}}')
    assert made.complete
    for text in ('{"city": "Oslo"}', 'I say {"name":', '["name":'):
        made = begun(engine, llama)
        say(engine, made, before + text)
        assert n_allowed(engine, made) == engine._vocab.n_tokens


@control_only
def test_a_python_tag_begins_a_call_anywhere(engine: LlamaEngine) -> None:
    made = begun(engine, SYNTAXES["llama 3"])
    say(engine, made, "Well. <|python_tag|>")
    assert 0 < n_allowed(engine, made) < 20
    say(engine, made, '{"name": "add", "parameters": {"a": 5}}')
    assert made.complete


def test_the_begin_of_a_call_can_be_ruled_out() -> None:
    row = np.zeros(5, np.float32)
    NoCalls(3).mask(row)
    assert row.tolist() == [0, 0, 0, -np.inf, 0]
    NoCalls(None).mask(row)
    no_calls = NoCalls(None)
    no_calls.accept(1)
    assert (no_calls.forced(), no_calls.complete, no_calls.failed) == ([], False, False)


def eager_to_call(engine: LlamaEngine, **given: Any) -> SamplingParams:
    begin = engine._vocab.marker("<tool_call>")
    assert begin is not None
    return params_of(engine, HERMES, logit_bias={begin: 12.0}, temperature=1.0, seed=3, ignore_eos=True, **given)


@control_only
def test_a_model_that_begins_calls_ends_them_well(engine: LlamaEngine) -> None:
    heard = run(engine, Submit("a", 1, [5, 6, 7], 3, eager_to_call(engine)))["a"]
    whole = heard.text.split("</tool_call>")[:-1]
    assert len(whole) > 1
    for call in whole:
        arguments = json.loads(call.split("<tool_call>")[1])["arguments"]
        assert list(arguments) == ["a"]
        assert isinstance(arguments["a"], int)


@control_only
def test_a_replay_goes_on_in_the_middle_of_a_call(engine: LlamaEngine) -> None:
    """Token for token, as numerics are exact; only what was not sent is said."""
    params = eager_to_call(engine, max_tokens=60)
    whole = run(engine, Submit("a", 1, [5, 6, 7], 3, params))["a"]
    for n_done in range(1, 60, 7):
        sent = "".join(engine._vocab.spelling(params.calls)(t).decode() for t in whole.tokens[:n_done])
        again = Submit("a", 2, [5, 6, 7, *whole.tokens[:n_done]], 3, params, sent_bytes=len(sent.encode()))
        rest = run(engine, again)["a"]
        assert rest.tokens == whole.tokens[n_done:]
        assert sent + rest.text == whole.text


@control_only
def test_a_call_that_cannot_be_followed_is_the_fault_of_the_tools(engine: LlamaEngine) -> None:
    params = eager_to_call(engine)
    broken = SamplingParams(max_tokens=5, grammar="nonsense", calls=params.calls)
    heard = run(engine, Submit("a", 1, [5], 1, broken))["a"]
    assert isinstance(heard.end, Finished)
    assert heard.end.error_field == "tools"
