"""The client for asyncio, with the same names: `await AsyncClient().generate("demo", "hello").text()`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from . import inferd_pb2 as pb
from . import inferd_pb2_grpc as stubs
from .address import channel_options, resolve, target
from .aio_streams import AsyncGeneration, AsyncLease, AsyncStream
from .client import TIMEOUT_S
from .compose import generate_request, plain_request, priority_request, pull_request, tokenize_request
from .credentials import metadata_of, tls_of
from .jobs import AsyncJobAnswer, job_request
from .patience import CONNECT_TIMEOUT_S, Patience
from .pooled import Ranking, Vectors, embed_request, rerank_request

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Self, Unpack

    from .compose import GenerateOptions, PullOptions
    from .pooled import QueueOptions


class AsyncClient:
    """A connection to one daemon, opened when first used, on the event loop that uses it."""

    def __init__(
        self,
        address: str | None = None,
        *,
        tenant: str | None = None,
        token: str | None = None,
        timeout_s: float | None = TIMEOUT_S,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
    ) -> None:
        self.address = resolve(address)
        self.timeout_s = timeout_s
        self.connect_timeout_s = connect_timeout_s
        self.metadata = metadata_of(self.address, tenant, token)
        self._tls = tls_of(self.address)
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

    async def set_priority(self, request_id: str, priority: str) -> bool:
        """Move a live request to another class: interactive, normal or batch; False when no such request is live."""
        method = stubs.InferenceStub(self.channel()).SetPriority
        return bool((await self._call(method, priority_request(request_id, priority))).changed)

    async def submit_job(
        self,
        model: str,
        prompt: str | Sequence[Mapping[str, Any]] | Sequence[int],
        *,
        key: str | None = None,
        **options: Unpack[GenerateOptions],
    ) -> pb.Job:
        """Have work done that outlives this client and the daemon; see Client.submit_job."""
        method = stubs.JobsStub(self.channel()).SubmitJob
        job: pb.Job = await self._call(method, job_request(model, prompt, key, options))
        return job

    async def job(self, job_id: str) -> pb.Job:
        """How far a job has come."""
        method = stubs.JobsStub(self.channel()).GetJob
        job: pb.Job = await self._call(method, plain_request(pb.GetJobRequest, id=job_id))
        return job

    async def jobs(self, state: str = "", limit: int | None = None) -> list[pb.Job]:
        """The newest first; of a state only, if one is named: queued, running, done, cancelled, failed."""
        method = stubs.JobsStub(self.channel()).ListJobs
        return list((await self._call(method, plain_request(pb.ListJobsRequest, state=state, limit=limit))).jobs)

    def stream_job(self, job_id: str, offset: int = 0) -> AsyncJobAnswer:
        """A job's answer from a token on, as it comes; leaving the loop ends nothing."""
        request = plain_request(pb.StreamJobRequest, id=job_id, offset=offset)
        return AsyncJobAnswer(self, lambda channel: stubs.JobsStub(channel).StreamJob, request)

    async def cancel_job(self, job_id: str) -> bool:
        """End a job; False when it has ended already."""
        method = stubs.JobsStub(self.channel()).CancelJob
        return bool((await self._call(method, plain_request(pb.CancelJobRequest, id=job_id))).cancelled)

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

    async def pin(self, model: str, pinned: bool = True) -> bool:
        """Have a model stay once it is loaded, whoever wants its memory; True when it was pinned before."""
        method = stubs.ModelsStub(self.channel()).Pin
        return bool((await self._call(method, plain_request(pb.PinRequest, model=model, pinned=pinned))).was_pinned)

    def pull(self, repo: str, file: str = "", **options: Unpack[PullOptions]) -> AsyncStream[pb.PullProgress]:
        """Get a model from the hub. Iterate to see how it goes on, or `await .wait()`; leaving early stops it."""
        request = pull_request(repo, file, options)
        return AsyncStream(self, lambda channel: stubs.ModelsStub(channel).PullModel, request)

    async def set_alias(self, alias: str, model: str) -> str:
        """Another name for a model, "" takes it away; returns what it stood for, or ""."""
        method = stubs.ModelsStub(self.channel()).SetAlias
        answer = await self._call(method, plain_request(pb.SetAliasRequest, alias=alias, model=model))
        return str(answer.previous_model)

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

    def events(self, after: int | None = None, severity: str = "", follow: bool = True) -> AsyncStream[pb.Event]:
        """What is kept of what happened after the event `after`, oldest first; then, to `follow`, what happens."""
        request = plain_request(pb.WatchEventsRequest, after=after, severity=severity, follow=follow)
        return AsyncStream(self, lambda channel: stubs.MonitorStub(channel).WatchEvents, request)

    async def whoami(self) -> pb.WhoAmIResponse:
        """How the daemon sees this client."""
        answer: pb.WhoAmIResponse = await self._call(stubs.MonitorStub(self.channel()).WhoAmI, pb.WhoAmIRequest())
        return answer

    async def drain(self, draining: bool = True) -> bool:
        """Have no new request taken in, or requests again; what is there goes on. True when it was draining before."""
        method = stubs.AdminStub(self.channel()).Drain
        return bool((await self._call(method, plain_request(pb.DrainRequest, draining=draining))).was_draining)

    async def reload(self) -> pb.ReloadResponse:
        """Have the config read again: which settings are others now, and which will be from the daemon's next start."""
        answer: pb.ReloadResponse = await self._call(stubs.AdminStub(self.channel()).Reload, pb.ReloadRequest())
        return answer

    async def create_token(
        self, name: str, role: str = "user", *, tenant: str = "", ttl_s: float | None = None
    ) -> pb.CreateTokenResponse:
        """A new token, which is told here once; see Client.create_token."""
        request = plain_request(pb.CreateTokenRequest, name=name, role=role, tenant=tenant, ttl_s=ttl_s)
        made: pb.CreateTokenResponse = await self._call(stubs.AdminStub(self.channel()).CreateToken, request)
        return made

    async def tokens(self) -> list[pb.TokenInfo]:
        """Every token, oldest first; needs the role admin."""
        method = stubs.AdminStub(self.channel()).ListTokens
        return list((await self._call(method, pb.ListTokensRequest())).tokens)

    async def revoke_token(self, token_id: str) -> bool:
        """End a token and the calls that came with it; False when there is none of this id or name."""
        method = stubs.AdminStub(self.channel()).RevokeToken
        return bool((await self._call(method, plain_request(pb.RevokeTokenRequest, id=token_id))).revoked)

    def channel(self) -> grpc.aio.Channel:
        """The channel of the running loop: one belongs to the loop that it was made on."""
        if self._closed:
            raise RuntimeError("this client is closed")
        loop = asyncio.get_running_loop()
        if self._channel is None or self._loop is not loop:
            options = channel_options(self.address, self.connect_timeout_s)
            where, tls, aio = target(self.address), self._tls, grpc.aio
            channel = aio.insecure_channel(where, options) if tls is None else aio.secure_channel(where, tls, options)
            self._channel, self._loop = channel, loop
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
