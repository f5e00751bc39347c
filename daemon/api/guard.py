"""What every method does with a failure: the client gets a sentence, the log gets the rest."""

from __future__ import annotations

import asyncio
import functools
import logging
import secrets
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.message import DecodeError

from ..domain.errors import Code, InferdError
from .status import to_status

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Method = Callable[..., Awaitable[Any]]

log = logging.getLogger(__name__)

UNREADABLE = "the message cannot be read: it is damaged, or a text in it is not valid UTF-8"


class Reading(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # generic in the stubs alone
    """Bytes that are no message reach the method as None, which `guarded` refuses; gRPC itself would say UNKNOWN."""

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        handler = await continuation(handler_call_details)
        if handler is None or handler.request_deserializer is None:
            return handler
        read = handler.request_deserializer

        def read_or_none(raw: bytes) -> Any:
            try:
                return read(raw)
            except DecodeError:
                return None

        return handler._replace(request_deserializer=read_or_none)


def guarded(method: Method) -> Any:
    """Wrap an RPC method (self, request, context): failures become statuses with details."""

    @functools.wraps(method)
    async def run(self: Any, request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        try:
            if request is None:
                raise InferdError(Code.INVALID, UNREADABLE)
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
