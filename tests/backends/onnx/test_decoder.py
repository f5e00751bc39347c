from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from inferd.backends.onnx.decoder import Decoder
from inferd.backends.onnx.refusal import InputRefused
from inferd.backends.onnx.session import Session


@pytest.fixture
def decoder(onnx_models: Any) -> Decoder:
    return Decoder(Session(str(onnx_models["decoder"]), [("CPUExecutionProvider", {})], 1), counts=False, n_vocab=0)


def test_a_text_in_pieces_is_the_text_at_once(decoder: Decoder) -> None:
    tokens = list(range(5, 25))
    whole, pieces = decoder.begin(), decoder.begin()
    expected = decoder.compute(whole, [tokens])
    for start in range(0, 20, 7):
        logits = decoder.compute(pieces, [tokens[start : start + 7]])
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    assert (pieces.lengths, pieces.n_positions) == ([20], 20)
    assert (decoder.n_vocab, expected.shape) == (200, (1, 200))


def test_rows_do_not_see_each_other(decoder: Decoder) -> None:
    one, other = decoder.begin(), decoder.begin()
    decoder.compute(one, [[5, 6, 7, 8]])
    decoder.compute(other, [[9]])
    alone = decoder.begin()
    decoder.compute(alone, [[9]])
    one.join(other)
    together = decoder.compute(one, [[10], [11]])
    np.testing.assert_allclose(together[1], decoder.compute(alone, [[11]])[0], atol=1e-4)


def test_tokens_that_do_not_exist_are_refused(decoder: Decoder) -> None:
    with pytest.raises(InputRefused):
        decoder.compute(decoder.begin(), [[10_000]])
