from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import tokenizers

from inferd.backends.engine import GrammarError, LoadError
from inferd.backends.facts import LoadPlan
from inferd.backends.messages import ChatMessage
from inferd.backends.onnx.tokenizer import load, name_of, open_tokenizer, stream_pieces

if TYPE_CHECKING:
    from pathlib import Path


def tokenizer(path: Path) -> Any:
    return load(LoadPlan(backend="onnx", path=str(path), n_ctx=512, n_slots=1, kv_cells=512, n_threads=1))


@pytest.fixture(scope="module")
def encoder(onnx_models: Any) -> Any:
    return tokenizer(onnx_models["encoder"])


def test_nothing_is_cut_off_and_nothing_filled_up(encoder: Any) -> None:
    assert encoder.n_vocab == 200
    tokens = encoder.plain("the river " * 40, add_special=True, parse_special=True)
    assert (len(tokens), tokens[0], tokens[-1]) == (82, 2, 3)
    assert len(encoder.plain("river", add_special=False, parse_special=True)) == 1


def test_marks_in_a_text_are_marks_only_where_that_is_asked(encoder: Any) -> None:
    assert 3 in encoder.plain("a [SEP] b", add_special=False, parse_special=True)
    assert 3 not in encoder.plain("a [SEP] b", add_special=False, parse_special=False)


def test_pairs_tell_where_the_second_text_begins(encoder: Any) -> None:
    ((tokens, second),) = encoder.pairs("the river [SEP]", ["a letter"])
    assert tokens[0] == 2
    assert tokens[second - 1] == 3
    assert tokens.count(3) == 2


def test_half_a_pair_is_no_trouble(encoder: Any) -> None:
    assert encoder.plain("a \ud800 b", add_special=False, parse_special=True)


def test_chats_are_rendered_by_the_models_template(onnx_models: Any, encoder: Any) -> None:
    decoder = tokenizer(onnx_models["decoder"])
    chat = decoder.chat([ChatMessage("user", "the river")])
    assert chat == decoder.plain("user the river ", add_special=False, parse_special=True)
    assert encoder.chat([ChatMessage("user", "the river")]) is None


def test_forms_are_not_served_yet(encoder: Any) -> None:
    with pytest.raises(GrammarError) as caught:
        encoder.compile("json_object", "")
    assert caught.value.code == "unsupported"


def test_without_a_tokenizer_there_is_a_sentence(onnx_models: Any) -> None:
    with pytest.raises(LoadError, match=r"no tokenizer\.json"):
        tokenizer(onnx_models["affine"])


def test_pieces_are_held_back_until_they_are_text(onnx_models: Any) -> None:
    tokenizer = open_tokenizer(str(onnx_models["decoder"]))
    piece = stream_pieces(tokenizer)
    tokens = tokenizer.encode("the river is quiet", add_special_tokens=False).ids
    assert b"".join(piece(token) for token in tokens).decode() == "the river is quiet"


@pytest.mark.parametrize(
    "tokens", [[0x2C, 0x9F, 256, 257], [256, 0x2B, 0xF0, 0xFF, 257], [0x2B, 0xFF, 0xC3, 257, 0xC3, 257]]
)
def test_bytes_that_are_no_text_end_nothing(tokens: list[int]) -> None:
    words = {f"<0x{i:02X}>": i for i in range(256)} | {"▁a": 256, "b": 257, "<unk>": 258}
    model = tokenizers.models.BPE(vocab=words, merges=[], byte_fallback=True, unk_token="<unk>")
    tokenizer = tokenizers.Tokenizer(model)
    parts = tokenizers.decoders
    tokenizer.decoder = parts.Sequence([parts.Replace("▁", " "), parts.ByteFallback(), parts.Fuse()])
    piece = stream_pieces(tokenizer)
    said = b"".join(piece(token) for token in tokens).decode()
    assert "\ufffd" in said
    assert [c for c in said if c in "ab"] == [c for c in tokenizer.decode(tokens) if c in "ab"]


def test_tokens_know_their_place_in_the_text(encoder: Any) -> None:
    text = "the quiet river"
    tokens, offsets = encoder.placed(text)
    assert tokens == encoder.plain(text, add_special=True, parse_special=True)
    said = [text[start:end] for start, end in zip(offsets[::2], offsets[1::2], strict=True)]
    assert said == ["", "the", "quiet", "river", ""]


def test_a_token_by_itself_has_its_name(onnx_models: Any) -> None:
    tokenizer = open_tokenizer(str(onnx_models["decoder"]))
    assert [name_of(tokenizer)(token) for token in (2, tokenizer.token_to_id("river"))] == [b"[CLS]", b"river"]
