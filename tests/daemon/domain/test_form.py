"""Forms are refused by their size, their nesting and their rules before any parser sees them."""

from __future__ import annotations

import contextlib
import json
import re
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.daemon.domain.errors import Code, InferdError
from inferd.daemon.domain.form import MAX_FORM_BYTES, MAX_NESTING, MAX_RULES, Form, _too_deep, check_form, check_json

if TYPE_CHECKING:
    from collections.abc import Callable


def refused(form: Form) -> InferdError:
    with pytest.raises(InferdError) as caught:
        check_form(form)
    assert (caught.value.code, caught.value.field) == (Code.INVALID, f"response_format.{form.kind}")
    return caught.value


def nested(depth: int) -> str:
    return "root ::= " + "(" * depth + '"a"' + ")" * depth


def test_what_is_within_the_limits_passes_as_it_is() -> None:
    rules = "\n".join(f'r{i} ::= "{i}"' for i in range(MAX_RULES - 1))
    for form in (
        Form("json_object"),
        Form("json_schema", '{"type": "object"}'),
        Form("grammar", nested(MAX_NESTING)),
        Form("grammar", f'root ::= "x"\n{rules}'),
    ):
        assert check_form(form) is form


def test_each_limit_is_named_with_its_figure() -> None:
    assert refused(Form("grammar", " " * (MAX_FORM_BYTES + 1))).details["highest"] == MAX_FORM_BYTES
    assert refused(Form("grammar", nested(MAX_NESTING + 1))).details["highest"] == MAX_NESTING
    rules = "\n".join(f'r{i} ::= "{i}"' for i in range(MAX_RULES + 1))
    assert refused(Form("grammar", rules)).details["highest"] == MAX_RULES
    assert refused(Form("json_schema", '{"a":' * 129 + "1" + "}" * 129)).details["highest"] == MAX_NESTING
    assert refused(Form("json_schema", json.dumps({"enum": list(range(100_000))}))).details["highest"] == MAX_FORM_BYTES


@pytest.mark.parametrize("text", ["{", "[]", "1", "", "nonsense"])
def test_a_schema_is_a_json_object(text: str) -> None:
    assert "json_schema" in refused(Form("json_schema", text)).message


def test_a_grammar_needs_a_root() -> None:
    assert "root" in refused(Form("grammar", 'start ::= "a"')).message


def test_brackets_in_strings_classes_and_comments_are_not_nesting() -> None:
    many = "(" * 300
    check_form(Form("grammar", f'root ::= "{many}" [{many}] # {many}'))
    check_form(Form("json_schema", json.dumps({"const": "[{" * 300 + chr(92) + chr(34) + "{" * 300})))


@pytest.mark.parametrize(
    "text", ["(" * 60_000, "[" * 60_000, chr(34) * 60_000, chr(92) * 60_000, "root ::= " + "(#\n" * 20_000]
)
def test_hostile_text_is_judged_in_no_time(text: str) -> None:
    def seconds(form: Form) -> float:
        start_s = time.perf_counter()
        refused(form)
        return time.perf_counter() - start_s

    for form in (Form("grammar", text), Form("json_schema", text)):
        assert min(seconds(form) for _ in range(3)) < 0.02  # a busy machine may have stopped one of them


@pytest.mark.parametrize("text", ["[]" * 32_000, "}" + "[]" * 32_000, "{" * 32_000 + "}" * 32_000, "(((())))" * 8_000])
def test_brackets_are_counted_faster_than_one_by_one(text: str) -> None:
    def seconds(count: Callable[[str], object]) -> float:
        start_s = time.perf_counter()
        count(text)
        return time.perf_counter() - start_s

    assert min(seconds(_too_deep) for _ in range(5)) < min(seconds(too_deep) for _ in range(5))


def too_deep(text: str) -> bool:
    """The rule, bracket by bracket."""
    depth = 0
    deepest = 0
    for bracket in re.finditer(r"[()\[\]{}]", text):
        depth = depth + 1 if bracket[0] in "([{" else max(0, depth - 1)
        deepest = max(deepest, depth)
    return deepest > MAX_NESTING


@given(st.lists(st.tuples(st.sampled_from("([{)]}aé"), st.integers(1, MAX_NESTING)), max_size=12))
def test_what_closes_nothing_does_not_count(runs: list[tuple[str, int]]) -> None:
    text = "".join(char * n for char, n in runs)
    assert _too_deep(text) == too_deep(text)


@given(st.text(max_size=200))
def test_any_text_is_taken_or_refused(text: str) -> None:
    for form in (Form("grammar", text), Form("json_schema", text)):
        with contextlib.suppress(InferdError):
            check_form(form)


def test_json_of_any_field_has_the_same_limits() -> None:
    assert check_json('{"a": [1]}', "x") == {"a": [1]}
    for text in ("{", "[]", '{"a": NaN}', '{"a":' * 129 + "1" + "}" * 129, " " * (MAX_FORM_BYTES + 1)):
        with pytest.raises(InferdError) as caught:
            check_json(text, "tools[3].parameters")
        assert (caught.value.code, caught.value.field) == (Code.INVALID, "tools[3].parameters")
