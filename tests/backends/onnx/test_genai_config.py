from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from inferd.backends.facts import CorruptModel
from inferd.backends.onnx import genai_config
from inferd.backends.onnx.header import read_facts
from inferd.tests.models.random_onnx import Size, decoder, write_genai_config

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(genai_config, "LIBRARY", "json")  # one that is surely here
    made = decoder(tmp_path / "m", Size())
    write_genai_config(made.parent, Size())
    return made


def change(path: Path, **values: Any) -> None:
    config = json.loads((path.parent / "genai_config.json").read_text())
    config["model"]["decoder"] |= values
    (path.parent / "genai_config.json").write_text(json.dumps(config))


def test_a_folder_is_for_the_library_where_both_are_here(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert genai_config.applies(str(path))
    monkeypatch.setattr(genai_config, "LIBRARY", "no_such_library")
    assert not genai_config.applies(str(path))


def test_the_model_is_what_its_configuration_says(path: Path) -> None:
    (path.parent / "config.json").unlink()
    facts = read_facts(str(path))
    assert (facts.task, facts.n_layers, facts.n_heads, facts.n_vocab, facts.n_ctx_train) == ("generate", 2, 4, 200, 512)


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"filename": "../other.onnx"}, "another file"),
        ({"pipeline": [{"embedding": {"filename": "../other.onnx"}}]}, "outside of its folder"),
        ({"session_options": {"custom_ops_library": "evil.so"}}, "custom operators"),
    ],
)
def test_what_reaches_out_of_the_folder_is_refused(path: Path, values: Any, why: str) -> None:
    change(path, **values)
    with pytest.raises(CorruptModel, match=why):
        read_facts(str(path))


def test_a_configuration_without_a_decoder_is_refused(path: Path) -> None:
    (path.parent / "genai_config.json").write_text("{}")
    with pytest.raises(CorruptModel, match="no decoder"):
        read_facts(str(path))
