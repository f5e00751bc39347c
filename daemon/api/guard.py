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
from .status import to_status

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Method = Callable[..., Awaitable[Any]]

log = logging.getLogger(__name__)

LARGEST_BYTES = 64 * 2**20  # of any message: those with tensors
TENSORS = "/inference."  # methods that take such
UNREADABLE = "the message cannot be read: it is damaged, or a text in it is not valid UTF-8"


class Reading(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # generic in the stubs alone
    """Bytes that are no message, or too many, reach the method as what `refusal` refuses; gRPC would say UNKNOWN."""

    def __init__(self, max_message_bytes: int) -> None:
        self._max_bytes = max_message_bytes  # of methods without tensors

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        handler = await continuation(handler_call_details)
        if handler is None or handler.request_deserializer is None:
            return handler
        read = handler.request_deserializer
        max_bytes = LARGEST_BYTES if handler_call_details.method.startswith(TENSORS) else self._max_bytes

        def read_or_none(raw: bytes) -> Any:
            if len(raw) > max_bytes:
                return TooLarge(len(raw), max_bytes)
            try:
                return read(raw)
            except DecodeError:
                return None

        return handler._replace(request_deserializer=read_or_none)


class TooLarge(NamedTuple):
    """In place of a message."""

    n_bytes: int
    max_bytes: int


def refuse_unread(request: object) -> None:
    """Raises InferdError for what `Reading` made of bytes that are no message."""
    if request is None:
        raise InferdError(Code.INVALID, UNREADABLE)
    if isinstance(request, TooLarge):
        message = f"the message has {request.n_bytes:,} bytes, at most {request.max_bytes:,} are allowed"
        raise InferdError(Code.INVALID, message, highest=request.max_bytes)


def guarded(method: Method) -> Any:
    """Wrap an RPC method (self, request, context): failures become statuses with details."""

    @functools.wraps(method)
    async def run(self: Any, request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        try:
            refuse_unread(request)
            return await method(self, request, context)
        except InferdError as error:
            await _abort(context, error)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            if context.cancelled() or _client_left(error):
                return None
            ticket = secrets.token_hex(4)
            log.exception("%s failed, ticket %s", method.__name__, ticket)
            message = f"internal error; the daemon's log has it under {ticket}"
            await _abort(context, InferdError(Code.INTERNAL, message))

    return run


async def _abort(context: grpc.aio.ServicerContext[Any, Any], error: InferdError) -> None:
    status = to_status(error)
    try:
        await context.abort(status.code, status.details, status.trailing_metadata)
    except Exception as failure:  # gRPC's own AbortError, as a rule
        if not _client_left(failure):
            raise


def _client_left(error: Exception) -> bool:
    """A client that leaves while something is being sent shows as this, not as CancelledError."""
    return type(error).__name__ == "ExecuteBatchError"
