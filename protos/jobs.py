"""Durable jobs as a client asks for them, and their answers while they are read."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from . import inferd_pb2 as pb
from .aio_streams import AsyncStream
from .answer import FINISH_REASONS, Delta, to_delta
from .compose import generate_request, plain_request
from .errors import Unreachable, from_rpc
from .patience import SHUTTING_DOWN, Patience
from .streams import Stream
from .twin import all_fields

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    import grpc
    import grpc.aio

    from .aio import AsyncClient
    from .client import Client
    from .compose import GenerateOptions


RESUME_S = 60.0  # for a daemon that ends and is started again: its drain (30 s unless set otherwise) and the start


def job_request(model: str, prompt: Any, key: str | None, options: GenerateOptions) -> pb.SubmitJobRequest:
    """Unless it says otherwise a job is batch work. Without a key it gets one, as a lost answer is asked for again."""
    if key is None or key == "":
        key = os.urandom(8).hex()
    given: GenerateOptions = {**options, "priority": options.get("priority") or "batch"}
    request = plain_request(pb.SubmitJobRequest, idempotency_key=key)
    request.request.CopyFrom(generate_request(model, prompt, given))
    return request


def job_twin(job: pb.Job) -> dict[str, Any]:
    """A job as scripts see it."""
    return {**all_fields(job), "finish_reason": FINISH_REASONS.get(job.finish_reason)}


class _Output:
    """What the two clients' readers share: how far the answer has come, and how the job ended."""

    def __init__(self, request: pb.StreamJobRequest) -> None:
        self.job: pb.Job | None = None  # once it has ended
        self._offset = request.offset
        self._texts: list[str] = []

    def text_so_far(self) -> str:
        """What has been received and read, from the offset on."""
        return "".join(self._texts)

    def take(self, output: pb.JobOutput) -> Delta | None:
        """A delta comes back as such."""
        if output.HasField("ended"):
            self.job = output.ended
            return None
        delta = to_delta(output.delta)
        self._offset = delta.index + len(delta.tokens)
        self._texts.append(delta.text)
        return delta


class JobAnswer(Stream[Any], _Output):
    """A job's answer: iterate over its deltas; `.job` is how it ended. Goes on if the daemon is restarted under it."""

    def __init__(self, client: Client, method: Callable[..., Any], request: pb.StreamJobRequest) -> None:
        _Output.__init__(self, request)
        Stream.__init__(self, client, method, request)

    def __iter__(self) -> Iterator[Delta]:
        try:
            while (output := self._next()) is not None:
                if (delta := self.take(output)) is not None:
                    yield delta
        finally:
            self.cancel()

    def text(self) -> str:
        """Read to the end; the whole text from the offset on."""
        for _ in self:
            pass
        return self.text_so_far()

    def _on_error(self, error: grpc.RpcError) -> None:
        if _is_lost(self, error):
            _resume(self)
        super()._on_error(error)


class AsyncJobAnswer(AsyncStream[Any], _Output):
    """The same for asyncio."""

    def __init__(
        self, client: AsyncClient, method: Callable[[grpc.aio.Channel], Any], request: pb.StreamJobRequest
    ) -> None:
        _Output.__init__(self, request)
        AsyncStream.__init__(self, client, method, request)

    async def __aiter__(self) -> AsyncIterator[Delta]:
        try:
            while (output := await self._next()) is not None:
                if (delta := self.take(output)) is not None:
                    yield delta
        finally:
            self.cancel()

    async def text(self) -> str:
        """Read to the end; the whole text from the offset on."""
        async for _ in self:
            pass
        return self.text_so_far()

    async def _on_error(self, error: grpc.RpcError) -> None:
        if _is_lost(self, error):
            _resume(self)
        await super()._on_error(error)


def _is_lost(answer: JobAnswer | AsyncJobAnswer, error: grpc.RpcError) -> bool:
    """The daemon has gone away in the middle of it, or says that it will."""
    failure = from_rpc(error, answer._client.address, heard=answer._heard)
    if failure.code == SHUTTING_DOWN:
        return answer._heard or not answer._patience.restarts
    return answer._heard and isinstance(failure, Unreachable)


def _resume(answer: JobAnswer | AsyncJobAnswer) -> None:
    """The next call asks for what is missing, and waits for a restart: the daemon keeps the job."""
    client = answer._client
    answer._request.offset = answer._offset
    answer._heard = False
    answer._patience = Patience(client.address, max(client.connect_timeout_s, RESUME_S), restarts=True)
