"""The gRPC door of durable jobs."""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ...protos import inferd_pb2 as pb
from ...protos import inferd_pb2_grpc as pb_grpc
from ..domain.durable import DurableJob, Entry, Piece, check_key, check_listed
from ..domain.errors import Code, InferdError
from ..node.stream import Text
from . import wire
from .guard import guarded
from .who import only_tenant, tenant

if TYPE_CHECKING:
    import grpc

    from ..domain.request import Request
    from ..node.node import Node

    Context = grpc.aio.ServicerContext[Any, Any]


class Jobs(pb_grpc.JobsServicer):
    def __init__(self, node: Node) -> None:
        self.durable = node.durable

    @guarded
    async def SubmitJob(self, request: pb.SubmitJobRequest, context: Context) -> pb.Job:
        entry, asked = to_entry(request, tenant(context), time.time())
        return to_job(await self.durable.submit(entry, asked))

    @guarded
    async def GetJob(self, request: pb.GetJobRequest, context: Context) -> pb.Job:
        return to_job(await self.durable.readout.get(request.id, only_tenant(context)))

    @guarded
    async def StreamJob(self, request: pb.StreamJobRequest, context: Context) -> None:
        following = self.durable.readout.follow(request.id, only_tenant(context), request.offset)
        async with contextlib.aclosing(following) as outputs:
            async for output in outputs:
                if isinstance(output, DurableJob):
                    await context.write(pb.JobOutput(ended=to_job(output)))
                else:
                    await context.write(pb.JobOutput(delta=to_delta(output)))

    @guarded
    async def ListJobs(self, request: pb.ListJobsRequest, context: Context) -> pb.ListJobsResponse:
        state, limit = check_listed(request.state, request.limit if request.HasField("limit") else None)
        rows = await self.durable.readout.newest(only_tenant(context), state, limit)
        return pb.ListJobsResponse(jobs=map(to_job, rows))

    @guarded
    async def CancelJob(self, request: pb.CancelJobRequest, context: Context) -> pb.CancelJobResponse:
        return pb.CancelJobResponse(cancelled=await self.durable.cancel(request.id, only_tenant(context)))


def to_entry(wire_request: pb.SubmitJobRequest, tenant: str, unix_s: float) -> tuple[Entry, Request]:
    """What is kept of a job that comes in, and what it asks for. Raises InferdError naming the first wrong field."""
    if not wire_request.HasField("request"):
        raise InferdError(Code.INVALID, "request is missing", field="request")
    key = check_key(wire_request.idempotency_key)
    body = pb.GenerateRequest()
    body.CopyFrom(wire_request.request)
    if body.sampling.n > 1:
        raise InferdError(Code.INVALID, "a job has one completion, so n must be 1", field="n", highest=1)
    digest = hashlib.sha256(body.SerializeToString(deterministic=True)).digest()
    # From here on it is the same request whenever it is read.
    body.request_id = body.request_id or f"j{secrets.token_hex(6)}"
    body.priority = body.priority or pb.BATCH
    if not body.sampling.HasField("seed"):
        body.sampling.seed = secrets.randbits(63)
    (request,) = wire.to_requests(body, tenant)
    job = DurableJob(
        id=request.id,
        tenant=tenant,
        model=request.model,
        priority=request.priority,
        created_s=unix_s,
        digest=digest,
        key=key,
        deadline_s=None if request.deadline_ms is None else unix_s + request.deadline_ms / 1e3,
    )
    return Entry(job, body.SerializeToString()), request


def read_request(body: bytes, job: DurableJob) -> Request:
    """What `to_entry` kept. Raises InferdError where it would not be taken any more."""
    (request,) = wire.to_requests(pb.GenerateRequest.FromString(body), job.tenant)
    return replace(request, priority=job.priority)


def to_job(job: DurableJob) -> pb.Job:
    told = pb.Job(
        id=job.id,
        state=job.state.value,
        model=job.model,
        tenant=job.tenant,
        priority=job.priority.value,
        idempotency_key=job.key,
        created_unix_s=job.created_s,
        ended_unix_s=job.ended_s,
        tokens=job.n_tokens,
        resumed=job.resumed,
        error=job.error,
        code=job.code,
    )
    if job.finish_reason is not None:
        told.finish_reason = wire.FINISH_REASON[job.finish_reason]
        told.usage.prompt_tokens = job.prompt_tokens
        told.usage.cached_tokens = job.cached_tokens
        told.usage.completion_tokens = job.completion_tokens
    return told


def to_delta(piece: Piece) -> pb.Delta:
    calls = [call for _, call in piece.calls]
    return wire.to_response(Text(piece.index, piece.text, piece.tokens, piece.logprobs, calls)).delta
