"""Tiny models with random weights, made once a session."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from inferd.tests.models.random_gguf import SHAPES, write_random_gguf

    return write_random_gguf(tmp_path_factory.mktemp("models") / "tiny.gguf", SHAPES["tiny"])


@pytest.fixture(scope="session")
def sliding_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from inferd.tests.models.random_gguf import SHAPES, write_random_gguf

    return write_random_gguf(tmp_path_factory.mktemp("models") / "sliding.gguf", SHAPES["tiny-gemma3"])
