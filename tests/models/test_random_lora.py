"""The random adapters: the header says what they are, and every matrix has its pair."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gguf import GGUFReader

from inferd.tests.models.random_gguf import SHAPES
from inferd.tests.models.random_lora import TARGETS, write_random_lora

if TYPE_CHECKING:
    from pathlib import Path


def test_matrices_come_in_pairs(tmp_path: Path) -> None:
    shape = SHAPES["tiny"]
    reader = GGUFReader(write_random_lora(tmp_path / "a.gguf", shape, rank=8))
    assert reader.get_field("general.type").contents() == "adapter"
    assert reader.get_field("adapter.type").contents() == "lora"
    assert reader.get_field("adapter.lora.alpha").contents() == 8.0
    written = {tensor.name: tuple(int(n) for n in tensor.shape) for tensor in reader.tensors}
    assert len(written) == 2 * len(TARGETS) * shape.n_layer
    assert written["blk.0.ffn_down.weight.lora_a"] == (shape.n_ff, 8)
    assert written["blk.0.ffn_down.weight.lora_b"] == (8, shape.n_embd)
