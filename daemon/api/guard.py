"""What every method does with a failure: the client gets a sentence, the log gets the rest."""

from __future__ import annotations

import asyncio
import functools
import logging
import secrets
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc
from google.protobuf.message import DecodeError

from ..domain.errors import Code, InferdError
from . import who
from .status import to_status

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Method = Callable[..., Awaitable[Any]]

log = logging.getLogger(__name__)

FEW_BYTES = 64 * 2**10  # nothing in a message of so many can be too much
LARGEST_BYTES = 64 * 2**20  # of any message: those with tensors
FOREIGN = "/grpc."  # gRPC's own services: their methods know nothing of what stands for a message here
TENSORS = "/inference."  # methods that take such
MAX_FIELDS = 4096  # of a message with tensors: an empty input takes two bytes on the wire, and 80 when it is made
UNREADABLE = "the message cannot be read: it is damaged, or a text in it is not valid UTF-8"


class Reading(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # generic in the stubs alone
    """Bytes that are no message, or too many, reach the method as what `refusal` refuses; gRPC would say UNKNOWN."""

    def __init__(self, max_message_bytes: int) -> None:
        self._max_bytes = max_message_bytes  # of methods without tensors

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        handler = await continuation(handler_call_details)
        foreign = handler_call_details.method.startswith(FOREIGN)
        if handler is None or handler.request_deserializer is None or foreign:
            return handler
        read = handler.request_deserializer
        tensors = handler_call_details.method.startswith(TENSORS)
        max_bytes = LARGEST_BYTES if tensors else self._max_bytes

        def read_or_none(raw: bytes) -> Any:
            if len(raw) > max_bytes:
                return TooLarge(len(raw), max_bytes)
            if tensors and len(raw) > FEW_BYTES and has_more_fields(raw, MAX_FIELDS):
                return TooLarge(MAX_FIELDS + 1, MAX_FIELDS, "fields")
            try:
                return read(raw)
            except DecodeError:
                return None

        return handler._replace(request_deserializer=read_or_none)


class TooLarge(NamedTuple):
    """In place of a message."""

    n: int
    most: int
    what: str = "bytes"


def refuse_unread(request: object) -> None:
    """Raises InferdError for what `Reading` made of bytes that are no message."""
    if request is None:
        raise InferdError(Code.INVALID, UNREADABLE)
    if isinstance(request, TooLarge):
        message = f"the message has {request.n:,} {request.what}, at most {request.most:,} are allowed"
        raise InferdError(Code.TOO_LARGE, message, highest=request.most)


def has_more_fields(raw: bytes, most: int) -> bool:
    """Whether a message has more fields, counted on the wire, before anything is made of them."""
    at = n = 0
    try:
        while at < len(raw) and n <= most:
            tag, at = _varint(raw, at)
            kind, n = tag & 7, n + 1
            if kind in (1, 5):
                at += 8 if kind == 1 else 4
            elif kind in (0, 2):
                value, at = _varint(raw, at)
                at += value if kind == 2 else 0
    except IndexError:
        return False  # it is damaged: so far it will be read at most
    return n > most


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    """(value, where it ends)."""
    value = 0
    for shift in range(0, 70, 7):
        byte, at = raw[at], at + 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise IndexError("no number is that long")


def guarded(method: Method) -> Any:
    """Wrap an RPC method (self, request, context): failures become statuses with details."""

    @functools.wraps(method)
    async def run(self: Any, request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        try:
            refuse_unread(request)
            return await method(self, request, context)
        except InferdError as error:
            await abort(context, error)
        except asyncio.CancelledError:
            if (why := who.cut()) is None:  # the client left, or the daemon ends
                raise
            await abort(context, why)
        except Exception as error:
            if context.cancelled() or client_left(error):
                return None
            await abort(context, unexpected(method.__name__))

    return run


def unexpected(name: str) -> InferdError:
    """Of the exception that is being handled: the log gets it, the client where it is."""
    ticket = secrets.token_hex(4)
    log.exception("%s failed, ticket %s", name, ticket)
    return InferdError(Code.INTERNAL, f"internal error; the daemon's log has it under {ticket}")


async def abort(context: grpc.aio.ServicerContext[Any, Any], error: InferdError) -> None:
    """End the call with what the error says."""
    status = to_status(error)
    try:
        await context.abort(status.code, status.details, status.trailing_metadata)
    except Exception as failure:  # gRPC's own AbortError, as a rule
        if not client_left(failure):
            raise


def client_left(error: Exception) -> bool:
    """A client that leaves while something is being sent shows as this, not as CancelledError."""
    return type(error).__name__ == "ExecuteBatchError"
