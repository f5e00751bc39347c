"""From Python arguments to a GenerateRequest."""

from __future__ import annotations

from typing import Any, cast

import pytest

from inferd.protos import inferd_pb2 as pb
from inferd.protos.compose import (
    PLAIN,
    SAMPLING,
    SPECIAL,
    GenerateOptions,
    generate_request,
    plain_request,
    tokenize_request,
)
from inferd.protos.errors import InferdError


def messages(request: pb.GenerateRequest) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in request.messages.messages]


def test_a_str_is_one_user_message() -> None:
    assert messages(generate_request("demo", "hi", {})) == [("user", "hi")]
    with_system = generate_request("demo", "hi", {"system": "be brief"})
    assert messages(with_system) == [("system", "be brief"), ("user", "hi")]


def test_a_raw_str_is_the_prompt() -> None:
    request = generate_request("demo", "hi", {"raw": True})
    assert (request.WhichOneof("input"), request.prompt) == ("prompt", "hi")
    with pytest.raises(InferdError, match="system needs a chat"):
        generate_request("demo", "hi", {"raw": True, "system": "x"})


def test_a_list_is_a_chat_or_tokens() -> None:
    chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert messages(generate_request("demo", chat, {})) == [("user", "a"), ("assistant", "b")]
    assert list(generate_request("demo", [1, 2], {}).tokens.ids) == [1, 2]


def test_what_is_not_given_is_not_sent() -> None:
    request = generate_request("demo", "hi", {"max_tokens": None, "temperature": None, "stop": None})
    assert not request.HasField("max_tokens")
    assert not request.HasField("sampling")
    assert request.priority == pb.INTERACTIVE


def test_zero_is_sent() -> None:
    request = generate_request("demo", "hi", {"temperature": 0, "seed": 0, "top_k": 0})
    assert all(request.sampling.HasField(name) for name in ("temperature", "seed", "top_k"))


def test_every_option_reaches_its_field() -> None:
    options: GenerateOptions = {
        "max_tokens": 7, "top_p": 0.5, "stop": "END", "priority": "batch", "deadline_ms": 9, "session_id": "s",
        "run_id": "r", "supersede_key": "k", "request_id": "i", "logit_bias": {5: -2.0}, "n": 2, "logprobs": 3,
        "ignore_eos": True, "min_tokens": 1,
    }  # fmt: skip
    request = generate_request("demo", "hi", options)
    assert (request.max_tokens, request.deadline_ms, list(request.stop)) == (7, 9, ["END"])
    assert (request.session_id, request.run_id) == ("s", "r")
    assert (request.supersede_key, request.request_id) == ("k", "i")
    assert request.priority == pb.BATCH
    sampling = request.sampling
    assert (sampling.top_p, dict(sampling.logit_bias), sampling.n, sampling.logprobs) == (0.5, {5: -2.0}, 2, 3)
    assert (sampling.ignore_eos, sampling.min_tokens) == (True, 1)


def test_formats_and_tools() -> None:
    form = generate_request("demo", "hi", {"response_format": {"json_schema": {"type": "object"}}}).response_format
    assert form.json_schema == '{"type": "object"}'
    assert generate_request("demo", "hi", {"response_format": "json_object"}).response_format.json_object is True
    grammar = generate_request("demo", "hi", {"response_format": {"grammar": 'root ::= "a"'}}).response_format
    assert grammar.grammar == 'root ::= "a"'
    (tool,) = generate_request("demo", "hi", {"tools": [{"name": "f", "parameters": {"a": 1}}]}).tools
    assert (tool.name, tool.parameters) == ("f", '{"a": 1}')


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_tokens", -1), ("max_tokens", "many"), ("seed", -1), ("temperature", "hot"), ("priority", "urgent"),
        ("stop", [1]), ("logit_bias", {-1: 0.0}), ("response_format", "xml"), ("response_format", {"xml": ""}),
        ("tools", [{}]), ("session_id", 5),
    ],
)  # fmt: skip
def test_a_value_that_fits_no_field_names_it(field: Any, value: Any) -> None:
    with pytest.raises(InferdError, match=field) as caught:
        generate_request("demo", "hi", cast(GenerateOptions, {field: value}))
    assert (caught.value.code, caught.value.field) == ("invalid", field)


@pytest.mark.parametrize("prompt", [None, 5, [{"role": "user"}], [{"role": "user", "content": 5}], [1, -2], [[]]])
def test_a_prompt_that_is_none(prompt: Any) -> None:
    with pytest.raises(InferdError, match="prompt"):
        generate_request("demo", prompt, {})


def test_an_unknown_option_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="temprature"):
        generate_request("demo", "hi", cast(GenerateOptions, {"temprature": 1}))


def test_no_field_of_the_contract_is_out_of_reach() -> None:
    reached = SAMPLING | PLAIN | set(SPECIAL)
    assert reached | {"raw", "system"} == set(GenerateOptions.__annotations__)
    fields = set(pb.GenerateRequest.DESCRIPTOR.fields_by_name) | set(pb.Sampling.DESCRIPTOR.fields_by_name)
    assert fields - reached == {"model", "prompt", "messages", "tokens", "sampling"}


def test_tokenize_takes_a_plain_prompt_or_a_chat() -> None:
    assert tokenize_request("demo", "hi").prompt == "hi"
    chat = tokenize_request("demo", [{"role": "user", "content": "hi"}])
    assert chat.messages.messages[0].content == "hi"


def test_a_plain_request_carries_what_is_given() -> None:
    request = plain_request(pb.UnloadModelRequest, model="demo", force=True)
    assert (request.model, request.force) == ("demo", True)
    assert plain_request(pb.WatchRequest, interval_ms=None) == pb.WatchRequest()


@pytest.mark.parametrize("value", ["\ud800", 7])
def test_a_plain_request_refuses_what_its_field_cannot_hold(value: Any) -> None:
    with pytest.raises(InferdError) as caught:
        plain_request(pb.PlanLoadRequest, model=value)
    assert (caught.value.code, caught.value.details["field"]) == ("invalid", "model")
