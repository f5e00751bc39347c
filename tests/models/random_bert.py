"""Small GGUF encoders with random weights: BERT with a WordPiece vocabulary, pooled, or with a head that ranks."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from string import ascii_lowercase
from typing import TYPE_CHECKING, Any

import gguf
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MARKS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = ("the", "small", "river", "green", "house", "child", "morning", "letter", "garden", "window")
START = "\N{LOWER ONE EIGHTH BLOCK}"  # of a word, as GGUF writes it; WordPiece marks the other pieces instead

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Encoder:
    pooling: str = "mean"  # or cls, or rank
    n_embd: int = 64
    n_layer: int = 2
    n_head: int = 4
    n_ff: int = 128
    n_ctx_train: int = 512
    n_labels: int = 1  # of the head
    n_spare: int = 0  # more tokens, for a vocabulary of some size
    seed: int = 1


def vocabulary(shape: Encoder) -> list[str]:
    """Marks, letters at the start of a word and inside one, some words, and what is to fill it up."""
    words = (*ascii_lowercase, *WORDS)
    return [
        *MARKS,
        *(START + word for word in words),
        *ascii_lowercase,
        *(f"{START}w{i}w" for i in range(shape.n_spare)),
    ]


def tensors(shape: Encoder) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes in row order (outputs, inputs)."""
    width = shape.n_embd
    yield "token_embd.weight", (len(vocabulary(shape)), width)
    yield "token_types.weight", (2, width)
    yield "position_embd.weight", (shape.n_ctx_train, width)
    parts: list[tuple[str, tuple[int, ...]]] = [("token_embd_norm", (width,))]
    for i in range(shape.n_layer):
        at = f"blk.{i}."
        parts += [(f"{at}attn_{letter}", (width, width)) for letter in "qkv"]
        parts += [(f"{at}attn_output", (width, width)), (f"{at}attn_output_norm", (width,))]
        parts += [(f"{at}ffn_up", (shape.n_ff, width)), (f"{at}ffn_down", (width, shape.n_ff))]
        parts += [(f"{at}layer_output_norm", (width,))]
    if shape.pooling == "rank":
        parts += [("cls", (width, width)), ("cls.output", (shape.n_labels, width))]
    for name, dims in parts:
        yield f"{name}.weight", dims
        yield f"{name}.bias", dims[:1]


def values(shape: Encoder, name: str, dims: tuple[int, ...]) -> Array:
    """The same for the same seed and name. Attention is made sharp, so that it matters who looks at whom."""
    draw = np.random.default_rng([shape.seed, zlib.crc32(name.encode())])
    drawn = draw.standard_normal(dims, dtype=np.float32)
    if len(dims) == 1:
        return np.float32(name.endswith("norm.weight")) + np.float32(0.1) * drawn
    scale = 4.0 if name.endswith(("attn_q.weight", "attn_k.weight")) else 1.0
    return np.float32(scale / np.sqrt(dims[1])) * drawn


def write_random_bert(path: Path, shape: Encoder) -> Path:
    """Write the file in 32-bit floats and return its path."""
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_name("random encoder")
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_context_length(shape.n_ctx_train)
    writer.add_embedding_length(shape.n_embd)
    writer.add_block_count(shape.n_layer)
    writer.add_feed_forward_length(shape.n_ff)
    writer.add_head_count(shape.n_head)
    writer.add_layer_norm_eps(1e-12)
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType[shape.pooling.upper()])
    if shape.pooling == "rank" and shape.n_labels > 1:
        writer.add_classifier_output_labels([f"label {i}" for i in range(shape.n_labels)])
    tokens = vocabulary(shape)
    normal, control = gguf.TokenType.NORMAL, gguf.TokenType.CONTROL
    writer.add_tokenizer_model("bert")
    writer.add_token_list(tokens)
    writer.add_token_types([control] * len(MARKS) + [normal] * (len(tokens) - len(MARKS)))
    writer.add_token_type_count(2)
    pad, unk, cls, sep, mask = range(len(MARKS))
    writer.add_pad_token_id(pad)
    writer.add_unk_token_id(unk)
    writer.add_bos_token_id(cls)
    writer.add_sep_token_id(sep)
    writer.add_mask_token_id(mask)
    for name, dims in tensors(shape):
        writer.add_tensor(name, values(shape, name, dims))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
