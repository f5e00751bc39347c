"""The one place that knows protobuf and words: ranges, defaults, every event, every failure."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from inferd.backends.messages import FinishReason, SamplingParams, TokenLogprob
from inferd.daemon.api import wire
from inferd.daemon.domain.errors import Code, InferdError
from inferd.daemon.domain.form import Form
from inferd.daemon.domain.model import Model, ModelState
from inferd.daemon.domain.request import RANGES, Priority
from inferd.daemon.node import stream as words
from inferd.daemon.system.catalog import Entry
from inferd.protos import inferd_pb2 as pb

from .examples import FACTS, PLAN

if TYPE_CHECKING:
    from inferd.daemon.domain.request import Request


def one(**given: Any) -> Request:
    (request,) = wire.to_requests(pb.GenerateRequest(**{"model": "m", "prompt": "hi"} | given), "t")
    return request


def refused(message: pb.GenerateRequest) -> InferdError:
    with pytest.raises(InferdError) as caught:
        wire.to_requests(message, "t")
    return caught.value


# requests


def test_an_empty_sampling_keeps_every_default_but_the_seed() -> None:
    request = one()
    assert request.params == SamplingParams(max_tokens=0, seed=request.params.seed)
    assert (request.model, request.prompt, request.tenant) == ("m", "hi", "t")
    assert request.priority is Priority.INTERACTIVE
    assert (request.max_tokens, request.deadline_ms, request.choice) == (None, None, 0)


def test_zero_is_kept_where_it_means_something() -> None:
    sampling = pb.Sampling(temperature=0, top_k=0, min_p=0, seed=0, logprobs=0, ignore_eos=False, min_tokens=0)
    params = one(sampling=sampling).params
    assert params == make_params(temperature=0.0, top_k=0, min_p=0.0, seed=0, logprobs=0)


def make_params(**changes: Any) -> SamplingParams:
    return SamplingParams(**{"max_tokens": 0} | changes)


def test_every_sampling_field_arrives() -> None:
    given = {"temperature": 0.5, "top_p": 0.25, "top_k": 7, "min_p": 0.125, "repeat_penalty": 1.5}
    given |= {"presence_penalty": -1.5, "frequency_penalty": 1.25, "seed": 2**64 - 1, "logprobs": 3}
    given |= {"ignore_eos": True, "min_tokens": 4}
    sampling = pb.Sampling(**given, logit_bias={3: -100, 4: 0.5})  # type: ignore[arg-type]
    expected = make_params(**given, logit_bias={3: -100.0, 4: 0.5}, stop=("a", "b"))
    assert one(sampling=sampling, stop=["a", "b"]).params == expected
    known = {field.name for field in pb.Sampling.DESCRIPTOR.fields} - {"n", "logit_bias"}
    assert known == set(given)


def test_an_unset_seed_is_drawn() -> None:
    assert len({one().params.seed for _ in range(8)}) == 8


def test_the_other_fields_arrive() -> None:
    request = one(
        max_tokens=5,
        deadline_ms=6,
        priority=pb.BATCH,
        session_id="s",
        run_id="r",
        supersede_key="k",
        lora="a",
        request_id="id-1",
    )
    assert (request.max_tokens, request.deadline_ms, request.priority) == (5, 6, Priority.BATCH)
    assert (request.session_id, request.run_id, request.supersede_key, request.id) == ("s", "r", "k", "id-1")
    assert request.lora == "a"


def test_ids_are_drawn_when_missing() -> None:
    assert one().id != one().id


@pytest.mark.parametrize(
    ("message", "input_"),
    [
        (pb.GenerateRequest(model="m", prompt="p"), ("p", None, None)),
        (pb.GenerateRequest(model="m", tokens=pb.Tokens(ids=[3, 1])), (None, None, [3, 1])),
    ],
)
def test_input_is_one_of_three(message: pb.GenerateRequest, input_: Any) -> None:
    (request,) = wire.to_requests(message, "t")
    assert (request.prompt, request.messages, request.tokens) == input_


@pytest.mark.parametrize("role", wire.ROLES)
def test_messages_keep_their_roles(role: str) -> None:
    chat = pb.Messages(messages=[pb.Message(role=role, content="c")])
    (request,) = wire.to_requests(pb.GenerateRequest(model="m", messages=chat), "t")
    assert request.messages is not None
    assert [(m.role, m.content) for m in request.messages] == [(role, "c")]


def test_several_completions_differ_in_id_seed_and_choice() -> None:
    first, *others = wire.to_requests(
        pb.GenerateRequest(model="m", prompt="p", request_id="r", sampling=pb.Sampling(n=8, seed=2**64 - 2)), "t"
    )
    assert (first.id, first.choice, first.params.seed) == ("r", 0, 2**64 - 2)
    every = [first, *others]
    assert [request.choice for request in every] == list(range(8))
    assert len({request.id for request in every}) == len({request.params.seed for request in every}) == 8
    assert all(0 <= request.params.seed < 2**64 for request in every)
    assert all(replace(request, id="r", parent_id="", choice=0, params=first.params) == first for request in others)


def sampled(**given: Any) -> pb.GenerateRequest:
    return pb.GenerateRequest(model="m", prompt="p", sampling=pb.Sampling(**given))


def outside(name: str) -> list[float]:
    """Values that the field can hold and must not have."""
    lowest, highest, is_open = RANGES[name]
    kind = pb.Sampling.DESCRIPTOR.fields_by_name[name].cpp_type
    if kind == pb.Sampling.DESCRIPTOR.fields_by_name["top_k"].cpp_type:
        return [value for value in (0, 2**31, 2**32 - 1) if not lowest <= value <= highest]
    return [math.nan, math.inf, -math.inf, lowest if is_open else lowest - 0.01, highest + 0.01, 3e38]


RANGED = sorted(RANGES.keys() - {"max_tokens", "deadline_ms"})


@pytest.mark.parametrize(("name", "value"), [(name, value) for name in RANGED for value in outside(name)])
def test_sampling_out_of_range(name: str, value: float) -> None:
    error = refused(sampled(**{name: value}))
    assert (error.code, error.field) == (Code.INVALID, name)
    assert {"lowest", "highest"} <= error.details.keys()


@pytest.mark.parametrize("name", RANGED)
def test_the_ends_of_each_range_are_taken(name: str) -> None:
    lowest, highest, is_open = RANGES[name]
    whole = isinstance(lowest, int)
    for value in (highest, 1e-38 if is_open else lowest):
        assert wire.to_requests(sampled(**{name: int(value) if whole else value}), "t")


CHAT = pb.Message(role="user", content="c")
LONG = "x" * 257
BAD: list[tuple[dict[str, Any], str]] = [
    ({"model": ""}, "model"),
    ({"prompt": ""}, "prompt"),
    ({"prompt": None}, "prompt"),
    ({"prompt": None, "messages": pb.Messages()}, "messages"),
    ({"prompt": None, "messages": pb.Messages(messages=[CHAT] * 1025)}, "messages"),
    ({"prompt": None, "messages": pb.Messages(messages=[CHAT, pb.Message(role="admin")])}, "messages[1].role"),
    ({"prompt": None, "messages": pb.Messages(messages=[pb.Message(content="c")])}, "messages[0].role"),
    ({"prompt": None, "tokens": pb.Tokens()}, "tokens"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": 2**31}, "max_tokens"),
    ({"deadline_ms": 0}, "deadline_ms"),
    ({"priority": 77}, "priority"),
    ({"stop": ["a"] * 17}, "stop"),
    ({"stop": ["a", ""]}, "stop[1]"),
    ({"stop": [LONG]}, "stop[0]"),
    ({"request_id": "x" * 129}, "request_id"),
    ({"request_id": "new\nline"}, "request_id"),
    ({"request_id": "é"}, "request_id"),
    ({"sampling": pb.Sampling(logit_bias={7: math.nan})}, "logit_bias[7]"),
    ({"sampling": pb.Sampling(logit_bias={7: 100.5})}, "logit_bias[7]"),
    ({"sampling": pb.Sampling(logit_bias=dict.fromkeys(range(1025), 1.0))}, "logit_bias"),
    ({"tools": [pb.Tool(name="t")]}, "tools"),
]


@pytest.mark.parametrize(("given", "field"), BAD)
def test_other_bad_fields(given: dict[str, Any], field: str) -> None:
    error = refused(pb.GenerateRequest(**{"model": "m", "prompt": "p"} | given))
    assert (error.code, error.field) == (Code.INVALID, field)


def test_plain_text_is_a_format_too() -> None:
    assert one(response_format=pb.ResponseFormat(text=True)).form is None
    assert one(response_format=pb.ResponseFormat(json_object=False)).form is None


@pytest.mark.parametrize(
    ("given", "form"),
    [
        ({"json_object": True}, Form("json_object")),
        ({"json_schema": "{}"}, Form("json_schema", "{}")),
        ({"grammar": 'root ::= "x"'}, Form("grammar", 'root ::= "x"')),
    ],
)
def test_forms(given: dict[str, Any], form: Form) -> None:
    assert one(response_format=pb.ResponseFormat(**given)).form == form


def test_a_form_beyond_its_limits_is_refused_by_name() -> None:
    error = refused(pb.GenerateRequest(model="m", prompt="p", response_format=pb.ResponseFormat(grammar="(" * 60_000)))
    assert (error.code, error.field) == (Code.INVALID, "response_format.grammar")


# answers


def test_text_with_logprobs() -> None:
    entry = TokenLogprob(5, -0.5, "x", [(5, -0.5, "x"), (6, -1.0, "y")])
    delta = wire.to_response(words.Text(3, "xy", [5, 6], [entry]), 2).delta
    assert (delta.index, delta.text, list(delta.tokens), delta.choice) == (3, "xy", [5, 6], 2)
    (shown,) = delta.logprobs
    assert (shown.token, shown.logprob, shown.text) == (5, -0.5, "x")
    assert [(top.token, top.text) for top in shown.top] == [(5, "x"), (6, "y")]


def test_news_before_the_text() -> None:
    queued = wire.to_response(words.Queued("r", 4, "slot")).queued
    assert (queued.request_id, queued.position, queued.why) == ("r", 4, "slot")
    assert not queued.HasField("eta_low_ms")
    started = wire.to_response(words.Started("r", "m", 9, 8, "CPU", 2**64 - 1)).started
    assert (started.request_id, started.model, started.prompt_tokens) == ("r", "m", 9)
    assert (started.cached_tokens, started.device, started.seed) == (8, "CPU", 2**64 - 1)
    assert wire.to_response(words.Resumed("kv_full")).resumed.why == "kv_full"


ENDED = words.Finished(FinishReason.LENGTH, 1, 2, 3, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0)


def test_the_end_has_usage_and_timings() -> None:
    finished = wire.to_response(ENDED, 1).finished
    assert (finished.finish_reason, finished.choice) == (pb.LENGTH, 1)
    usage, timings = finished.usage, finished.timings
    assert (usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens) == (1, 2, 3)
    assert [value for _, value in timings.ListFields()] == [4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0]


def test_every_reason_but_a_failure_has_a_word() -> None:
    assert set(wire.FINISH_REASON) == set(FinishReason) - {FinishReason.ERROR}


def test_every_priority_has_a_word() -> None:
    assert set(wire.PRIORITY) == set(pb.Priority.values())
    assert set(wire.PRIORITY.values()) == set(Priority)


def test_a_file_that_can_be_served() -> None:
    entry = Entry("m", FACTS, None, 5000, 0)
    info = wire.to_model_info(entry, None)
    assert (info.name, info.state, info.backend, info.file_bytes) == ("m", "cold", "llama", 5000)
    assert (info.parameters, info.context_tokens, info.layers, info.heads) == (1000, 2048, 2, 4)
    assert info.chat
    info = wire.to_model_info(entry, Model("m", FACTS, PLAN, 1.0, state=ModelState.FAILED, error="it ended"))
    assert (info.state, info.error) == ("failed", "it ended")


def test_a_file_that_cannot() -> None:
    info = wire.to_model_info(Entry("m", None, "is cut short", 10, 0), None)
    assert (info.state, info.error, info.file_bytes, info.backend) == ("failed", "is cut short", 10, "")


# errors
