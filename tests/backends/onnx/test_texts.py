from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from inferd.backends.onnx.session import Port
from inferd.backends.onnx.texts import Texts

IDS, MASK, KINDS, PLACES = (
    Port(name, "INT64", ("b", "s")) for name in ("input_ids", "attention_mask", "token_type_ids", "position_ids")
)
HIDDEN = Port("last_hidden_state", "FP32", ("b", "s", 3))
LOGITS = Port("logits", "FP32", ("b", 3))


def texts(
    task: Any = "embed", pooling: Any = "mean", inputs: Any = (IDS, MASK, KINDS, PLACES), outputs: Any = (HIDDEN,)
) -> Any:
    return Texts(task, pooling, inputs, outputs, pad=9)


def test_texts_are_filled_up_to_the_longest() -> None:
    feeds = texts().feeds([[1, 2, 3, 4], [5, 6]], [2, 0])
    assert feeds["input_ids"].tolist() == [[1, 2, 3, 4], [5, 6, 9, 9]]
    assert feeds["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert feeds["token_type_ids"].tolist() == [[0, 0, 1, 1], [0, 0, 0, 0]]
    assert feeds["position_ids"].tolist() == [[0, 1, 2, 3], [0, 1, 2, 3]]


def test_only_what_the_graph_takes_is_made_in_its_type() -> None:
    feeds = texts(inputs=(Port("input_ids", "INT32", ("b", "s")),)).feeds([[1]], [0])
    assert {name: array.dtype for name, array in feeds.items()} == {"input_ids": np.dtype(np.int32)}
    assert not texts(inputs=(IDS,)).pads


@pytest.mark.parametrize(("pooling", "expected"), [("mean", [2.0, 10.0]), ("cls", [1.0, 10.0]), ("last", [3.0, 10.0])])
def test_pooling_sees_only_the_texts_own_tokens(pooling: str, expected: list[float]) -> None:
    hidden = np.zeros((2, 3, 3), np.float32)
    hidden[0] = [[1] * 3, [2] * 3, [3] * 3]
    hidden[1] = [[10] * 3, [77] * 3, [77] * 3]
    assert texts(pooling=pooling).vectors(hidden, [3, 1])[:, 0].tolist() == expected


def test_what_is_pooled_already_is_taken_as_it_is() -> None:
    pooled = Port("sentence_embedding", "FP32", ("b", 3))
    made = texts(outputs=(HIDDEN, pooled))
    assert made.output == "sentence_embedding"
    assert made.vectors(np.ones((2, 3), np.float16), [1, 1]).dtype == np.float32


def values(data: bytes) -> Any:
    return np.frombuffer(data, np.float32).tolist()


def test_vectors_are_cut_and_brought_to_length_as_the_order_says() -> None:
    vector = np.array([3, 4, 12], np.float32)
    assert values(texts().finish(vector, normalize=True, dimensions=2)) == pytest.approx([0.6, 0.8])
    assert values(texts().finish(vector, normalize=False, dimensions=0)) == [3, 4, 12]


def test_scores_and_logits_are_left_as_they_are() -> None:
    vector = np.array([3, 4, 12], np.float32)
    assert values(texts("rank", "rank", outputs=(LOGITS,)).finish(vector, normalize=True, dimensions=0)) == [3]
    assert values(texts("classify", "rank", outputs=(LOGITS,)).finish(vector, normalize=True, dimensions=0)) == [
        3,
        4,
        12,
    ]


def test_of_tokens_each_has_its_own_row() -> None:
    tagger = texts("tag", "rank", outputs=(Port("logits", "FP32", ("b", "s", 2)),))
    first, second = tagger.vectors(np.arange(12, dtype=np.float32).reshape(2, 3, 2), [3, 1])
    assert values(tagger.finish(first, normalize=True, dimensions=1)) == [0, 1, 2, 3, 4, 5]
    assert values(tagger.finish(second, normalize=True, dimensions=1)) == [6, 7]
