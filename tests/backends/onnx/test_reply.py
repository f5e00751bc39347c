from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from inferd.backends.messages import Delta, Finished, FinishReason, SamplingParams, Stopped, Submit
from inferd.backends.onnx.reply import Reply
from inferd.backends.sampling import Sampler


def reply(tokens: list[int], n_prompt: int, sent_bytes: int = 0, **params: Any) -> Reply:
    sampling = SamplingParams(**({"max_tokens": 5, "temperature": 0.0} | params))
    submit = Submit("j", 1, tokens, n_prompt, sampling, sent_bytes=sent_bytes)
    return Reply(submit, Sampler(sampling, (9,), (), 10), lambda token: b"%d" % token, lambda token: b"<%d>" % token)


def row(best: int) -> Any:
    logits = np.zeros(10, np.float32)
    logits[best] = 5.0
    return logits


def test_tokens_become_text() -> None:
    one = reply([1, 2], 2)
    events: list[Any] = []
    assert one.left == [1, 2]
    assert one.draw(row(7), (9,), 100, events) is None
    assert events == [Delta("j", 1, 0, [7], "7", None)]
    assert one.draw(row(9), (9,), 100, events) == (FinishReason.STOP, "")
    assert one.tokens == [1, 2, 7]


@pytest.mark.parametrize(
    ("params", "n_ctx", "end"),
    [
        ({"max_tokens": 1}, 100, FinishReason.LENGTH),
        ({}, 3, FinishReason.LENGTH),
        ({"stop": ("7",)}, 100, FinishReason.STOP),
    ],
)
def test_an_answer_ends(params: Any, n_ctx: int, end: FinishReason) -> None:
    assert reply([1, 2], 2, **params).draw(row(7), (), n_ctx, []) == (end, "")


def test_a_replay_says_only_what_was_not_sent() -> None:
    one = reply([1, 2, 7, 8], 2, sent_bytes=1)
    events: list[Any] = []
    one.draw(row(3), (), 100, events)
    assert events[0].text == "83"
    assert events[0].index == 2


def test_numbers_that_are_none_are_an_error() -> None:
    reason, error = reply([1], 1).draw(np.full(10, np.nan, np.float32), (), 100, []) or (None, "")
    assert reason is FinishReason.ERROR
    assert "invalid numbers" in error


def test_ends_are_told_with_their_counts() -> None:
    one = reply([1, 2], 2)
    events: list[Any] = []
    one.draw(row(7), (), 100, events)
    one.n_computed = 2
    one.finish(FinishReason.LENGTH, "", events)
    end = events[-1]
    assert isinstance(end, Finished)
    assert (end.completion_tokens, end.n_computed) == (1, 2)
    one.stop(events, parked=True)
    assert events[-1] == Stopped("j", 1, 1, True, 2)
