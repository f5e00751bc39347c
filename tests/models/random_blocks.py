"""Large GGUF files in seconds: random blocks of Q4_K and Q6_K as they lie in the file, in llama.cpp's Q4_K_M mix.

Weights have the spread of `random_gguf`, but are drawn as blocks and never quantized. For speed and memory only.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType

from .random_gguf import EMBEDDING_SPREAD, _describe, _values, add_vocabulary, tensors

if TYPE_CHECKING:
    from pathlib import Path

    from .random_gguf import Shape

Array = np.ndarray[Any, Any]
BLOCK = 256  # values
Q4_K_BYTES, Q6_K_BYTES = 144, 210


def write_random_q4_k_m(path: Path, shape: Shape, name: str = "random") -> Path:
    """Write the file and return its path; every width must be a multiple of 256."""
    writer = gguf.GGUFWriter(path, shape.arch)
    _describe(writer, shape, name, gguf.LlamaFileType.MOSTLY_Q4_K_M)
    add_vocabulary(writer, shape)
    plan = [(tensor, dims, _kind(shape, tensor, dims)) for tensor, dims in tensors(shape)]
    for tensor, dims, kind in plan:
        if kind is GGMLQuantizationType.F32:
            writer.add_tensor_info(tensor, dims, np.dtype(np.float32), int(np.prod(dims)) * 4, raw_dtype=kind)
        else:
            stored = (dims[0], dims[1] // BLOCK * (Q4_K_BYTES if kind is GGMLQuantizationType.Q4_K else Q6_K_BYTES))
            writer.add_tensor_info(tensor, stored, np.dtype(np.uint8), int(np.prod(stored)), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for tensor, dims, kind in plan:
        writer.write_tensor_data(
            _values(shape, tensor, dims, kind) if kind is GGMLQuantizationType.F32 else _blocks(tensor, dims, kind)
        )
    writer.close()
    return path


def _kind(shape: Shape, tensor: str, dims: tuple[int, ...]) -> GGMLQuantizationType:
    """llama.cpp's choice: the output, and values and down projections of every other layer or so, get six bits."""
    if len(dims) == 1:
        return GGMLQuantizationType.F32
    if tensor == "output.weight" or (shape.tied and tensor == "token_embd.weight"):
        return GGMLQuantizationType.Q6_K
    if tensor.endswith(("attn_v.weight", "ffn_down.weight")):
        layer, n = int(tensor.split(".")[1]), shape.n_layer
        if layer < n // 8 or layer >= 7 * n // 8 or (layer - n // 8) % 3 == 2:
            return GGMLQuantizationType.Q6_K
    return GGMLQuantizationType.Q4_K


def _blocks(tensor: str, dims: tuple[int, ...], kind: GGMLQuantizationType) -> Array:
    spread = (EMBEDDING_SPREAD if tensor in ("token_embd.weight", "output.weight") else 1.0) / np.sqrt(dims[1])
    draw = np.random.default_rng(zlib.crc32(tensor.encode()))
    n_bytes = Q4_K_BYTES if kind is GGMLQuantizationType.Q4_K else Q6_K_BYTES
    blocks = np.frombuffer(draw.bytes(dims[0] * dims[1] // BLOCK * n_bytes), np.uint8).reshape(-1, n_bytes).copy()
    (_q4_k if kind is GGMLQuantizationType.Q4_K else _q6_k)(blocks, spread)
    return blocks.reshape(dims[0], -1)


def _q4_k(blocks: Array, spread: float) -> None:
    """w = d * 8 * q - dmin * 8 with q in 0..15, whose spread is 4.61."""
    d = spread / (8 * 4.61)
    blocks[:, :4] = np.array([d, 7.5 * d], np.float16).view(np.uint8)
    blocks[:, 4:12], blocks[:, 12:16] = 0x08, 0x88  # all eight scales and minima are 8


def _q6_k(blocks: Array, spread: float) -> None:
    """w = d * 16 * (q - 32) with q in 0..63, whose spread is 18.5."""
    blocks[:, 192:208] = 16
    blocks[:, 208:] = np.array([spread / (16 * 18.5)], np.float16).view(np.uint8)
