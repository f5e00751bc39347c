"""Tokens, their bytes and their roles."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import llama_cpp.llama_cpp as c
import pytest

from inferd.backends.llama.binding import Model
from inferd.backends.messages import CallSyntax
from inferd.tests.models.random_gguf import Shape, write_random_gguf

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.llama


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Iterator[Model]:
    model = Model(str(tiny_model), vocab_only=True)
    yield model
    model.close()


def test_the_vocabulary_goes_to_tokens_and_back(model: Model) -> None:
    tokens = model.vocab.tokenize("hé <|im_end|>".encode(), add_special=True, parse_special=True)
    assert b"".join(model.vocab.piece(token) for token in tokens) == "hé ".encode()
    assert tokens[-1] in model.vocab.eog
    assert model.vocab.text(tokens[-1]) == "<|im_end|>"


def test_special_tokens_can_be_plain_text(model: Model) -> None:
    tokens = model.vocab.tokenize(b"<|im_end|>", add_special=False, parse_special=False)
    assert b"".join(model.vocab.piece(token) for token in tokens) == b"<|im_end|>"


def test_no_text_is_no_tokens(model: Model) -> None:
    assert model.vocab.tokenize(b"", add_special=True, parse_special=True) == []


def test_a_missing_token_has_no_text(model: Model) -> None:
    assert model.vocab.text(None) == ""


def test_two_threads_may_ask_for_the_same_pieces(tiny_model: Path) -> None:
    for _ in range(5):
        model = Model(str(tiny_model), vocab_only=True)
        expected = [Model(str(tiny_model), vocab_only=True).vocab.piece(token) for token in range(512)]
        with ThreadPoolExecutor(2) as threads:
            both = [threads.submit(lambda vocab: [*map(vocab.piece, range(512))], model.vocab) for _ in range(2)]
        assert [one.result() for one in both] == [expected, expected]
        model.close()


def test_markers_are_no_text(model: Model) -> None:
    assert {model.vocab.text(token) for token in model.vocab.markers} == {"<|endoftext|>", "<|im_start|>", "<|im_end|>"}


def test_a_marker_is_one_token_that_is_no_text(model: Model) -> None:
    end = model.vocab.marker("<|im_end|>")
    assert end is not None
    assert model.vocab.text(end) == "<|im_end|>"
    for text in ("<|im_end|>x", "a", "<tool_call>", ""):
        assert model.vocab.marker(text) is None


def test_markers_of_calls_are_spelled_in_answers_with_tools(model: Model) -> None:
    vocab = model.vocab
    start, end = vocab.marker("<|im_start|>"), vocab.marker("<|im_end|>")
    assert start is not None
    assert end is not None
    piece = vocab.spelling(CallSyntax(begin="<|im_start|>", end="no marker"))
    assert (piece(start), piece(end), piece(65)) == (b"<|im_start|>", b"", vocab.piece(65))
    assert vocab.spelling(None)(start) == b""


def test_a_vocabulary_is_that_of_another_file_with_the_same_words(model: Model, tmp_path: Path) -> None:
    other = Model(str(write_random_gguf(tmp_path / "m.gguf", Shape(n_layer=1, seed=9))), vocab_only=True)
    assert model.vocab.difference(other.vocab) == other.vocab.difference(model.vocab) == ""
    other.close()


@pytest.mark.parametrize(
    ("n_vocab", "difference"),
    [(600, "token 509 is 'Ġ', not '<|endoftext|>'"), (700, "it has 700 tokens, not 512")],
)
def test_what_is_not_the_same_is_named(model: Model, tmp_path: Path, n_vocab: int, difference: str) -> None:
    other = Model(str(write_random_gguf(tmp_path / "m.gguf", Shape(n_layer=1, n_vocab=n_vocab))), vocab_only=True)
    said = model.vocab.difference(other.vocab)
    assert said.split("'")[0] == difference.split("'")[0]
    assert said.endswith(difference[-10:])
    assert other.vocab.difference(model.vocab)
    other.close()


@pytest.mark.parametrize(
    ("function", "difference"),
    [
        ("llama_vocab_type", "another kind"),
        ("llama_vocab_get_add_bos", "only one of them adds BOS"),
        ("llama_vocab_get_add_eos", "only one of them adds EOS"),
    ],
)
def test_kinds_and_ends_count(
    model: Model, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, function: str, difference: str
) -> None:
    other = Model(str(tiny_model), vocab_only=True)
    real = getattr(c, function)
    monkeypatch.setattr(c, function, lambda vocab: not real(vocab) if vocab == other.vocab._vocab else real(vocab))
    assert difference in model.vocab.difference(other.vocab)
    other.close()
