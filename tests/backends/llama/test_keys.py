"""Typed keys."""

from __future__ import annotations

import pytest

from inferd.backends.facts import CorruptModel
from inferd.backends.llama.header import ArrayLength
from inferd.backends.llama.keys import per_layer, whole


def test_whole() -> None:
    assert whole({"k": 5}, "k") == 5
    assert whole({}, "k", default=7) == 7
    for value in (True, 1.0, "1", (1,), ArrayLength(1)):
        with pytest.raises(CorruptModel, match="k must be a whole number"):
            whole({"k": value}, "k")
    with pytest.raises(CorruptModel, match="k is -1 but must be between 0 and 9"):
        whole({"k": -1}, "k", most=9)
    with pytest.raises(CorruptModel, match="k is missing"):
        whole({}, "k")


def test_per_layer() -> None:
    assert per_layer({"k": 3}, "k", 2) == (3, 3)
    assert per_layer({"k": (1, 2, 9)}, "k", 2) == (1, 2)
    assert per_layer({}, "k", 2, 8) == (8, 8)
    with pytest.raises(CorruptModel, match="k has 5,000 elements but the model has 600 layers"):
        per_layer({"k": ArrayLength(5000)}, "k", 600)
    with pytest.raises(CorruptModel, match="k must hold whole numbers"):
        per_layer({"k": (1, 0.5)}, "k", 2)
