"""Which model guesses for another one, as the config names it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from inferd.daemon.domain.config import Config, ModelOptions, Models
from inferd.daemon.domain.errors import Code, InferdError
from inferd.daemon.node.beside import draft_of
from inferd.daemon.system.catalog import Entry
from inferd.tests.daemon.node.test_plans import FACTS, config

if TYPE_CHECKING:
    from inferd.backends.facts import ModelFacts


def entry(name: str, facts: ModelFacts | None = FACTS, error: str | None = None) -> Entry:
    return Entry(name, facts, error, file_bytes=1, mtime_ns=1)


SMALL = msgspec.structs.replace(FACTS, path="/small.gguf")
ENTRIES = {"m": entry("m"), "small": entry("small", SMALL), "bad": entry("bad", None, "no tensors")}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (ModelOptions(), None),
        (ModelOptions(draft_model="small"), SMALL),
        (ModelOptions(draft_model="small", spec_type="draft-simple"), SMALL),
        (ModelOptions(draft_model="small", spec_type="ngram-simple"), None),
        (ModelOptions(draft_model="small", spec_type="none"), None),
    ],
)
def test_the_config_names_the_model_that_guesses(options: ModelOptions, expected: ModelFacts | None) -> None:
    assert draft_of("m", config(m=options), ENTRIES) == expected
    assert draft_of("other", config(m=options), ENTRIES) is None


@pytest.mark.parametrize("spec_type", [None, "draft-simple"])
def test_the_one_that_guesses_for_all_does_not_guess_for_itself(spec_type: Any) -> None:
    defaults = ModelOptions(draft_model="small", spec_type=spec_type)
    every = Config(models=Models(defaults=defaults))
    assert draft_of("m", every, ENTRIES) == SMALL
    assert draft_of("small", every, ENTRIES) is None


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (ModelOptions(draft_model="none"), Code.MODEL_FAILED, "m: draft_model: there is no model 'none'"),
        (ModelOptions(draft_model="bad"), Code.MODEL_CORRUPT, "m: draft_model bad: no tensors"),
        (ModelOptions(spec_type="draft-simple"), Code.MODEL_FAILED, "m: spec_type = .* needs a draft_model"),
    ],
)
def test_one_that_is_not_there_is_named_with_the_option(options: ModelOptions, code: Code, message: str) -> None:
    with pytest.raises(InferdError, match=message) as caught:
        draft_of("m", config(m=options), ENTRIES)
    assert caught.value.code is code
