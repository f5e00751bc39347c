"""The way to dial the daemon from Python: `Client().generate("demo", "hello").text()`."""

from __future__ import annotations

import time
import weakref
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import grpc
import grpc.experimental

from . import inferd_pb2 as pb
from . import inferd_pb2_grpc as stubs
from .address import channel_options, resolve, target
from .answer import Answer, Delta
from .compose import generate_request, plain_request, tokenize_request
from .errors import InferdError
from .patience import CONNECT_TIMEOUT_S, Patience
from .pooled import Ranking, Vectors, embed_request, rerank_request

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
    from types import TracebackType
    from typing import Self, Unpack

    from .compose import GenerateOptions
    from .pooled import QueueOptions

T = TypeVar("T")
TENANT_METADATA = "inferd-tenant"
TIMEOUT_S = 30.0


class Client:
    """A connection to one daemon, opened when first used. Safe to share between threads.

    `timeout_s` bounds the calls that answer at once. `connect_timeout_s` is how long a daemon that is
    still starting is waited for; then the call raises Unreachable.
    """

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
        options = channel_options(self.address, connect_timeout_s)
        # Events are read by the thread that asks for them: half the cost per token of a thread in between.
        options.append((grpc.experimental.ChannelOptions.SingleThreadedUnaryStream, 1))
        channel = grpc.insecure_channel(target(self.address), options=options)
        self._close = weakref.finalize(self, channel.close)
        self._inference = stubs.InferenceStub(channel)
        self._models = stubs.ModelsStub(channel)
        self._monitor = stubs.MonitorStub(channel)

    def close(self) -> None:
        """End the connection and whatever still runs on it."""
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def generate(
        self,
        model: str,
        prompt: str | Sequence[Mapping[str, Any]] | Sequence[int],
        **options: Unpack[GenerateOptions],
    ) -> Generation:
        """Ask for an answer: to a str (one user message), a chat (a list of messages) or token ids.

        The options are those of GenerateOptions; `raw=True` sends a str as the prompt itself.
        """
        return Generation(self, self._inference.Generate, generate_request(model, prompt, options))

    def tokenize(self, model: str, prompt: str | Sequence[Mapping[str, Any]]) -> list[int]:
        """The model's tokens for a plain prompt or for a chat."""
        return list(self._call(self._inference.Tokenize, tokenize_request(model, prompt)).tokens)

    def embed(
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
        return Vectors(self._call(self._inference.Embed, request, bounded=False))

    def rerank(
        self,
        model: str,
        query: str,
        documents: Sequence[str],
        top_n: int | None = None,
        **options: Unpack[QueueOptions],
    ) -> Ranking:
        """How well each document answers the query, the best first."""
        request = rerank_request(model, query, documents, top_n, options)
        return Ranking(self._call(self._inference.Rerank, request, bounded=False))

    def cancel(self, request_id: str) -> bool:
        """Cancel a request by its id; False when no such request is live."""
        request = plain_request(pb.CancelRequest, request_id=request_id)
        return self._call(self._inference.Cancel, request).cancelled

    def models(self) -> list[pb.ModelInfo]:
        """Every model in the catalog."""
        return list(self._call(self._models.ListModels, pb.ListModelsRequest()).models)

    def load(self, model: str) -> Stream[pb.LoadProgress]:
        """Load a model. Iterate to see progress, or `.wait()` for the end."""
        return Stream(self, self._models.LoadModel, plain_request(pb.LoadModelRequest, model=model))

    def unload(self, model: str, *, force: bool = False) -> bool:
        """Unload a model, after its running requests unless `force`; False when it was not loaded."""
        request = plain_request(pb.UnloadModelRequest, model=model, force=force)
        return self._call(self._models.UnloadModel, request, bounded=False).was_loaded

    def plan(self, model: str) -> pb.PlanLoadResponse:
        """What loading the model would do now; changes nothing."""
        return self._call(self._models.PlanLoad, plain_request(pb.PlanLoadRequest, model=model))

    def lease(self, model: str) -> Lease:
        """`with client.lease(model):` keeps the model loaded for the block; no other takes its place."""
        return Lease(self, self._models.Lease, plain_request(pb.LeaseRequest, model=model))

    def explain(self, request_id: str) -> list[pb.DecisionRecord]:
        """The last decisions about a request, oldest first."""
        return list(self._call(self._monitor.Explain, plain_request(pb.ExplainRequest, request_id=request_id)).records)

    def snapshot(self) -> pb.Snapshot:
        """The whole daemon at one moment."""
        return self._call(self._monitor.GetSnapshot, pb.GetSnapshotRequest())

    def watch(self, interval_ms: int | None = None) -> Stream[pb.Snapshot]:
        """Snapshots as they come, the present one first; a slow reader gets only the newest."""
        return Stream(self, self._monitor.Watch, plain_request(pb.WatchRequest, interval_ms=interval_ms))

    def check_open(self) -> None:
        if not self._close.alive:
            raise RuntimeError("this client is closed")

    def _call(self, method: Callable[..., T], request: Any, *, bounded: bool = True) -> T:
        self.check_open()
        patience = Patience(self.address, self.connect_timeout_s)
        while True:
            try:
                return method(request, timeout=self.timeout_s if bounded else None, metadata=self.metadata)
            except grpc.RpcError as error:
                time.sleep(patience.pause_s(error))


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
        self._cancelled = False
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
