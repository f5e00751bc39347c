"""Every failure of a method becomes a status with details, and nothing else leaks."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import pytest

from inferd.daemon.api.guard import Reading, guarded, has_more_fields
from inferd.daemon.domain.errors import Code, InferdError
from inferd.protos import inferd_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    Body = Callable[[Any, Any, Any], Awaitable[Any]]
    Ask = Callable[[Body, bytes], Awaitable[pb.CancelResponse]]


async def answer(_self: Any, request: pb.CancelRequest, _context: Any) -> pb.CancelResponse:
    return pb.CancelResponse(cancelled=request.request_id == "r")


async def refuse(_self: Any, _request: Any, _context: Any) -> Any:
    raise InferdError(Code.QUEUE_FULL, "full", retry_after_ms=10)


async def break_down(_self: Any, _request: Any, _context: Any) -> Any:
    raise ZeroDivisionError("/secret/path")


async def leave(_self: Any, _request: Any, _context: Any) -> Any:
    raise asyncio.CancelledError


@pytest.fixture
def folder() -> Iterator[str]:
    # A socket's path has at most 107 bytes: pytest's own folders can be longer.
    with tempfile.TemporaryDirectory(prefix="inferd-") as name:
        yield name


@pytest.fixture
async def ask(folder: str) -> AsyncIterator[Ask]:
    """Serve one method with a body of the test's choice and call it with raw bytes."""
    server = grpc.aio.server(interceptors=[Reading(4 << 20)])
    address = f"unix:{folder}/s"
    body: list[Body] = []

    async def method(request: Any, context: Any) -> Any:
        return await guarded(body[-1])(None, request, context)

    handler = grpc.unary_unary_rpc_method_handler(
        method,
        request_deserializer=pb.CancelRequest.FromString,
        response_serializer=pb.CancelResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t.T", {"M": handler}),))
    server.add_insecure_port(address)
    await server.start()
    options = [("grpc.default_authority", "localhost"), ("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        call: Any = channel.unary_unary(
            "/t.T/M", request_serializer=None, response_deserializer=pb.CancelResponse.FromString
        )

        async def ask(chosen: Body, message: bytes) -> pb.CancelResponse:
            body.append(chosen)
            response: pb.CancelResponse = await call(message, timeout=5)
            return response

        yield ask
    await server.stop(None)


REQUEST = pb.CancelRequest(request_id="r").SerializeToString()


async def test_an_answer_passes(ask: Ask) -> None:
    assert (await ask(answer, REQUEST)).cancelled


async def test_a_refusal_becomes_its_status(ask: Ask) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await ask(refuse, REQUEST)
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "full")
    trailers: Any = caught.value.trailing_metadata()
    assert "grpc-status-details-bin" in dict(trailers)


async def test_our_own_failure_shows_a_ticket_and_logs_the_rest(ask: Ask, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR), pytest.raises(grpc.aio.AioRpcError) as caught:
        await ask(break_down, REQUEST)
    details = caught.value.details() or ""
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in details
    assert "ZeroDivisionError" not in details
    ticket = details.split()[-1]
    assert ticket in caplog.text
    assert "/secret/path" in caplog.text


async def test_bytes_that_are_no_message_never_reach_the_method(ask: Ask, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await ask(break_down, b"\x0a\x02\xff\xff")
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert not caplog.records


class Gone:
    """A context whose client left: whatever is sent fails in gRPC's own way."""

    class ExecuteBatchError(Exception):
        pass

    def __init__(self, cancelled: bool = False) -> None:
        self.is_cancelled = cancelled
        self.aborts = 0

    def cancelled(self) -> bool:
        return self.is_cancelled

    async def abort(self, *_: Any) -> None:
        self.aborts += 1
        raise self.ExecuteBatchError


async def test_a_client_that_left_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    async def write(_self: Any, _request: Any, context: Gone) -> None:
        raise context.ExecuteBatchError

    context = Gone()
    assert await guarded(write)(None, "request", context) is None
    assert context.aborts == 0
    assert await guarded(break_down)(None, "request", Gone(cancelled=True)) is None
    assert await guarded(refuse)(None, "request", context) is None
    assert context.aborts == 1
    assert not caplog.records


async def test_a_cancellation_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    context = Gone()
    with pytest.raises(asyncio.CancelledError):
        await guarded(leave)(None, "request", context)
    assert context.aborts == 0


def test_fields_are_counted_on_the_wire() -> None:
    message = b"\x2a\x00" * 10 + b"\x08\xac\x02" + b"\x09" + bytes(8) + b"\x0d" + bytes(4) + b"\x12\x03abc"
    assert has_more_fields(message, 13)
    assert not has_more_fields(message, 14)
    for damaged in (b"\x80" * 1000, b"\x2a\x00\x2a", b"\x2a\xff\xff\xff\xff\x0f", b""):
        assert not has_more_fields(damaged, 2)
