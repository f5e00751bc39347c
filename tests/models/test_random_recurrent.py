"""The random models that keep a state: what their headers say of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inferd.backends.llama.gguf import read_facts
from inferd.tests.models.random_recurrent import KV_HEADS, SHAPE, write_random_lfm2, write_random_mamba

if TYPE_CHECKING:
    from pathlib import Path


def test_all_layers_keep_a_state(tmp_path: Path) -> None:
    facts = read_facts(str(write_random_mamba(tmp_path / "m.gguf")))
    assert (facts.architecture, facts.recurrent, facts.n_vocab) == ("mamba", True, SHAPE.n_vocab)
    assert not any(facts.memory.k)
    assert facts.memory.state_bytes > 0


def test_some_layers_keep_cells(tmp_path: Path) -> None:
    facts = read_facts(str(write_random_lfm2(tmp_path / "m.gguf")))
    assert (facts.architecture, facts.recurrent) == ("lfm2", True)
    assert [bool(n) for n in facts.memory.k] == [bool(n) for n in KV_HEADS]
    assert facts.memory.state_bytes > 0
