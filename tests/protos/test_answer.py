"""The state of an answer, moved by events."""

from __future__ import annotations

from typing import Any

import pytest

from inferd.protos import inferd_pb2 as pb
from inferd.protos.answer import Answer, Logprob, ToolCall, ToolCallDelta, Usage
from inferd.protos.errors import InferdError


@pytest.fixture
def answer() -> Answer:
    return Answer(pb.GenerateRequest(model="alias", request_id="mine"))


def test_before_anything_came(answer: Answer) -> None:
    assert (answer.model, answer.request_id) == ("alias", "mine")
    assert (answer.finish_reason, answer.usage, answer.timings, answer.text_so_far()) == (None, None, None, "")
    with pytest.raises(InferdError, match="without saying why"):
        answer.check_complete()


def test_started_names_what_it_runs_on(answer: Answer, steps: Any) -> None:
    assert answer.take(steps.queued(2)) is None
    assert (answer.queued, answer.waits_for, answer.request_id) == (2, "slot", "r1")
    assert answer.take(steps.started(cached=3)) is None
    assert (answer.queued, answer.waits_for) == (None, None)
    assert (answer.model, answer.device, answer.seed) == ("demo", "cpu", 7)
    assert (answer.prompt_tokens, answer.cached_tokens) == (5, 3)


def test_a_delta_without_text_still_has_its_tokens(answer: Answer, steps: Any) -> None:
    delta = answer.take(steps.delta("", 4))
    assert delta is not None
    assert (delta.text, delta.tokens, delta.index, delta.logprobs) == ("", [14], 4, [])
    assert answer.text_so_far() == ""


def test_logprobs_come_with_their_alternatives(answer: Answer) -> None:
    top = pb.Logprob(token=2, logprob=-2, text="b")
    wire = pb.Delta(tokens=[1], logprobs=[pb.Logprob(token=1, logprob=-1, text="a", top=[top])])
    delta = answer.take(pb.GenerateResponse(delta=wire))
    assert delta is not None
    assert delta.logprobs == [Logprob(1, -1, "a", [Logprob(2, -2, "b")])]


@pytest.mark.parametrize(
    ("wire", "word"),
    [(pb.STOP, "stop"), (pb.LENGTH, "length"), (pb.CANCELLED, "cancelled"), (pb.TOOL_CALLS, "tool_calls")],
)
def test_finish_reasons(answer: Answer, steps: Any, wire: Any, word: Any) -> None:
    answer.take(steps.finished(3, wire))
    assert answer.finish_reason == word
    assert answer.usage == Usage(5, 2, 3)
    answer.check_complete()


def test_calls_are_put_together_by_choice_and_index(answer: Answer, steps: Any) -> None:
    def piece(index: int, choice: int = 0, **fields: str) -> list[ToolCallDelta]:
        wire = pb.Delta(choice=choice, tool_calls=[pb.ToolCallDelta(index=index, **fields)])
        delta = answer.take(pb.GenerateResponse(delta=wire))
        assert delta is not None
        return delta.tool_calls

    assert answer.tool_calls == []
    assert answer.message() == {"role": "assistant", "content": ""}
    assert piece(0, id="a", name="f", arguments="{") == [ToolCallDelta(0, "a", "f", "{")]
    piece(0, choice=1, id="x", name="g", arguments="{}")
    piece(0, arguments="}")
    piece(1, id="b", name="g")
    assert answer.tool_calls == [ToolCall("a", "f", "{}"), ToolCall("b", "g", "")]
    assert answer.tool_calls_so_far(1) == [ToolCall("x", "g", "{}")]
    answer.take(steps.finished(3, pb.TOOL_CALLS))
    answer.take(steps.finished(3, pb.LENGTH, 1))
    assert answer.message()["tool_calls"] == answer.tool_calls
    assert "tool_calls" not in answer.message(1), "the choice was cut off, maybe in a call"


@pytest.mark.parametrize("ending", [None, pb.LENGTH, pb.CANCELLED, pb.STOP])
def test_half_a_call_is_no_part_of_the_message(answer: Answer, steps: Any, ending: Any) -> None:
    half = pb.ToolCallDelta(index=0, id="a", name="f", arguments="{")
    answer.take(pb.GenerateResponse(delta=pb.Delta(text="so", tool_calls=[half])))
    if ending is not None:
        answer.take(steps.finished(3, ending))
    assert answer.message() == {"role": "assistant", "content": "so"}
    assert answer.tool_calls == [ToolCall("a", "f", "{")]


def test_an_event_of_a_later_daemon_is_passed_over(answer: Answer) -> None:
    assert answer.take(pb.GenerateResponse()) is None
