"""With the library, where it is installed; it is optional, and its ONNX Runtime replaces the usual one's files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from inferd.backends.engine import LoadError
from inferd.backends.onnx.decoder import Decoder
from inferd.backends.onnx.refusal import InputRefused
from inferd.backends.onnx.session import Session
from inferd.tests.models.random_onnx import Size, decoder, write_genai_config

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("onnxruntime_genai")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = decoder(tmp_path / "m", Size())
    write_genai_config(made.parent, Size())
    return made


def test_its_logits_are_those_of_the_graph(path: Path) -> None:
    from inferd.backends.onnx.genai import GenaiDecoder

    ours: Any = Decoder(Session(str(path), [("CPUExecutionProvider", {})], 1), counts=False, n_vocab=0)
    theirs: Any = GenaiDecoder(str(path), 512, 1)
    assert (theirs.n_vocab, theirs.alone, theirs.device) == (200, True, "CPU")
    one, other = ours.begin(), theirs.begin()
    for piece in ([5, 6, 7, 8], [9], [10]):
        other.trim()
        np.testing.assert_allclose(theirs.compute(other, [piece]), ours.compute(one, [piece]), atol=1e-4)


def test_tokens_that_do_not_exist_are_refused(path: Path) -> None:
    from inferd.backends.onnx.genai import GenaiDecoder

    made: Any = GenaiDecoder(str(path), 512, 1)
    with pytest.raises(InputRefused) as caught:
        made.compute(made.begin(), [[5000]])
    assert "/" not in str(caught.value)


def test_a_model_that_is_none_is_refused(path: Path) -> None:
    from inferd.backends.onnx.genai import GenaiDecoder

    path.write_bytes(b"something else")
    with pytest.raises(LoadError):
        GenaiDecoder(str(path), 512, 1)


def test_an_engine_writes_with_it(path: Path, plan_of: Any) -> None:
    from inferd.backends.messages import Delta, SamplingParams, Submit
    from inferd.backends.onnx.loading import load

    engine: Any = load(plan_of(path), lambda _: None, None)
    engine.submit(Submit("a", 1, [5, 6, 7], 3, SamplingParams(max_tokens=5, temperature=0.0, ignore_eos=True)))
    events = []
    while engine.busy():
        events += engine.step()
    assert sum(len(event.tokens) for event in events if isinstance(event, Delta)) == 5
