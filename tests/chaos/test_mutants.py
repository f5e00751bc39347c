"""The same seed makes the same mutants, and each is another file than it was made of."""

from __future__ import annotations

import random
import struct
from typing import TYPE_CHECKING

import pytest

from inferd.tests.chaos.mutants import KINDS, known_ggufs, mutate, with_number
from inferd.tests.models.random_gguf import SHAPES, write_random_gguf

if TYPE_CHECKING:
    from pathlib import Path

DATA = bytes(range(256)) * 4


def test_the_same_seed_makes_the_same_mutants() -> None:
    first, second, other = ([mutate(random.Random(f"{seed} {i}"), DATA, 100) for i in range(50)] for seed in (1, 1, 2))
    assert first == second != other


@pytest.mark.parametrize("kind", KINDS)
def test_a_mutant_is_another_file(kind: str) -> None:
    changed = [KINDS[kind](random.Random(i), DATA, 100) != DATA for i in range(50)]
    assert sum(changed) >= 48  # what is moved may be moved to where it was


def test_known_crashers_differ_from_the_file_that_they_were_made_of(tmp_path: Path) -> None:
    data = write_random_gguf(tmp_path / "m.gguf", SHAPES["tiny"], "q8_0").read_bytes()
    found = known_ggufs(data)
    assert len(set(found.values()) - {data}) == len(found)
    damaged = with_number(data, "llama.block_count", 77)
    at = damaged.index(b"llama.block_count") + len(b"llama.block_count") + 4
    assert struct.unpack_from("<I", damaged, at) == (77,)
