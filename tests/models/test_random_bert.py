"""The random encoders: the header says what was asked, and llama.cpp reads texts with their vocabulary."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from gguf import GGUFReader

from inferd.tests.models.random_bert import MARKS, Encoder, tensors, vocabulary, write_random_bert

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(("pooling", "number"), [("mean", 1), ("cls", 2), ("rank", 4)])
def test_the_header_says_what_was_asked(tmp_path: Path, pooling: str, number: int) -> None:
    reader = GGUFReader(write_random_bert(tmp_path / "m.gguf", Encoder(pooling)))
    assert reader.get_field("bert.pooling_type").contents() == number
    assert reader.get_field("bert.attention.causal").contents() is False
    written = {tensor.name: tuple(int(n) for n in tensor.shape[::-1]) for tensor in reader.tensors}
    assert written == dict(tensors(Encoder(pooling)))
    assert ("cls.output.weight" in written) == (pooling == "rank")


def test_words_begin_where_the_vocabulary_says(tmp_path: Path) -> None:
    from inferd.backends.llama.binding import Model

    shape = Encoder(n_spare=3)
    model = Model(str(write_random_bert(tmp_path / "m.gguf", shape)), vocab_only=True)
    tokens = model.vocab.tokenize(b"the riverb", add_special=True, parse_special=True)
    assert [vocabulary(shape)[token].strip("\N{LOWER ONE EIGHTH BLOCK}") for token in tokens] == [
        "[CLS]", "the", "river", "b", "[SEP]",
    ]  # fmt: skip
    assert vocabulary(shape)[: len(MARKS)] == list(MARKS)
    assert len(vocabulary(shape)) == len(vocabulary(Encoder())) + 3
