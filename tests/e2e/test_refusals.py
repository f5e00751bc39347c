"""Bad input over the real wire: each gets a clear error that names its field, and the daemon stays well."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from inferd import Client, InferdError
from inferd.protos import inferd_pb2 as pb
from inferd.protos.errors import from_rpc
from inferd.tests.e2e.daemons import ask, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from inferd.tests.e2e.daemons import Daemon

WAIT_S = 60.0
GENERATE, TOKENIZE = "/inferd.v1.Inference/Generate", "/inferd.v1.Inference/Tokenize"


@pytest.fixture(autouse=True)
def well(daemon: Daemon) -> Iterator[None]:
    """Whatever a test did to it, the daemon answers and nothing stays behind."""
    yield
    assert len(daemon.client.generate("small", "fake:tokens=2").text().split()) == 2
    until(daemon.idle)


def refusal(daemon: Daemon, request: pb.GenerateRequest) -> InferdError:
    with pytest.raises(grpc.RpcError) as caught:
        list(daemon.inference.Generate(request, timeout=WAIT_S))
    return from_rpc(caught.value, daemon.address)


SAMPLING: list[tuple[str, float]] = [
    *(("temperature", value) for value in (math.nan, math.inf, -math.inf, -0.1, 5.1)),
    *(("top_p", value) for value in (math.nan, math.inf, 0.0, -1.0, 1.1)),
    *(("min_p", value) for value in (math.nan, -math.inf, -0.1, 1.1)),
    *(("repeat_penalty", value) for value in (math.nan, 0.0, -1.0, 2.1)),
    *(("presence_penalty", value) for value in (math.nan, -2.1, 2.1)),
    *(("frequency_penalty", value) for value in (math.nan, -2.1, 2.1)),
    *(("top_k", value) for value in (2**31, 2**32 - 1)),
    *(("min_tokens", value) for value in (2**31, 2**32 - 1)),
    *(("logprobs", value) for value in (21, 2**32 - 1)),
    *(("n", value) for value in (0, 9, 2**32 - 1)),
]


@pytest.mark.parametrize("name", sorted({name for name, _ in SAMPLING}))
def test_every_sampling_field_out_of_range_is_named(daemon: Daemon, name: str) -> None:
    for value in (value for field, value in SAMPLING if field == name):
        error = refusal(daemon, ask("x", sampling=pb.Sampling(**{name: value})))  # type: ignore[arg-type]
        assert (error.code, error.field) == ("invalid", name)
        assert name in error.message
        assert {"lowest", "highest"} <= set(error.details)


def chat(**given: Any) -> pb.GenerateRequest:
    messages = pb.Messages(messages=[pb.Message(role="user", content="x")])
    return pb.GenerateRequest(model="small", messages=messages, **given)


DEEP = "root ::= " + "(" * 60_000
BAD: list[tuple[pb.GenerateRequest, str, str | None]] = [
    (ask("x", max_tokens=0), "invalid", "max_tokens"),
    (ask("x", max_tokens=2**32 - 1), "invalid", "max_tokens"),
    (ask("x", max_tokens=100_000), "invalid", "max_tokens"),
    (ask("x", deadline_ms=0), "invalid", "deadline_ms"),
    (ask("x", stop=[""]), "invalid", "stop[0]"),
    (ask("x", stop=["a"] * 17), "invalid", "stop"),
    (ask("x", stop=["ok", "é" * 129]), "invalid", "stop[1]"),
    (ask("x", sampling=pb.Sampling(logit_bias={1: math.nan})), "invalid", "logit_bias[1]"),
    (ask("x", sampling=pb.Sampling(logit_bias={10**9: 1})), "invalid", "logit_bias[1000000000]"),
    (ask("x", request_id="a" * 129), "invalid", "request_id"),
    (ask("x", request_id="line\nbreak"), "invalid", "request_id"),
    (ask(""), "invalid", "prompt"),
    (pb.GenerateRequest(model="small"), "invalid", "prompt"),
    (pb.GenerateRequest(model="small", messages=pb.Messages()), "invalid", "messages"),
    (pb.GenerateRequest(model="small", tokens=pb.Tokens()), "invalid", "tokens"),
    (pb.GenerateRequest(model="small", tokens=pb.Tokens(ids=[1, 10**6])), "invalid", "tokens[1]"),
    (pb.GenerateRequest(prompt="x"), "invalid", "model"),
    (ask("x", "no-such-model"), "not_found", "model"),
    (ask("x", "../../etc/passwd"), "not_found", "model"),
    (ask("x", "a\0b\nc" + "é" * 4000), "not_found", "model"),
    (ask("x", response_format=pb.ResponseFormat(json_object=True)), "unsupported", "response_format"),
    (ask("x", response_format=pb.ResponseFormat(json_schema="{")), "invalid", "response_format.json_schema"),
    (ask("x", response_format=pb.ResponseFormat(grammar=DEEP)), "invalid", "response_format.grammar"),
    (ask("x", tools=[pb.Tool(name="t")]), "invalid", "tools"),
    (chat(tools=[pb.Tool(name="t"), pb.Tool(name="u", parameters='{"a":' * 9000)]), "invalid", "tools[1].parameters"),
    (chat(tools=[pb.Tool(name="t")], tool_choice=pb.ToolChoice(function="u")), "invalid", "tool_choice"),
]


@pytest.mark.parametrize(("request_", "code", "field"), BAD)
def test_bad_requests_are_refused(daemon: Daemon, request_: pb.GenerateRequest, code: str, field: str | None) -> None:
    error = refusal(daemon, request_)
    assert (error.code, error.field) == (code, field)
    assert error.message


def test_a_prompt_beyond_the_context_names_both_numbers(daemon: Daemon) -> None:
    error = refusal(daemon, ask("x" * 25_000))
    assert error.code == "prompt_too_long"
    assert (error.details["prompt_tokens"], error.details["context_tokens"]) == ("25000", "20480")
    assert "25,000" in error.message
    assert "20,480" in error.message


def raw(daemon: Daemon, method: str, message: bytes, **options: Any) -> list[bytes]:
    """Bytes as they are, past every serializer."""
    call = daemon.channel.unary_stream(method, request_serializer=None, response_deserializer=None)
    return list(call(message, timeout=WAIT_S, **options))


@pytest.mark.parametrize("method", [GENERATE, TOKENIZE])
@pytest.mark.parametrize("prompt", [b"\xff\xfe\x80", b"\xed\xa0\x80", b"a\xc3"], ids=["bytes", "surrogate", "cut"])
def test_text_that_is_not_utf8(daemon: Daemon, method: str, prompt: bytes) -> None:
    field = 2
    message = b"\x0a\x05small" + bytes([field << 3 | 2, len(prompt)]) + prompt
    with pytest.raises(grpc.RpcError) as caught:
        raw(daemon, method, message)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "UTF-8" in (caught.value.details() or "")
    assert "Traceback" not in daemon.log.read_text()


def test_bytes_that_are_no_message(daemon: Daemon) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        raw(daemon, GENERATE, b"\xff" * 64)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_an_odd_but_valid_text_is_taken(daemon: Daemon) -> None:
    text = "a\0b\N{COMBINING ACUTE ACCENT}" + "\N{COMBINING DIAERESIS}" * 100 + "\N{GRINNING FACE}"
    assert daemon.client.tokenize("small", text) == list(text.encode())


def test_a_message_over_the_limit(daemon: Daemon) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        list(daemon.inference.Generate(ask("x" * 5 * 2**20), timeout=WAIT_S))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "at most 4,194,304 are allowed" in (caught.value.details() or "")


def test_metadata_over_the_limit(daemon: Daemon) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        list(daemon.inference.Generate(ask("x"), metadata=(("x-large", "v" * 40_000),), timeout=WAIT_S))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("tenant", ["", "x" * 65, "tab\there"])
def test_a_tenants_name_is_short_and_printable(daemon: Daemon, tenant: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        list(daemon.inference.Generate(ask("x"), metadata=(("inferd-tenant", tenant),), timeout=WAIT_S))
    assert caught.value.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.INTERNAL)


def test_a_watch_interval_out_of_range(daemon: Daemon) -> None:
    with pytest.raises(InferdError) as caught:
        daemon.client.watch(interval_ms=99).wait()
    assert (caught.value.code, caught.value.field) == ("invalid", "interval_ms")


def test_an_unknown_method(daemon: Daemon) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        raw(daemon, "/inferd.v1.Inference/Nothing", b"")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_nobody_at_the_address_is_said_so(daemon: Daemon) -> None:
    with (
        Client(f"{daemon.address}.none", connect_timeout_s=0.1) as client,
        pytest.raises(InferdError) as caught,
    ):
        client.snapshot()
    assert caught.value.code == "unreachable"
