"""Calls that bring many messages: read by iterating, cancelled by leaving the loop."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import grpc

from . import inferd_pb2 as pb
from .answer import Answer, Delta
from .errors import InferdError
from .patience import Patience

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from types import TracebackType
    from typing import Self

    from .client import Client

T = TypeVar("T")


class Stream(Generic[T]):
    """Messages of one running call. Leaving the loop early, or dropping this, cancels the call."""

    def __init__(self, client: Client, method: Callable[..., Any], request: Any) -> None:
        self._client = client  # also keeps the channel open
        self._method = method
        self._request = request
        self._patience = Patience(client.address, client.connect_timeout_s)
        self._failure: InferdError | None = None
        self._heard = False
        self._done = False
        self._cancelled: bool = False
        self._call = self._start()

    def __iter__(self) -> Iterator[T]:
        try:
            while (message := self._next()) is not None:
                yield message
        finally:
            self.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()

    def wait(self) -> T | None:
        """Read to the end; the last message."""
        last = None
        for message in self:
            last = message
        return last

    def cancel(self) -> None:
        """End the call; a loop over it in any thread ends too. Does nothing when it is over."""
        if not self._done:
            self._cancelled = True
            self._call.cancel()

    def _start(self) -> Any:
        self._client.check_open()
        return self._method(self._request, metadata=self._client.metadata)

    def _next(self) -> T | None:
        """The next message, None at the end; a failure is raised again by who comes later."""
        while not self._done:
            try:
                message: T = next(self._call)
            except StopIteration:
                self._done = True
            except grpc.RpcError as error:
                self._on_error(error)
            else:
                self._heard = True
                return message
        if self._failure is not None:
            raise self._failure
        return None

    def _on_error(self, error: grpc.RpcError) -> None:
        """Make a call that nobody has heard once more; keep any other failure."""
        if self._cancelled:
            self._done = True
            return
        try:
            pause_s = self._patience.pause_s(error, heard=self._heard)
        except InferdError as failure:
            self._failure, self._done = failure, True
            return
        time.sleep(pause_s)
        self._restart()

    def _restart(self) -> None:
        self._call = self._start()
        if self._cancelled:  # by another thread, during the pause
            self._call.cancel()


class Lease(Stream[pb.LeaseState]):
    """Held from the start of a `with` block to its end."""

    def __enter__(self) -> Self:
        if self._next() is None:
            raise InferdError("internal", "the lease ended before it was held")
        return self


class Generation(Stream[Any], Answer):
    """An answer while it is written: iterate over it, or take the whole `.text()`."""

    def __init__(self, client: Client, method: Callable[..., Any], request: pb.GenerateRequest) -> None:
        Answer.__init__(self, request)
        Stream.__init__(self, client, method, request)

    def __iter__(self) -> Iterator[Delta]:
        try:
            while (event := self._next()) is not None:
                delta = self.take(event)
                if delta is not None:
                    yield delta
            self.check_complete()
        finally:
            self.cancel()

    def events(self) -> Generator[pb.GenerateResponse, None, None]:
        """The daemon's own events, for who wants to show waiting too; the attributes move with them."""
        try:
            while (event := self._next()) is not None:
                self.note(event)
                yield event
            self.check_complete()
        finally:
            self.cancel()

    def text(self, choice: int = 0) -> str:
        """Read to the end; the whole text of one choice."""
        for _ in self:
            pass
        return self.text_so_far(choice)
