"""Prompts of a GGUF model, against a vocabulary that adds a BOS or does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from inferd.backends.engine import LoadError
from inferd.backends.llama.binding import Model
from inferd.backends.llama.tokenizer import LlamaTokenizer, load
from inferd.backends.llama.vocab import Vocab
from inferd.backends.messages import ChatMessage

from .engines import plan

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.llama
HI = [ChatMessage("user", "hi")]


@pytest.fixture
def model(tiny_model: Path) -> Model:
    return Model(str(tiny_model), vocab_only=True)


def test_chat_is_the_rendered_template_with_its_markers_as_tokens(model: Model) -> None:
    tokens = LlamaTokenizer(model).chat(HI)
    assert tokens is not None
    text = "".join(model.vocab.text(token) for token in tokens)
    assert text == "<|im_start|>userĊhi<|im_end|>Ċ<|im_start|>assistantĊ"


@pytest.mark.parametrize("template", ["{{ bos_token }}hi", "hi"])
def test_a_bos_comes_once_if_the_model_wants_one(model: Model, monkeypatch: pytest.MonkeyPatch, template: str) -> None:
    monkeypatch.setattr(Vocab, "add_bos", True)
    monkeypatch.setattr(model, "chat_template", lambda: template)
    tokens = LlamaTokenizer(model).chat(HI)
    assert tokens is not None
    assert tokens.count(model.vocab.bos or -1) == 1
    assert tokens[0] == model.vocab.bos


def test_without_a_template_there_is_no_chat(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "chat_template", lambda: None)
    assert LlamaTokenizer(model).chat(HI) is None


def test_a_file_that_is_none_cannot_be_loaded(tmp_path: Path) -> None:
    with pytest.raises(LoadError) as error:
        load(plan(tmp_path / "none.gguf"))
    assert error.value.code == "corrupt"
