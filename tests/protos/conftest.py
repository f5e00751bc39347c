"""A daemon that says what a test wrote for it, on a real Unix socket."""

from __future__ import annotations

import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from inferd.protos import inferd_pb2 as pb
from inferd.protos import inferd_pb2_grpc as stubs
from inferd.protos.address import target

Step = pb.GenerateResponse | Callable[[grpc.ServicerContext], None]


def queued(position: int, why: str = "slot") -> pb.GenerateResponse:
    return pb.GenerateResponse(queued=pb.Queued(request_id="r1", position=position, why=why))


def started(cached: int = 2) -> pb.GenerateResponse:
    event = pb.Started(request_id="r1", model="demo", prompt_tokens=5, cached_tokens=cached, device="cpu", seed=7)
    return pb.GenerateResponse(started=event)


def delta(text: str, index: int = 0, choice: int = 0) -> pb.GenerateResponse:
    return pb.GenerateResponse(delta=pb.Delta(index=index, text=text, tokens=[index + 10], choice=choice))


def finished(tokens: int = 2, reason: pb.FinishReason.ValueType = pb.STOP, choice: int = 0) -> pb.GenerateResponse:
    usage = pb.Usage(prompt_tokens=5, cached_tokens=2, completion_tokens=tokens)
    timings = pb.Timings(queue_ms=1, ttft_ms=20, tpot_ms=10, itl_max_ms=12, e2e_ms=30, prefill_ms=4, decode_ms=5)
    ending = pb.Finished(finish_reason=reason, usage=usage, timings=timings, choice=choice)
    return pb.GenerateResponse(finished=ending)


HELLO: list[Step] = [started(), delta("hello"), delta(" world", 1), finished()]


def fail(
    status: grpc.StatusCode, code: str, message: str, retry_ms: int | None = None, **details: str
) -> Callable[[grpc.ServicerContext], None]:
    """A step that refuses in the way the daemon does."""
    parts = [error_details_pb2.ErrorInfo(reason=code, domain="inferd", metadata=details)]
    if retry_ms is not None:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(retry_ms)
        parts.append(error_details_pb2.RetryInfo(retry_delay=delay))
    packed = [any_pb2.Any() for _ in parts]
    for box, part in zip(packed, parts, strict=True):
        box.Pack(part)
    rich = status_pb2.Status(code=status.value[0], message=message, details=packed)

    def step(context: grpc.ServicerContext) -> None:
        context.abort_with_status(rpc_status.to_status(rich))

    return step


class ScriptedDaemon(
    stubs.InferenceServicer, stubs.ModelsServicer, stubs.MonitorServicer, stubs.AdminServicer, stubs.JobsServicer
):
    """Plays `script` to every Generate; keeps what it was asked, and knows when a call has ended."""

    def __init__(self, folder: Path) -> None:
        self.address = f"unix:{folder}/d.sock"
        self.script: list[Step] = list(HELLO)
        self.requests: list[pb.GenerateRequest] = []
        self.metadata: list[dict[str, str | bytes]] = []
        self.asked: list[Any] = []
        self.arrived = threading.Event()  # a Generate
        self.ended = threading.Event()
        self.progress = [pb.LoadProgress(state="loading", progress=0.5)]
        self.progress.append(pb.LoadProgress(state="ready", progress=1, load_ms=120, device="cpu"))
        self.catalog = [pb.ModelInfo(name="demo", state="cold", architecture="llama", parameters=5_000_000)]
        self.refusal: Callable[[grpc.ServicerContext], None] | None = None  # of every unary call and load
        self.seen = pb.Snapshot(version="0.1.0", uptime_s=5, sequence=1)
        self.plan = pb.PlanLoadResponse(model="demo", outcome="fits", devices=["cpu"], load_ms=1500)
        self.plan.pools.add(pool="host", needed_bytes=64 << 20, free_bytes=1 << 30)
        self.records: list[pb.DecisionRecord] = []
        ready = pb.Event(
            sequence=8, unix_s=1.5, severity="info", kind="model_ready", message="demo is ready", model="demo"
        )
        drains = pb.Event(sequence=9, unix_s=2.5, severity="warning", kind="draining", message="nothing is taken in")
        self.happened = [ready, drains]
        self.pulled = [
            pb.PullProgress(state="resolving"),
            pb.PullProgress(state="fetching", bytes=1 << 20, total_bytes=4 << 20, bytes_per_s=2e6, file="T.gguf"),
            pb.PullProgress(
                state="ready", bytes=4 << 20, total_bytes=4 << 20, model="t", file="T.gguf", why="a reason", sha256="ab"
            ),
        ]
        self.job = pb.Job(id="j1", state="running", model="demo", tenant="default", priority="batch", tokens=2)
        self.job.created_unix_s = 1.0
        self.outputs: list[pb.JobOutput | Callable[[grpc.ServicerContext], None]] = [
            pb.JobOutput(delta=pb.Delta(index=0, text="hello", tokens=[10])),
            pb.JobOutput(delta=pb.Delta(index=1, text=" world", tokens=[11])),
            pb.JobOutput(ended=pb.Job(id="j1", state="done", tokens=2, finish_reason=pb.STOP)),
        ]
        self.already = False  # what is pinned or drained was so before
        self.tokens = [pb.TokenInfo(id="0a1b2c3d", name="ada", role="user", tenant="team-a", created_unix_s=1.5)]
        self._server: grpc.Server | None = None

    def start(self) -> None:
        self._server = grpc.server(futures.ThreadPoolExecutor(8))
        stubs.add_InferenceServicer_to_server(self, self._server)
        stubs.add_ModelsServicer_to_server(self, self._server)
        stubs.add_MonitorServicer_to_server(self, self._server)
        stubs.add_AdminServicer_to_server(self, self._server)
        stubs.add_JobsServicer_to_server(self, self._server)
        self._server.add_insecure_port(target(self.address))
        self._server.start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop(None).wait()

    def forever(self, context: grpc.ServicerContext) -> None:
        """A step that says nothing until the call has ended."""
        if context.add_callback(self.ended.set):
            self.ended.wait(10)

    def Generate(self, request: Any, context: Any) -> Iterator[Any]:
        self.requests.append(request)
        self.metadata.append({item.key: item.value for item in context.invocation_metadata()})
        context.add_callback(self.ended.set)
        self.arrived.set()
        for step in self.script:
            if callable(step):
                step(context)
            else:
                yield step

    def Tokenize(self, request: Any, context: Any) -> Any:
        self._ask(request, context)
        return pb.TokenizeResponse(tokens=[1, 2, 3])

    def Embed(self, request: Any, context: Any) -> Any:
        self._ask(request, context)
        vectors = [pb.Embedding(values=[float(i), 0.5]) for i in range(len(request.inputs))]
        ending = finished().finished
        return pb.EmbedResponse(
            request_id="r1", model="demo", embeddings=vectors, usage=ending.usage, timings=ending.timings
        )

    def Rerank(self, request: Any, context: Any) -> Any:
        self._ask(request, context)
        n = len(request.documents)
        results = [pb.RerankResult(index=n - 1 - i, relevance_score=0.5 - i) for i in range(request.top_n or n)]
        ending = finished().finished
        return pb.RerankResponse(
            request_id="r1", model="demo", results=results, usage=ending.usage, timings=ending.timings
        )

    def Cancel(self, request: Any, context: Any) -> Any:
        self._ask(request, context)
        return pb.CancelResponse(cancelled=request.request_id == "r1")

    def SetPriority(self, request: Any, context: Any) -> Any:
        self._ask(request, context)
        return pb.SetPriorityResponse(changed=request.request_id == "r1")

    def ListModels(self, request: Any, context: Any) -> Any:
        self._ask(request, context)
        return pb.ListModelsResponse(models=self.catalog)

    def LoadModel(self, request: Any, context: Any) -> Iterator[Any]:
        self._ask(request, context)
        yield from self.progress

    def UnloadModel(self, request: Any, context: Any) -> Any:
        self._ask(request, context)
        return pb.UnloadModelResponse(was_loaded=request.model == "demo")

    def PlanLoad(self, request: Any, context: Any) -> Any:
        self._ask(request, context)
        return self.plan

    def Lease(self, request: Any, context: Any) -> Iterator[Any]:
        self._ask(request, context)
        context.add_callback(self.ended.set)
        yield pb.LeaseState(state="ready", device="cpu")
        self.ended.wait(10)

    def Pin(self, request: Any, context: Any) -> Any:
        self._ask(request, context)
        return pb.PinResponse(was_pinned=request.pinned is self.already)

    def PullModel(self, request: Any, context: Any) -> Iterator[Any]:
        self._ask(request, context)
        yield from self.pulled

    def SetAlias(self, request: Any, context: Any) -> Any:
        self._ask(request, context)
        return pb.SetAliasResponse(previous_model="old" if self.already or not request.model else "")

    def Drain(self, request: Any, context: Any) -> Any:
        self._ask(request, context)
        return pb.DrainResponse(was_draining=request.draining is self.already)

    def Reload(self, request: Any, context: Any) -> Any:
        self._ask(request, context)
        return pb.ReloadResponse(changed=["queue.max_requests", "log_level"], needs_restart=["fake.enabled"])

    def SubmitJob(self, request: Any, context: Any) -> Any:
        self._ask(request, context)
        return self.job

    def GetJob(self, request: Any, context: Any) -> Any:
        self._ask(request, context)
        return self.job

    def ListJobs(self, request: Any, context: Any) -> Any:
        self._ask(request, context)
        return pb.ListJobsResponse(jobs=[self.job] if request.state in ("", self.job.state) else [])

    def CancelJob(self, request: Any, context: Any) -> Any:
        self._ask(request, context)
        return pb.CancelJobResponse(cancelled=request.id == "j1")

    def StreamJob(self, request: Any, context: Any) -> Iterator[Any]:
        self._ask(request, context)
        for output in self.outputs:
            if callable(output):
                output(context)
            elif not output.HasField("delta") or output.delta.index >= request.offset:
                yield output

    def CreateToken(self, request: Any, context: Any) -> Any:
        self._ask(request, context)
        tenant = request.tenant or request.name
        info = pb.TokenInfo(id="0a1b2c3d", name=request.name, role=request.role, tenant=tenant, created_unix_s=1.5)
        return pb.CreateTokenResponse(token="inferd_0a1b2c3d_secret", info=info)

    def ListTokens(self, request: Any, context: Any) -> Any:
        self._ask(request, context)
        return pb.ListTokensResponse(tokens=self.tokens)

    def RevokeToken(self, request: Any, context: Any) -> Any:
        self._ask(request, context)
        return pb.RevokeTokenResponse(revoked=request.id == "ada")

    def WhoAmI(self, request: Any, context: Any) -> Any:
        self._ask(request, context)
        metadata = {item.key: item.value for item in context.invocation_metadata()}
        self.metadata.append(metadata)
        return pb.WhoAmIResponse(tenant=str(metadata.get("inferd-tenant", "default")), role="operator")

    def WatchEvents(self, request: Any, context: Any) -> Iterator[Any]:
        self._ask(request, context)
        context.add_callback(self.ended.set)
        yield from self.happened
        if request.follow:
            self.ended.wait(10)

    def Explain(self, request: Any, context: Any) -> Any:
        self._ask(request, context)
        return pb.ExplainResponse(request_id=request.request_id, records=self.records)

    def GetSnapshot(self, request: Any, context: Any) -> Any:
        self._ask(request, context)
        return self.seen

    def Watch(self, request: Any, context: Any) -> Iterator[Any]:
        self._ask(request, context)
        context.add_callback(self.ended.set)
        while not self.ended.is_set():
            yield self.seen
            self.ended.wait(0.01)

    def _ask(self, request: Any, context: Any) -> None:
        self.asked.append(request)
        if self.refusal is not None:
            self.refusal(context)


@pytest.fixture
def quiet_daemon() -> Iterator[ScriptedDaemon]:
    """Not started yet. Its folder is not tmp_path: a socket's path has at most 107 bytes."""
    with tempfile.TemporaryDirectory() as folder:
        daemon = ScriptedDaemon(Path(folder))
        yield daemon
        daemon.stop()


@pytest.fixture
def daemon(quiet_daemon: ScriptedDaemon) -> ScriptedDaemon:
    quiet_daemon.start()
    return quiet_daemon


@pytest.fixture
def steps() -> Any:
    """This file's own names: tests are imported one by one and cannot import each other."""
    return sys.modules[__name__]
