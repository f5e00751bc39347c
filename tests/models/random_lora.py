"""LoRA adapters with random matrices for the random models, as converters write them."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import gguf
import numpy as np

from inferd.tests.models.random_gguf import tensors

if TYPE_CHECKING:
    from pathlib import Path

    from inferd.tests.models.random_gguf import Shape

TARGETS = ("attn_q.weight", "attn_v.weight", "ffn_down.weight")


def write_random_lora(path: Path, shape: Shape, *, rank: int = 4, seed: int = 1, strength: float = 1.0) -> Path:
    """Write an adapter that changes `TARGETS` of every layer, in 32-bit floats; returns the path."""
    writer = gguf.GGUFWriter(path, shape.arch)
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", float(rank))
    for name, dims in tensors(shape):
        if name.endswith(TARGETS):
            draw = np.random.default_rng([seed, zlib.crc32(name.encode())])
            n_out, n_in = dims
            scale = np.float32((strength / n_in) ** 0.5)
            writer.add_tensor(f"{name}.lora_a", draw.standard_normal((rank, n_in), dtype=np.float32) * scale)
            writer.add_tensor(f"{name}.lora_b", draw.standard_normal((n_out, rank), dtype=np.float32) * scale)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
