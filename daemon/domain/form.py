"""The form that an answer is to have, and the limits that are checked before any parser sees it."""

from __future__ import annotations

import json
import re
from array import array
from dataclasses import dataclass
from itertools import accumulate
from operator import sub
from typing import TYPE_CHECKING, Any, NoReturn

from .errors import Code, InferdError

if TYPE_CHECKING:
    from ...backends.messages import FormatKind

FIELD = "response_format"
MAX_FORM_BYTES, MAX_NESTING, MAX_RULES = 64 * 1024, 128, 2000

# What is left open goes to the end of the text: a second try from the next character would make this quadratic.
_STRING, _CLASS, _COMMENT = r'"(?:\\.|[^"\\])*+"?', r"\[(?:\\.|[^\]\\])*+\]?", r"#[^\n]*"
_NOT_CODE = {
    "json_object": re.compile(_STRING, re.DOTALL),
    "json_schema": re.compile(_STRING, re.DOTALL),
    "grammar": re.compile(f"{_STRING}|{_CLASS}|{_COMMENT}", re.DOTALL),
}
_STEPS = bytes.maketrans(b"([{)]}", b"\x01\x01\x01\xff\xff\xff")  # one level up or down, as signed bytes
_NO_BRACKETS = bytes(set(range(256)) - set(b"()[]{}"))


@dataclass(frozen=True, slots=True)
class Form:
    """`text`: a JSON schema or a grammar in GBNF; of any JSON object, nothing."""

    kind: FormatKind
    text: str = ""


def check_form(form: Form) -> Form:
    """Size, nesting and rules within their limits, and a schema that is JSON. Raises INVALID."""
    field = f"{FIELD}.{form.kind}"
    if form.kind == "json_schema":
        check_json(form.text, field)
        return form
    bare = _bare(form.kind, form.text, field)
    if form.kind == "grammar" and (n_rules := bare.count("::=")) > MAX_RULES:
        raise _invalid(field, f"takes at most {MAX_RULES} rules, not {n_rules}", MAX_RULES)
    if form.kind == "grammar" and "root" not in bare:
        raise _invalid(field, "needs a rule named root")
    return form


def check_json(text: str, field: str) -> dict[str, Any]:
    """The JSON object of a field, parsed only when it is within the limits. Raises INVALID."""
    _bare("json_schema", text, field)
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except ValueError as error:
        raise _invalid(field, f"is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise _invalid(field, "must be a JSON object")
    return value


def _bare(kind: FormatKind, text: str, field: str) -> str:
    """Without strings and comments, once size and nesting are within their limits."""
    n_bytes = len(text.encode())
    if n_bytes > MAX_FORM_BYTES:
        raise _invalid(field, f"takes at most {MAX_FORM_BYTES} bytes, not {n_bytes}", MAX_FORM_BYTES)
    bare = _NOT_CODE[kind].sub("", text)
    if _too_deep(bare):
        raise _invalid(field, f"takes at most {MAX_NESTING} levels of nesting", MAX_NESTING)
    return bare


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON value")


def _too_deep(text: str) -> bool:
    """Without a Python step for each bracket: a text may be nothing but brackets."""
    levels = list(accumulate(array("b", text.encode().translate(_STEPS, _NO_BRACKETS)), initial=0))
    deepest: int = max(levels)
    if min(levels) < 0:  # what closes nothing does not count
        deepest = max(map(sub, levels, accumulate(levels, min)))
    return deepest > MAX_NESTING


def _invalid(field: str, why: str, highest: int | None = None) -> InferdError:
    limit = {} if highest is None else {"highest": highest}
    return InferdError(Code.INVALID, f"{field} {why}", field=field, **limit)
