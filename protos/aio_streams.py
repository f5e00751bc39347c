"""Calls that bring many messages, for asyncio: the twin of `streams`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import grpc
import grpc.aio

from . import inferd_pb2 as pb
from .answer import Answer, Delta
from .errors import InferdError
from .patience import Patience

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable
    from typing import Self

    from .aio import AsyncClient

T = TypeVar("T")
EOF: Any = grpc.aio.EOF  # type: ignore[attr-defined]  # the published stubs forgot it


class AsyncStream(Generic[T]):
    """Messages of one call, which starts when first read. Leaving the loop early cancels it."""

    def __init__(self, client: AsyncClient, method: Callable[[grpc.aio.Channel], Any], request: Any) -> None:
        self._client = client  # also keeps the channel open
        self._method = method
        self._request = request
        self._patience = Patience(client.address, client.connect_timeout_s)
        self._failure: InferdError | None = None
        self._heard = False
        self._done = False
        self._cancelled: bool = False
        self._call: Any = None

    async def __aiter__(self) -> AsyncIterator[T]:
        try:
            while (message := await self._next()) is not None:
                yield message
        finally:
            self.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cancel()

    async def wait(self) -> T | None:
        """Read to the end; the last message."""
        last = None
        async for message in self:
            last = message
        return last

    def cancel(self) -> None:
        """End the call; a loop over it in any task ends too. Does nothing when it is over."""
        if not self._done:
            self._cancelled = True
            if self._call is not None:
                self._call.cancel()

    async def _next(self) -> T | None:
        """The next message, None at the end; a failure is raised again by who comes later."""
        while not self._over():
            try:
                if self._call is None:
                    method = self._method(self._client.channel())
                    self._call = method(self._request, metadata=self._client.metadata)
                message = await self._call.read()
                if message is not EOF:
                    self._heard = True
                    return cast(T, message)
                self._done = True
            except grpc.RpcError as error:
                await self._on_error(error)
            except asyncio.CancelledError:
                # Our own cancel() looks the same as the cancelling of the task that reads.
                if not self._cancelled or _task_is_cancelled():
                    raise
        if self._failure is not None:
            raise self._failure
        return None

    def _over(self) -> bool:
        return self._done or self._cancelled

    async def _on_error(self, error: grpc.RpcError) -> None:
        """Make a call that nobody has heard once more; keep any other failure."""
        try:
            pause_s = self._patience.pause_s(error, heard=self._heard)
        except InferdError as failure:
            if not self._cancelled:
                self._failure, self._done = failure, True
            return
        self._call = None
        await asyncio.sleep(pause_s)


def _task_is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


class AsyncLease(AsyncStream[pb.LeaseState]):
    """Held from the start of an `async with` block to its end."""

    async def __aenter__(self) -> Self:
        if await self._next() is None:
            raise InferdError("internal", "the lease ended before it was held")
        return self


class AsyncGeneration(AsyncStream[Any], Answer):
    """An answer while it is written: `async for` over it, or await the whole `.text()`."""

    def __init__(
        self, client: AsyncClient, method: Callable[[grpc.aio.Channel], Any], request: pb.GenerateRequest
    ) -> None:
        Answer.__init__(self, request)
        AsyncStream.__init__(self, client, method, request)

    async def __aiter__(self) -> AsyncIterator[Delta]:
        try:
            while (event := await self._next()) is not None:
                delta = self.take(event)
                if delta is not None:
                    yield delta
            self.check_complete()
        finally:
            self.cancel()

    async def events(self) -> AsyncGenerator[pb.GenerateResponse, None]:
        """The daemon's own events, for who wants to show waiting too; the attributes move with them."""
        try:
            while (event := await self._next()) is not None:
                self.note(event)
                yield event
            self.check_complete()
        finally:
            self.cancel()

    async def text(self, choice: int = 0) -> str:
        """Read to the end; the whole text of one choice."""
        async for _ in self:
            pass
        return self.text_so_far(choice)
