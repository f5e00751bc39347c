"""The client for asyncio, with the same names: `await AsyncClient().generate("demo", "hello").text()`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import grpc
import grpc.aio

from . import inferd_pb2 as pb
from . import inferd_pb2_grpc as stubs
from .address import channel_options, resolve, target
from .answer import Answer, Delta
from .client import TENANT_METADATA, TIMEOUT_S
from .compose import generate_request, plain_request, tokenize_request
from .errors import InferdError
from .patience import CONNECT_TIMEOUT_S, Patience
from .pooled import Ranking, Vectors, embed_request, rerank_request

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
    from typing import Self, Unpack

    from .compose import GenerateOptions
    from .pooled import QueueOptions

T = TypeVar("T")
EOF: Any = grpc.aio.EOF  # type: ignore[attr-defined]  # the published stubs forgot it


class AsyncClient:
    """A connection to one daemon, opened when first used, on the event loop that uses it."""

    def __init__(
        self,
        address: str | None = None,
        *,
        tenant: str | None = None,
        timeout_s: float | None = TIMEOUT_S,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
    ) -> None:
        self.address = resolve(address)
        self.timeout_s = timeout_s
        self.connect_timeout_s = connect_timeout_s
        self.metadata = ((TENANT_METADATA, tenant),) if tenant else ()
        self._channel: grpc.aio.Channel | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    async def close(self) -> None:
        """End the connection and whatever still runs on it."""
        self._closed = True
        if self._channel is not None:
            await self._channel.close(None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def generate(
        self,
        model: str,
        prompt: str | Sequence[Mapping[str, Any]] | Sequence[int],
        **options: Unpack[GenerateOptions],
    ) -> AsyncGeneration:
        """Ask for an answer; see Client.generate. The request leaves when the answer is first read."""
        request = generate_request(model, prompt, options)
        return AsyncGeneration(self, lambda channel: stubs.InferenceStub(channel).Generate, request)

    async def tokenize(self, model: str, prompt: str | Sequence[Mapping[str, Any]]) -> list[int]:
        """The model's tokens for a plain prompt or for a chat."""
        method = stubs.InferenceStub(self.channel()).Tokenize
        return list((await self._call(method, tokenize_request(model, prompt))).tokens)

    async def embed(
        self,
        model: str,
        inputs: str | Sequence[str] | Sequence[Sequence[int]],
        *,
        normalize: bool | None = None,
        dimensions: int | None = None,
        **options: Unpack[QueueOptions],
    ) -> Vectors:
        """A vector of each text (or list of token ids), in order; waits for the model to be loaded if need be."""
        request = embed_request(model, inputs, normalize, dimensions, options)
        return Vectors(await self._call(stubs.InferenceStub(self.channel()).Embed, request, bounded=False))

    async def rerank(
        self,
        model: str,
        query: str,
        documents: Sequence[str],
        top_n: int | None = None,
        **options: Unpack[QueueOptions],
    ) -> Ranking:
        """How well each document answers the query, the best first."""
        request = rerank_request(model, query, documents, top_n, options)
        return Ranking(await self._call(stubs.InferenceStub(self.channel()).Rerank, request, bounded=False))

    async def cancel(self, request_id: str) -> bool:
        """Cancel a request by its id; False when no such request is live."""
        method = stubs.InferenceStub(self.channel()).Cancel
        answer = await self._call(method, plain_request(pb.CancelRequest, request_id=request_id))
        return bool(answer.cancelled)

    async def models(self) -> list[pb.ModelInfo]:
        """Every model in the catalog."""
        method = stubs.ModelsStub(self.channel()).ListModels
        return list((await self._call(method, pb.ListModelsRequest())).models)

    def load(self, model: str) -> AsyncStream[pb.LoadProgress]:
        """Load a model. Iterate to see progress, or `await .wait()` for the end."""
        request = plain_request(pb.LoadModelRequest, model=model)
        return AsyncStream(self, lambda channel: stubs.ModelsStub(channel).LoadModel, request)

    async def unload(self, model: str, *, force: bool = False) -> bool:
        """Unload a model, after its running requests unless `force`; False when it was not loaded."""
        method = stubs.ModelsStub(self.channel()).UnloadModel
        answer = await self._call(method, plain_request(pb.UnloadModelRequest, model=model, force=force), bounded=False)
        return bool(answer.was_loaded)

    async def plan(self, model: str) -> pb.PlanLoadResponse:
        """What loading the model would do now; changes nothing."""
        method = stubs.ModelsStub(self.channel()).PlanLoad
        plan: pb.PlanLoadResponse = await self._call(method, plain_request(pb.PlanLoadRequest, model=model))
        return plan

    def lease(self, model: str) -> AsyncLease:
        """`async with client.lease(model):` keeps the model loaded for the block; no other takes its place."""
        request = plain_request(pb.LeaseRequest, model=model)
        return AsyncLease(self, lambda channel: stubs.ModelsStub(channel).Lease, request)

    async def explain(self, request_id: str) -> list[pb.DecisionRecord]:
        """The last decisions about a request, oldest first."""
        method = stubs.MonitorStub(self.channel()).Explain
        return list((await self._call(method, plain_request(pb.ExplainRequest, request_id=request_id))).records)

    async def snapshot(self) -> pb.Snapshot:
        """The whole daemon at one moment."""
        snapshot: pb.Snapshot = await self._call(stubs.MonitorStub(self.channel()).GetSnapshot, pb.GetSnapshotRequest())
        return snapshot

    def watch(self, interval_ms: int | None = None) -> AsyncStream[pb.Snapshot]:
        """Snapshots as they come, the present one first; a slow reader gets only the newest."""
        request = plain_request(pb.WatchRequest, interval_ms=interval_ms)
        return AsyncStream(self, lambda channel: stubs.MonitorStub(channel).Watch, request)

    def channel(self) -> grpc.aio.Channel:
        """The channel of the running loop: one belongs to the loop that it was made on."""
        if self._closed:
            raise RuntimeError("this client is closed")
        loop = asyncio.get_running_loop()
        if self._channel is None or self._loop is not loop:
            options = channel_options(self.address, self.connect_timeout_s)
            self._channel, self._loop = grpc.aio.insecure_channel(target(self.address), options=options), loop
        return self._channel

    async def _call(self, method: Callable[..., Any], request: Any, *, bounded: bool = True) -> Any:
        patience = Patience(self.address, self.connect_timeout_s)
        while True:
            try:
                timeout = self.timeout_s if bounded else None
                return await method(request, timeout=timeout, metadata=self.metadata)
            except grpc.RpcError as error:
                pause_s = patience.pause_s(error)
            await asyncio.sleep(pause_s)


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
        self._cancelled = False
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
