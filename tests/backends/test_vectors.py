"""Vectors as they are told: cut, then brought to a length of 1."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.backends.vectors import finish

ROWS = np.array([[3.0, 4.0, 12.0], [0.0, 0.0, 0.0]], np.float32)


def told(rows: np.ndarray, *, normalize: bool = True, dimensions: int = 0) -> np.ndarray:
    data = finish(rows, normalize=normalize, dimensions=dimensions)
    return np.frombuffer(data, np.float32).reshape(len(rows), -1)


def test_a_vector_is_cut_first_and_then_normalized() -> None:
    assert told(ROWS, dimensions=2).tolist() == [[np.float32(0.6), np.float32(0.8)], [0.0, 0.0]]
    assert told(ROWS, dimensions=2, normalize=False).tolist() == [[3.0, 4.0], [0.0, 0.0]]
    assert told(ROWS)[0] == pytest.approx([3 / 13, 4 / 13, 12 / 13])


@given(
    st.lists(st.integers(-1000, 1000), min_size=1, max_size=8), st.integers(0, 8), st.sampled_from([1e-20, 1.0, 1e15])
)
def test_whatever_is_not_zero_gets_a_length_of_one(values: list[int], dimensions: int, scale: float) -> None:
    rows = np.array([values], np.float32) * np.float32(scale)
    (vector,) = told(rows, dimensions=min(dimensions, len(values)))
    expected = 1.0 if any(values[: len(vector)]) else 0.0
    assert np.linalg.norm(vector.astype(np.float64)) == pytest.approx(expected, abs=1e-6)
