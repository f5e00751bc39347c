"""Models with random weights, made once a session, and engines over them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from inferd.backends.facts import Batching, LoadPlan
from inferd.tests.models import random_onnx as models

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SIZE = models.Size()


@pytest.fixture(scope="session")
def onnx_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By kind: affine, echo, rows, encoder, int8, moods, ranker, decoder."""
    folder = tmp_path_factory.mktemp("onnx")
    encoder = models.encoder(folder / "encoder", SIZE)
    return {
        "affine": models.affine(folder / "affine.onnx"),
        "echo": models.echo(folder / "echo.onnx"),
        "rows": models.over_rows(folder / "rows.onnx"),
        "encoder": encoder,
        "int8": models.quantized(encoder, folder / "encoder" / "onnx" / "model_int8.onnx"),
        "moods": models.classifier(folder / "moods", ["calm", "glad", "sad"], SIZE),
        "ranker": models.classifier(folder / "ranker", ["LABEL_0"], SIZE),
        "decoder": models.decoder(folder / "decoder", SIZE),
    }


@pytest.fixture
def plan_of() -> Callable[..., LoadPlan]:
    """A plan as the daemon makes it from the facts of the file."""
    from inferd.backends.onnx.header import read_facts

    def make(path: Path, **changes: Any) -> LoadPlan:
        facts = read_facts(str(path))
        rows = 8 if facts.batched and facts.task != "generate" else 0
        usual: dict[str, Any] = {
            "backend": "onnx",
            "path": str(path),
            "n_ctx": 512,
            "n_slots": 16,
            "kv_cells": 2048,
            "n_threads": 1,
            "pooling": facts.pooling,
            "task": facts.task,
            "batching": Batching(rows),
        }
        return LoadPlan(**(usual | changes))

    return make
