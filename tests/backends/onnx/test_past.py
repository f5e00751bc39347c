from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from inferd.backends.onnx import past as room
from inferd.backends.onnx.past import Past

if TYPE_CHECKING:
    import pytest


class Value:
    def __init__(self, array: Any) -> None:
        self.array = array

    def numpy(self) -> Any:
        return self.array

    def shape(self) -> list[int]:
        return list(self.array.shape)


class Session:
    def hold(self, array: Any) -> Value:
        return Value(array)


def past(*rows: list[int], lengths: list[int] | None = None) -> Past:
    """One head, one value; two layers that differ in sign."""
    array = np.array(rows, np.float32)[:, None, :, None]
    return Past(Session(), [Value(array), Value(-array)], lengths or [len(row) for row in rows])  # type: ignore[arg-type]


def shown(of: Past) -> list[list[float]]:
    first, second = (value.numpy()[:, 0, :, 0] for value in of.values)
    np.testing.assert_array_equal(first, -second)
    return [list(map(float, row)) for row in first]


def test_the_shorter_stand_flush_right() -> None:
    ours = past([1, 2, 3])
    ours.join(past([9]))
    assert (shown(ours), ours.lengths) == ([[1, 2, 3], [0, 0, 9]], [3, 1])
    ours.join(past([4, 5, 6, 7]))
    assert shown(ours) == [[0, 1, 2, 3], [0, 0, 0, 9], [4, 5, 6, 7]]


def test_the_mask_knows_what_counts() -> None:
    ours = past([1, 2, 3])
    ours.join(past([9]))
    assert ours.mask(1).tolist() == [[1, 1, 1, 1], [0, 0, 1, 1]]


def test_what_leaves_takes_the_empty_columns_along() -> None:
    ours = past([1, 2, 3])
    ours.join(past([8, 9]))
    ours.join(past([7]))
    ours.keep([1, 2])
    assert (shown(ours), ours.lengths) == ([[8, 9], [0, 7]], [2, 1])


def test_columns_without_use_go_when_they_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "SLACK", 2)
    ours = past([0, 1, 2], lengths=[2])
    ours.trim()
    assert ours.n_positions == 3
    ours = past([0, 0, 1], lengths=[1])
    ours.trim()
    assert shown(ours) == [[1]]


def test_a_call_makes_every_row_longer() -> None:
    ours = past([1, 2], [3, 4])
    ours.grown(past([1, 2, 5], [3, 4, 6]).values, 1)
    assert (ours.lengths, ours.n_positions) == ([3, 3], 3)


def test_what_would_be_masked_for_the_most_part_does_not_join() -> None:
    long = past([1] * 90)
    assert long.suits(past([1] * 30))
    assert not long.suits(past([1] * 29))
    assert past([1] * 30, [1] * 30).suits(past([1] * 60))
