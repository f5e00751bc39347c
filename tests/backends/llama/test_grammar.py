"""Answers that have the form they were asked to have, from a model that says anything."""

from __future__ import annotations

import json
import re
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from inferd.backends.engine import GrammarError
from inferd.backends.llama import grammar as grammar_room
from inferd.backends.llama.grammar import MAX_KEPT, Grammar, Grammars, translate
from inferd.backends.llama.loading import load_generator as load
from inferd.backends.messages import Finished, FinishReason

from .engines import Heard, hear, plan, run, submit

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from inferd.backends.llama.engine import LlamaEngine

pytestmark = pytest.mark.llama

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 8},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 3},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}
TREE = {
    "$defs": {
        "node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}, "additionalProperties": False}
    },
    "$ref": "#/$defs/node",
}


@pytest.fixture(scope="module")
def engine(tiny_model: Path) -> Iterator[LlamaEngine]:
    engine = load(plan(tiny_model, n_draft=15), lambda _: None)
    yield engine
    engine.close()


def asked(form: dict[str, Any] | str, job: str = "a", **params: Any) -> Any:
    grammar = translate("grammar", form) if isinstance(form, str) else translate("json_schema", json.dumps(form))
    given: dict[str, Any] = {"max_tokens": 400, "temperature": 1.0, "ignore_eos": False, **params}
    return submit(job, [1, 2, 3], grammar=grammar, **given)


def answered(engine: LlamaEngine, form: dict[str, Any] | str, **params: Any) -> str:
    heard = run(engine, asked(form, **params))["a"]
    assert isinstance(heard.end, Finished)
    assert (heard.end.reason, heard.end.error) == (FinishReason.STOP, "")
    return heard.text


@pytest.mark.parametrize("seed", range(5))
def test_json_of_a_schema(engine: LlamaEngine, seed: int) -> None:
    person = json.loads(answered(engine, PERSON, seed=seed))
    assert set(person) == {"name", "age", "tags"}
    assert len(person["name"]) <= 8
    assert 0 <= person["age"] <= 120
    assert set(person["tags"]) <= {"a", "b"}


@pytest.mark.parametrize("temperature", [0.0, 2.0])
def test_a_grammar(engine: LlamaEngine, temperature: float) -> None:
    text = answered(engine, 'root ::= "(" number ("," number){2} ")"\nnumber ::= [1-9] [0-9]?', temperature=temperature)
    assert re.fullmatch(r"\([1-9][0-9]?(,[1-9][0-9]?){2}\)", text)


def test_any_json_object_begins_and_ends_as_one(engine: LlamaEngine) -> None:
    grammar = translate("json_object", "")
    heard = run(engine, submit("a", [1, 2, 3], grammar=grammar, max_tokens=40, temperature=1.0, ignore_eos=False))["a"]
    assert heard.text.startswith("{")
    if isinstance(heard.end, Finished) and heard.end.reason is FinishReason.STOP:
        json.loads(heard.text)


def test_a_schema_may_refer_to_itself(engine: LlamaEngine) -> None:
    value = json.loads(answered(engine, TREE, seed=3))
    while value:
        assert set(value) == {"next"}
        value = value["next"]


def test_it_ends_where_nothing_more_may_come_even_if_more_is_wanted(engine: LlamaEngine) -> None:
    assert answered(engine, 'root ::= "yes" | "no"', ignore_eos=True, min_tokens=50) in ("yes", "no")


def test_what_must_come_is_computed_ahead(engine: LlamaEngine) -> None:
    engine._pace.flow_rows_ms = lambda n_rows: 1.0  # type: ignore[method-assign]
    heard = run(engine, asked({"const": "a rather long text that is given"}, temperature=0.0))["a"]
    assert json.loads(heard.text) == "a rather long text that is given"
    assert isinstance(heard.end, Finished)
    assert heard.end.draft_n_accepted > 0


def test_a_replay_goes_on_in_the_middle_of_its_form(engine: LlamaEngine) -> None:
    whole = run(engine, asked(PERSON, seed=1))["a"]
    for n_done in range(1, len(whole.tokens), 3):
        again = asked(PERSON, seed=1)
        again = type(again)("a", 1, [1, 2, 3, *whole.tokens[:n_done]], 3, again.params)
        rest = run(engine, again)["a"]
        text = whole.text if rest.tokens == whole.tokens[n_done:] else rest.text
        assert json.loads(text)["age"] >= 0


def test_others_are_answered_while_a_grammar_is_compiled(tiny_model: Path) -> None:
    engine = load(plan(tiny_model), lambda _: None)
    gate, real = threading.Event(), engine._grammars._compile

    def compile_late(grammar: str) -> Any:
        gate.wait(10)
        return real(grammar)

    engine._grammars._compile = compile_late  # type: ignore[method-assign]
    engine.submit(asked(PERSON, "formed"))
    engine.submit(submit("free", [4, 5, 6], max_tokens=3))
    heard: dict[str, Heard] = {}
    while "free" not in heard or heard["free"].kinds[-1] != "Finished":
        hear(engine, heard, n_steps=1)
    assert list(heard) == ["free"]
    gate.set()
    hear(engine, heard)
    json.loads(heard["formed"].text)
    engine.close()


@pytest.mark.parametrize("at", ["mask", "accept"])
def test_a_grammar_that_fails_in_the_middle_is_no_good_end(
    engine: LlamaEngine, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    n_calls = 0

    def failed(self: Grammar) -> bool:
        nonlocal n_calls
        n_calls += 1
        return n_calls > (11 if at == "mask" else 12)

    monkeypatch.setattr(Grammar, "failed", property(failed))
    heard = run(engine, asked(PERSON, seed=1))["a"]
    assert isinstance(heard.end, Finished)
    assert (heard.end.reason, heard.end.error_field) == (FinishReason.ERROR, "response_format")
    assert heard.end.error


def test_a_grammar_that_is_made_for_others_is_not_dropped_while_it_waits(tiny_model: Path) -> None:
    engine = load(plan(tiny_model, n_slots=40, kv_cells=4096), lambda _: None)
    asked_for = [asked(f'root ::= "{i}" "x"', f"j{i}", max_tokens=5) for i in range(MAX_KEPT + 8)]
    heard = run(engine, *asked_for)
    assert [heard[f"j{i}"].text for i in range(len(asked_for))] == [f"{i}x" for i in range(len(asked_for))]
    assert len(engine._grammars._made) <= MAX_KEPT + 8
    engine.close()


def test_large_grammars_are_kept_by_their_size(engine: LlamaEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    grammars = Grammars(engine._vocab)
    made = [translate("grammar", f'root ::= "{i}"') for i in range(6)]
    monkeypatch.setattr(grammar_room, "MAX_KEPT_CHARS", len(made[0]) * 3)
    for one in made:
        assert grammars.ready(one, 10)
    assert list(grammars._made) == made[-3:]
    grammars.close()


def test_a_library_that_panics_fails_the_request_alone(engine: LlamaEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    def panic(grammar: str) -> Any:
        raise BaseException("panic")

    monkeypatch.setattr(engine._grammars, "_compile", panic)
    heard = run(engine, submit("a", [1], grammar="unheard of"), submit("b", [2], max_tokens=2))
    assert isinstance(heard["a"].end, Finished)
    assert (heard["a"].end.reason, heard["a"].end.error_field) == (FinishReason.ERROR, "response_format")
    assert len(heard["b"].tokens) == 2


def test_a_grammar_that_the_worker_cannot_compile_is_an_error_of_its_request(engine: LlamaEngine) -> None:
    heard = run(engine, submit("a", [1], grammar="nonsense"))["a"]
    assert isinstance(heard.end, Finished)
    assert heard.end.reason is FinishReason.ERROR
    assert heard.end.error.startswith("the grammar: ")


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("grammar", 'root ::= "a'),
        ("grammar", "root ::= missing"),
        ("grammar", "root root root"),
        ("grammar", "root ::= [z-a]"),
        ("json_schema", '{"type": "nonsense"}'),
        ("json_schema", '{"$ref": "#/nowhere"}'),
        ("json_schema", '{"$ref": "https://example.com/schema"}'),
        ("json_schema", '{"enum": []}'),
        ("json_schema", '{"type": "string", "pattern": "("}'),
        ("json_schema", '{"not": {"type": "string"}}'),
    ],
)
def test_what_nothing_can_be_made_of_is_refused_in_one_line(kind: Any, text: str) -> None:
    start_s = time.perf_counter()
    with pytest.raises(GrammarError) as caught:
        translate(kind, text)
    assert 0 < len(str(caught.value)) <= 300
    assert "\n" not in str(caught.value)
    assert time.perf_counter() - start_s < 2
