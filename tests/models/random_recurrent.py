"""Small GGUF models that keep a state and no cells, or both, with random weights in 32-bit floats."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

import gguf
import numpy as np

from inferd.tests.models.random_gguf import EMBEDDING_SPREAD, LOGIT_SPREAD, Shape, add_vocabulary

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SHAPE = Shape(n_layer=4)
N_CONV, N_STATE, N_STEP = 4, 16, 8  # of mamba: the convolution's width, the state's, the rank of the time step
N_SHORT = 3  # of lfm2's convolution
KV_HEADS = (0, 2, 0, 2)  # of lfm2's layers; 0: one that keeps a state
STEP = -3.0  # the time step's bias: half of a state is forgotten in some fifteen tokens

Array = np.ndarray[Any, Any]


def write_random_mamba(path: Path) -> Path:
    """All layers keep a state."""
    writer = gguf.GGUFWriter(path, "mamba")
    _describe(writer)
    writer.add_feed_forward_length(0)
    writer.add_head_count(0)
    writer.add_ssm_conv_kernel(N_CONV)
    writer.add_ssm_inner_size(2 * SHAPE.n_embd)
    writer.add_ssm_state_size(N_STATE)
    writer.add_ssm_time_step_rank(N_STEP)
    return _write(writer, path, _mamba())


def write_random_lfm2(path: Path) -> Path:
    """Every other layer keeps a state, the others have cells."""
    writer = gguf.GGUFWriter(path, "lfm2")
    _describe(writer)
    writer.add_feed_forward_length(SHAPE.n_ff)
    writer.add_head_count(SHAPE.n_head)
    writer.add_head_count_kv(list(KV_HEADS))
    writer.add_rope_freq_base(SHAPE.rope_base)
    writer.add_shortconv_l_cache(N_SHORT)
    return _write(writer, path, _lfm2())


def _mamba() -> Iterator[tuple[str, tuple[int, ...]]]:
    width, inner = SHAPE.n_embd, 2 * SHAPE.n_embd
    yield "token_embd.weight", (SHAPE.n_vocab, width)
    for i in range(SHAPE.n_layer):
        at = f"blk.{i}."
        yield at + "attn_norm.weight", (width,)
        yield at + "ssm_in.weight", (2 * inner, width)
        yield at + "ssm_conv1d.weight", (inner, N_CONV)
        yield at + "ssm_conv1d.bias", (inner,)
        yield at + "ssm_x.weight", (N_STEP + 2 * N_STATE, inner)
        yield at + "ssm_dt.weight", (inner, N_STEP)
        yield at + "ssm_dt.bias", (inner,)
        yield at + "ssm_a", (inner, N_STATE)
        yield at + "ssm_d", (inner,)
        yield at + "ssm_out.weight", (width, inner)
    yield "output_norm.weight", (width,)


def _lfm2() -> Iterator[tuple[str, tuple[int, ...]]]:
    width, ff, head = SHAPE.n_embd, SHAPE.n_ff, SHAPE.n_head_dim
    yield "token_embd.weight", (SHAPE.n_vocab, width)
    for i, n_heads in enumerate(KV_HEADS):
        at = f"blk.{i}."
        yield at + "attn_norm.weight", (width,)
        yield at + "ffn_norm.weight", (width,)
        yield at + "ffn_gate.weight", (ff, width)
        yield at + "ffn_up.weight", (ff, width)
        yield at + "ffn_down.weight", (width, ff)
        if n_heads:
            yield at + "attn_q.weight", (width, width)
            yield at + "attn_k.weight", (n_heads * head, width)
            yield at + "attn_v.weight", (n_heads * head, width)
            yield at + "attn_output.weight", (width, width)
            yield at + "attn_q_norm.weight", (head,)
            yield at + "attn_k_norm.weight", (head,)
        else:
            yield at + "shortconv.conv.weight", (width, N_SHORT)
            yield at + "shortconv.in_proj.weight", (3 * width, width)
            yield at + "shortconv.out_proj.weight", (width, width)
    yield "token_embd_norm.weight", (width,)  # of the output, by an old mistake that every file repeats


def _describe(writer: gguf.GGUFWriter) -> None:
    writer.add_name("random recurrent")
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_vocab_size(SHAPE.n_vocab)
    writer.add_context_length(SHAPE.n_ctx_train)
    writer.add_embedding_length(SHAPE.n_embd)
    writer.add_block_count(SHAPE.n_layer)
    writer.add_layer_norm_rms_eps(1e-6)
    add_vocabulary(writer, SHAPE)


def _write(writer: gguf.GGUFWriter, path: Path, tensors: Iterator[tuple[str, tuple[int, ...]]]) -> Path:
    for name, dims in tensors:
        writer.add_tensor(name, _values(name, dims))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _values(name: str, dims: tuple[int, ...]) -> Array:
    draw = np.random.default_rng([SHAPE.seed, zlib.crc32(name.encode())])
    if name.endswith("ssm_a"):  # how fast each part of a state is forgotten
        return np.broadcast_to(-np.arange(1, dims[1] + 1, dtype=np.float32), dims).copy()
    drawn = draw.standard_normal(dims, dtype=np.float32)
    if len(dims) == 1:
        last = name in ("output_norm.weight", "token_embd_norm.weight")
        middle = LOGIT_SPREAD / EMBEDDING_SPREAD if last else float(name.endswith(("norm.weight", "ssm_d")))
        return np.float32(STEP if name.endswith("ssm_dt.bias") else middle) + np.float32(0.1) * drawn
    spread = EMBEDDING_SPREAD if name == "token_embd.weight" else 1.0
    return np.float32(spread / np.sqrt(dims[1])) * drawn
