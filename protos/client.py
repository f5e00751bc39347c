"""The way to dial the daemon from Python: `Client().generate("demo", "hello").text()`."""

from __future__ import annotations

import time
import weakref
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
import grpc.experimental

from . import inferd_pb2 as pb
from . import inferd_pb2_grpc as stubs
from .address import channel_options, resolve, target
from .compose import generate_request, plain_request, priority_request, pull_request, tokenize_request
from .credentials import metadata_of, tls_of
from .jobs import JobAnswer, job_request
from .patience import CONNECT_TIMEOUT_S, Patience
from .pooled import Ranking, Vectors, embed_request, rerank_request
from .streams import Generation, Lease, Stream

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Self, Unpack

    from .compose import GenerateOptions, PullOptions
    from .pooled import QueueOptions

T = TypeVar("T")
TIMEOUT_S = 30.0


class Client:
    """A connection to one daemon, opened when first used. Safe to share between threads.

    `token` is sent with each call; default: $INFERD_TOKEN. An address `tls:host:port` is dialled with TLS, and trusts
    $INFERD_CA. `timeout_s` bounds the calls that answer at once. `connect_timeout_s` is how long a daemon that is
    still starting is waited for; then the call raises Unreachable.
    """

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
        options = channel_options(self.address, connect_timeout_s)
        # Events are read by the thread that asks for them: half the cost per token of a thread in between.
        options.append((grpc.experimental.ChannelOptions.SingleThreadedUnaryStream, 1))
        where, tls = target(self.address), tls_of(self.address)
        channel = grpc.insecure_channel(where, options) if tls is None else grpc.secure_channel(where, tls, options)
        self._close = weakref.finalize(self, channel.close)
        self._inference = stubs.InferenceStub(channel)
        self._models = stubs.ModelsStub(channel)
        self._monitor = stubs.MonitorStub(channel)
        self._admin = stubs.AdminStub(channel)
        self._jobs = stubs.JobsStub(channel)

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

    def set_priority(self, request_id: str, priority: str) -> bool:
        """Move a live request to another class: interactive, normal or batch; False when no such request is live."""
        return self._call(self._inference.SetPriority, priority_request(request_id, priority)).changed

    def submit_job(
        self,
        model: str,
        prompt: str | Sequence[Mapping[str, Any]] | Sequence[int],
        *,
        key: str | None = None,
        **options: Unpack[GenerateOptions],
    ) -> pb.Job:
        """Have work done that outlives this client and the daemon; returns when it is on the disk there.

        The options are those of `generate`. With a key a second call finds the job of the first one.
        """
        return self._call(self._jobs.SubmitJob, job_request(model, prompt, key, options))

    def job(self, job_id: str) -> pb.Job:
        """How far a job has come."""
        return self._call(self._jobs.GetJob, plain_request(pb.GetJobRequest, id=job_id))

    def jobs(self, state: str = "", limit: int | None = None) -> list[pb.Job]:
        """The newest first; of a state only, if one is named: queued, running, done, cancelled, failed."""
        return list(self._call(self._jobs.ListJobs, plain_request(pb.ListJobsRequest, state=state, limit=limit)).jobs)

    def stream_job(self, job_id: str, offset: int = 0) -> JobAnswer:
        """A job's answer from a token on, as it comes; leaving the loop ends nothing."""
        return JobAnswer(self, self._jobs.StreamJob, plain_request(pb.StreamJobRequest, id=job_id, offset=offset))

    def cancel_job(self, job_id: str) -> bool:
        """End a job; False when it has ended already."""
        return self._call(self._jobs.CancelJob, plain_request(pb.CancelJobRequest, id=job_id)).cancelled

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

    def pin(self, model: str, pinned: bool = True) -> bool:
        """Have a model stay once it is loaded, whoever wants its memory; True when it was pinned before."""
        return self._call(self._models.Pin, plain_request(pb.PinRequest, model=model, pinned=pinned)).was_pinned

    def pull(self, repo: str, file: str = "", **options: Unpack[PullOptions]) -> Stream[pb.PullProgress]:
        """Get a model from the hub. Iterate to see how it goes on, or `.wait()` for the end; leaving early stops it."""
        return Stream(self, self._models.PullModel, pull_request(repo, file, options))

    def set_alias(self, alias: str, model: str) -> str:
        """Another name for a model, "" takes it away; returns what it stood for, or ""."""
        request = plain_request(pb.SetAliasRequest, alias=alias, model=model)
        return self._call(self._models.SetAlias, request).previous_model

    def explain(self, request_id: str) -> list[pb.DecisionRecord]:
        """The last decisions about a request, oldest first."""
        return list(self._call(self._monitor.Explain, plain_request(pb.ExplainRequest, request_id=request_id)).records)

    def snapshot(self) -> pb.Snapshot:
        """The whole daemon at one moment."""
        return self._call(self._monitor.GetSnapshot, pb.GetSnapshotRequest())

    def watch(self, interval_ms: int | None = None) -> Stream[pb.Snapshot]:
        """Snapshots as they come, the present one first; a slow reader gets only the newest."""
        return Stream(self, self._monitor.Watch, plain_request(pb.WatchRequest, interval_ms=interval_ms))

    def events(self, after: int | None = None, severity: str = "", follow: bool = True) -> Stream[pb.Event]:
        """What is kept of what happened after the event `after`, oldest first; then, to `follow`, what happens."""
        request = plain_request(pb.WatchEventsRequest, after=after, severity=severity, follow=follow)
        return Stream(self, self._monitor.WatchEvents, request)

    def whoami(self) -> pb.WhoAmIResponse:
        """How the daemon sees this client."""
        return self._call(self._monitor.WhoAmI, pb.WhoAmIRequest())

    def drain(self, draining: bool = True) -> bool:
        """Have no new request taken in, or requests again; what is there goes on. True when it was draining before."""
        return self._call(self._admin.Drain, plain_request(pb.DrainRequest, draining=draining)).was_draining

    def reload(self) -> pb.ReloadResponse:
        """Have the config read again: which settings are others now, and which will be from the daemon's next start."""
        return self._call(self._admin.Reload, pb.ReloadRequest())

    def create_token(
        self, name: str, role: str = "user", *, tenant: str = "", ttl_s: float | None = None
    ) -> pb.CreateTokenResponse:
        """A new token, which is told here once; needs the role admin. `ttl_s`: default: it holds for good."""
        request = plain_request(pb.CreateTokenRequest, name=name, role=role, tenant=tenant, ttl_s=ttl_s)
        return self._call(self._admin.CreateToken, request)

    def tokens(self) -> list[pb.TokenInfo]:
        """Every token, oldest first; needs the role admin."""
        return list(self._call(self._admin.ListTokens, pb.ListTokensRequest()).tokens)

    def revoke_token(self, token_id: str) -> bool:
        """End a token and the calls that came with it; False when there is none of this id or name."""
        return self._call(self._admin.RevokeToken, plain_request(pb.RevokeTokenRequest, id=token_id)).revoked

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
