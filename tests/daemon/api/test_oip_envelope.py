from __future__ import annotations

import json
from typing import Any

import pytest

from inferd.backends.messages import Tensor
from inferd.backends.tensors import pack_strings
from inferd.daemon.api.oip_envelope import envelope, flag, session_id, texts, to_generate, value_of
from inferd.daemon.domain.errors import Code, InferdError
from inferd.daemon.domain.request import Priority
from inferd.protos import oip_pb2 as oip


def wire(model: str = "m", **parameters: Any) -> oip.ModelInferRequest:
    request = oip.ModelInferRequest(model_name=model, id=parameters.pop("id", ""))
    for name, value in parameters.items():
        kind = {bool: "bool_param", int: "int64_param", float: "double_param", str: "string_param"}[type(value)]
        setattr(request.parameters[name], kind, value)
    return request


def refusal(call: Any, *arguments: Any) -> InferdError:
    with pytest.raises(InferdError) as caught:
        call(*arguments)
    assert caught.value.code is Code.INVALID
    return caught.value


@pytest.mark.parametrize(
    ("level", "priority"),
    [
        (0, Priority.INTERACTIVE),
        (1, Priority.INTERACTIVE),
        (2, Priority.NORMAL),
        (3, Priority.BATCH),
        (99, Priority.BATCH),
    ],
)
def test_one_is_the_highest_and_zero_the_default(level: int, priority: Priority) -> None:
    assert envelope(wire(priority=level), "t", ())["priority"] is priority
    assert envelope(wire(priority=str(level)), "t", ())["priority"] is priority


def test_a_timeout_is_in_microseconds() -> None:
    assert envelope(wire(), "t", ())["deadline_ms"] is None
    assert envelope(wire(timeout=0), "t", ())["deadline_ms"] is None
    assert envelope(wire(timeout=1), "t", ())["deadline_ms"] == 1
    assert envelope(wire(timeout=2_500_000), "t", ())["deadline_ms"] == 2500


def test_an_id_that_is_free_is_kept_and_another_made_up() -> None:
    assert envelope(wire(id="mine"), "t", ())["id"] == "mine"
    for request in (wire(id="mine"), wire(), wire(id="a\nb"), wire(id="x" * 200)):
        made = envelope(request, "t", {"mine"})["id"]
        assert made.startswith("r")
        assert len(made) == 13


def test_who_asks_and_whom() -> None:
    told = envelope(wire("model"), "team", ())
    assert (told["model"], told["tenant"]) == ("model", "team")
    assert refusal(envelope, wire(""), "t", ()).field == "model_name"


@pytest.mark.parametrize("value", [-1, True, "high", 1.5, "²", "9" * 5000])
def test_a_priority_is_a_number(value: Any) -> None:
    assert refusal(envelope, wire(priority=value), "t", ()).field == "parameters.priority"


def test_sequences_are_sessions() -> None:
    assert session_id(wire(sequence_id=7)) == "7"
    assert session_id(wire(sequence_id="chat")) == "chat"
    assert session_id(wire()) == ""


def test_a_parameter_may_be_empty() -> None:
    assert value_of(oip.InferParameter()) is None


def text(*values: str, name: str = "text_input") -> tuple[Tensor, bytes]:
    data = pack_strings([value.encode() for value in values])
    return Tensor(name, "BYTES", [len(values)], len(data)), data


def test_sampling_may_be_said_in_either_place() -> None:
    sampling = json.dumps({"temperature": 0.5, "repetition_penalty": 1.1, "stop": ["a", "b"], "max_tokens": 9})
    asked = to_generate(wire(top_k="3", seed=5), [text("hello"), text(sampling, name="sampling_parameters")])
    assert (asked.model, asked.prompt, asked.max_tokens, list(asked.stop)) == ("m", "hello", 9, ["a", "b"])
    assert asked.sampling.temperature == 0.5
    assert asked.sampling.repeat_penalty == pytest.approx(1.1)
    assert (asked.sampling.top_k, asked.sampling.seed) == (3, 5)


def test_reserved_parameters_are_no_sampling() -> None:
    to_generate(wire(priority=1, timeout=5, triton_enable_empty_final_response=True, stream=True), [text("a")])


@pytest.mark.parametrize(
    ("request_", "given", "field"),
    [
        (wire(), [text("a", "b")], "text_input"),
        (wire(nonsense=1), [text("a")], "parameters.nonsense"),
        (wire(top_k="many"), [text("a")], "parameters.top_k"),
        (wire(top_k=-1), [text("a")], "parameters.top_k"),
        (wire(), [text("a"), text("[]", name="sampling_parameters")], "sampling_parameters"),
        (wire(), [text("a"), text("{", name="sampling_parameters")], "sampling_parameters"),
        (wire(), [text("a"), text('{"top_p": null}', name="sampling_parameters")], "sampling_parameters.top_p"),
    ],
)
def test_what_is_not_known_is_refused_by_field(request_: oip.ModelInferRequest, given: Any, field: str) -> None:
    assert refusal(to_generate, request_, given).field == field


def test_a_timeout_that_nobody_would_live_to_see_is_none() -> None:
    assert envelope(wire(timeout=2**62), "t", ())["deadline_ms"] is None


@pytest.mark.parametrize(
    "said", ['{"max_tokens": 1e999}', f'{{"temperature": 1{"0" * 400}}}', '{"stop": {"a": 1}}', '{"stop": [1]}']
)
def test_a_value_that_is_beyond_its_field_is_refused(said: str) -> None:
    field = refusal(to_generate, wire(), [text("a"), text(said, name="sampling_parameters")]).field or ""
    assert field.startswith("sampling_parameters.")


def truth(name: str, *values: int, datatype: str = "BOOL") -> tuple[Tensor, bytes]:
    return Tensor(name, datatype, [len(values)], len(values)), bytes(values)


def test_an_answer_never_begins_with_its_prompt() -> None:
    to_generate(wire(), [text("a"), truth("exclude_input_in_output", 1)])
    with pytest.raises(InferdError) as caught:
        to_generate(wire(), [text("a"), truth("exclude_input_in_output", 0)])
    assert caught.value.code is Code.UNSUPPORTED


def test_a_flag_is_one_truth() -> None:
    assert flag([text("a")], "stream") is None
    assert flag([truth("stream", 1)], "stream") is True
    assert flag([truth("stream", 0)], "stream") is False
    for wrong in (truth("stream", 1, 1), truth("stream"), truth("stream", 1, datatype="UINT8")):
        assert refusal(flag, [wrong], "stream").field == "stream"


def test_texts_are_texts_and_not_too_many() -> None:
    assert texts(*text("a", "b")) == ["a", "b"]
    assert (
        refusal(texts, Tensor("text_input", "INT64", [1], 8), bytes(8)).message == "text_input must be BYTES, not INT64"
    )
    assert "1 to 2,048 elements, not 2,049" in refusal(texts, *text(*["a"] * 2049)).message
