"""Messages come out of a frame as they went in, and nothing else is taken for one."""

from __future__ import annotations

import contextlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.backends import messages as m
from inferd.backends.facts import LoadPlan

PLAN = LoadPlan(
    backend="fake", path="/m.gguf", n_ctx=256, n_slots=2, kv_cells=512, n_threads=1, devices=("gpu0",), n_gpu_layers=-1
)
PARAMS = m.SamplingParams(
    max_tokens=5, logit_bias={7: -1.5}, stop=("a", "§"), logprobs=0, seed=2**64 - 1, calls=m.CallSyntax(begin="<")
)
TOOL = m.Tool("f", "does", "{}")
TO_WORKER: list[m.ToWorker] = [
    m.Load(PLAN),
    m.Submit("job", 2, [1, 2, 3], 2, PARAMS, rank=1, sent_bytes=4),
    m.Embed("job", 2, [[1, 2], [3]], normalize=False, dimensions=4, rank=1, known_tokens=7),
    m.Cancel("job", 2),
    m.Cores(1),
    m.Stop(),
    m.Prepare("7", messages=[m.ChatMessage("user", "hi")]),
    m.Prepare("7", prompt="", add_special=False, parse_special=False),
    m.Prepare("7", [m.ChatMessage("tool", "x", (m.ToolCall("i", "f", "{}"),), "i", "f")], tools=(TOOL,)),
    m.CompileTools("7", m.ToolUse((TOOL,), "required", "f", parallel=False)),
    m.PrepareInputs("7", ["a", "§"], query="q"),
]
FROM_WORKER: list[m.FromWorker] = [
    m.Loading(0.5),
    m.Ready(256, 2, 512, 300, "CPU", 1.5, {"CPU model": 10}),
    m.LoadFailed("corrupt", "not a model"),
    m.WorkerStats(1, 0, 10, 20, 30, 40, 0.5, 60),
    m.Prepared("7", [1, 2]),
    m.Compiled("7", "grammar", m.CallSyntax(begin="<", once=True, grammar="no_calls")),
    m.PreparedInputs("7", [[1], []]),
    m.PrepareFailed("7", "limit", "too long"),
    m.Step([]),
    m.Step(
        [
            m.Started("job", 1, 3, 2),
            m.Delta("job", 1, 0, [5], "", [m.TokenLogprob(5, -0.5, "x", [(5, -0.5, "x"), (6, -1.0, "y")])]),
            m.Embedded("job", 1, 2, b"\x00\xff" * 8),
            m.Finished("job", 1, m.FinishReason.STOP, "tail", 1, 0.5, 0.25),
            m.Stopped("job", 1, 1, parked=True),
        ]
    ),
]


@pytest.mark.parametrize("message", TO_WORKER, ids=lambda message: type(message).__name__)
def test_a_message_for_a_worker_survives_the_wall(message: m.ToWorker) -> None:
    assert m.decode_to_worker(m.encode(message)) == message


@pytest.mark.parametrize("message", FROM_WORKER, ids=lambda message: type(message).__name__)
def test_a_message_from_a_worker_survives_the_wall(message: m.FromWorker) -> None:
    assert m.decode_from_worker(m.encode(message)) == message


@pytest.mark.parametrize("message", FROM_WORKER, ids=lambda message: type(message).__name__)
def test_no_message_is_taken_in_the_wrong_direction(message: m.FromWorker) -> None:
    with pytest.raises(msgspec.DecodeError):
        m.decode_to_worker(m.encode(message))


@given(st.binary())
def test_bytes_that_are_no_message_raise_decode_errors_only(noise: bytes) -> None:
    with pytest.raises((msgspec.DecodeError, UnicodeDecodeError)):
        m.decode_from_worker(b"\x92\xa5noise" + noise)
    with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
        m.decode_to_worker(noise)


@given(st.lists(st.integers(0, 2**31 - 1)), st.integers(0, 2**64 - 1), st.text())
def test_any_tokens_seed_and_text_survive(tokens: list[int], seed: int, text: str) -> None:
    submit = m.Submit(text, 1, tokens, len(tokens), m.SamplingParams(max_tokens=1, seed=seed, stop=(text,)))
    assert m.decode_to_worker(m.encode(submit)) == submit
