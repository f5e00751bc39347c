from __future__ import annotations

from typing import TYPE_CHECKING

import gguf
import numpy as np
import pytest
from gguf.quants import dequantize

from inferd.backends import kinds

from .random_blocks import write_random_q4_k_m
from .random_gguf import Shape

if TYPE_CHECKING:
    from pathlib import Path

SHAPE = Shape("qwen2", 512, 256, 8, 4, 2, 512, 2048, tied=False)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_q4_k_m(tmp_path_factory.mktemp("blocks") / "m.gguf", SHAPE)


def test_the_file_is_read_as_q4_k_m(path: Path) -> None:
    facts = kinds.read_facts(path)
    assert facts.quantization == "Q4_K_M"
    assert facts.n_layers == 8


def test_weights_have_the_spread_that_they_were_given(path: Path) -> None:
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    for name in ("blk.3.attn_q.weight", "blk.0.ffn_down.weight"):
        values = dequantize(tensors[name].data, tensors[name].tensor_type)
        assert np.std(values) * np.sqrt(values.shape[1]) == pytest.approx(1.0, rel=0.05), name
        assert abs(np.mean(values)) < 0.05 * np.std(values), name
    types = {tensors[f"blk.{i}.ffn_down.weight"].tensor_type.name for i in range(8)}
    assert types == {"Q4_K", "Q6_K"}
