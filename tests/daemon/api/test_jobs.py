"""The door of durable jobs on a real gRPC server in this process."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from inferd.backends.messages import FinishReason, TokenLogprob
from inferd.daemon.api import jobs as it
from inferd.daemon.api.who import tenant
from inferd.daemon.domain.durable import DurableJob, Piece, State
from inferd.daemon.domain.errors import Code, InferdError
from inferd.daemon.domain.request import Priority
from inferd.daemon.domain.tools import CallPiece
from inferd.daemon.system.store import Store
from inferd.protos import inferd_pb2 as pb
from inferd.protos import inferd_pb2_grpc as stubs
from inferd.tests.daemon.api.house import WAIT_S, House, refused

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def jobs(house: House, folder: Path) -> AsyncIterator[Any]:
    house.node.durable.begin(Store(folder / "state"), it.read_request)
    yield stubs.JobsStub(house.channel)
    await house.node.durable.close()


def ask(prompt: str = "fake:tokens=3", **fields: Any) -> pb.GenerateRequest:
    return pb.GenerateRequest(**{"model": "small", "prompt": prompt, **fields})


async def submit(jobs: Any, request: pb.GenerateRequest, key: str = "", whose: str = "default") -> pb.Job:
    metadata = (("inferd-tenant", whose),)
    wanted = pb.SubmitJobRequest(request=request, idempotency_key=key)
    job: pb.Job = await jobs.SubmitJob(wanted, timeout=WAIT_S, metadata=metadata)
    return job


async def outputs(jobs: Any, job_id: str, offset: int = 0) -> list[pb.JobOutput]:
    wanted = pb.StreamJobRequest(id=job_id, offset=offset)
    return [output async for output in jobs.StreamJob(wanted, timeout=WAIT_S)]


async def test_a_job_is_taken_in_read_and_shown(jobs: Any) -> None:
    job = await submit(jobs, ask())
    assert (job.state, job.model, job.tenant, job.priority, job.tokens) == ("queued", "small", "default", "batch", 0)
    assert not job.HasField("ended_unix_s")
    *deltas, last = await outputs(jobs, job.id)
    assert sum(len(output.delta.tokens) for output in deltas) == 3
    end = last.ended
    assert (end.id, end.state, end.tokens, end.finish_reason) == (job.id, "done", 3, pb.STOP)
    assert (end.usage.prompt_tokens, end.usage.completion_tokens) == (13, 3)
    assert job.created_unix_s <= end.ended_unix_s <= time.time()
    assert await jobs.GetJob(pb.GetJobRequest(id=job.id)) == end
    rest = await outputs(jobs, job.id, offset=2)
    assert [list(output.delta.tokens) for output in rest[:-1]] == [list(deltas[-1].delta.tokens)[-1:]]
    assert (await jobs.ListJobs(pb.ListJobsRequest())).jobs == [end]
    assert (await jobs.ListJobs(pb.ListJobsRequest(state="failed"))).jobs == []
    assert not (await jobs.CancelJob(pb.CancelJobRequest(id=job.id))).cancelled


async def test_it_is_cancelled(jobs: Any) -> None:
    job = await submit(jobs, ask("fake:tokens=1000"))
    assert (await jobs.CancelJob(pb.CancelJobRequest(id=job.id))).cancelled
    (last,) = [output.ended for output in await outputs(jobs, job.id) if output.HasField("ended")]
    assert (last.state, last.code, last.error) == ("cancelled", "cancelled", "the job was cancelled")
    assert not last.HasField("usage")


async def test_a_key_is_the_tenants(jobs: Any) -> None:
    first = await submit(jobs, ask(), "k")
    assert (await submit(jobs, ask(), "k")).id == first.id
    assert (await submit(jobs, ask(), "k", whose="another")).id != first.id
    error = await refused(submit(jobs, ask("fake:tokens=4"), "k"))
    assert (error.code, error.field) == (Code.INVALID, "idempotency_key")


@pytest.mark.parametrize(
    ("request_", "code", "field"),
    [
        (ask(sampling=pb.Sampling(n=2)), Code.INVALID, "n"),
        (ask(""), Code.INVALID, "prompt"),
        (ask(model=""), Code.INVALID, "model"),
        (ask(model="gamma"), Code.NOT_FOUND, "model"),
        (ask(sampling=pb.Sampling(temperature=9)), Code.INVALID, "temperature"),
        (ask(request_id="ä"), Code.INVALID, "request_id"),
    ],
)
async def test_what_cannot_be_is_refused(jobs: Any, request_: pb.GenerateRequest, code: Code, field: str) -> None:
    error = await refused(submit(jobs, request_))
    assert (error.code, error.field) == (code, field)
    assert (await jobs.ListJobs(pb.ListJobsRequest())).jobs == []


async def test_what_is_asked_wrongly_is_refused(jobs: Any) -> None:
    for call, field in (
        (jobs.SubmitJob(pb.SubmitJobRequest()), "request"),
        (jobs.SubmitJob(pb.SubmitJobRequest(request=ask(), idempotency_key="x" * 129)), "idempotency_key"),
        (jobs.ListJobs(pb.ListJobsRequest(state="gone")), "state"),
        (jobs.ListJobs(pb.ListJobsRequest(limit=0)), "limit"),
        (jobs.GetJob(pb.GetJobRequest(id="nobody")), "id"),
        (jobs.CancelJob(pb.CancelJobRequest(id="")), "id"),
        (outputs(jobs, "nobody"), "id"),
        (outputs(jobs, (await submit(jobs, ask("fake:tokens=1000"))).id, 4000), "offset"),
    ):
        assert (await refused(call)).field == field


async def test_who_may_not_see_it_is_told_that_it_is_not_there(jobs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    job = await submit(jobs, ask())
    await outputs(jobs, job.id)
    monkeypatch.setattr(it, "only_tenant", tenant)
    theirs = {"metadata": (("inferd-tenant", "another"),)}
    for call in (
        jobs.GetJob(pb.GetJobRequest(id=job.id), **theirs),
        jobs.CancelJob(pb.CancelJobRequest(id=job.id), **theirs),
    ):
        assert (await refused(call)).code is Code.NOT_FOUND
    assert (await jobs.ListJobs(pb.ListJobsRequest(), **theirs)).jobs == []
    assert len((await jobs.ListJobs(pb.ListJobsRequest())).jobs) == 1


async def test_a_daemon_that_keeps_none_says_so(house: House) -> None:
    jobs: Any = stubs.JobsStub(house.channel)
    assert (await refused(submit(jobs, ask()))).code is Code.UNSUPPORTED


# words


def test_a_request_is_the_same_whenever_it_is_read() -> None:
    wire = ask(sampling=pb.Sampling(top_k=7), deadline_ms=5000, request_id="mine")
    entry, request = it.to_entry(pb.SubmitJobRequest(request=wire, idempotency_key="k"), "t", 100.0)
    job = entry.job
    assert (job.id, job.key, job.priority, job.deadline_s) == ("mine", "k", Priority.BATCH, 105.0)
    assert (request.priority, request.params.top_k) == (Priority.BATCH, 7)
    assert it.read_request(entry.request, job) == request
    again, _ = it.to_entry(pb.SubmitJobRequest(request=wire), "t", 200.0)
    assert again.job.digest == job.digest  # whatever seed was drawn
    other, _ = it.to_entry(pb.SubmitJobRequest(request=ask("x")), "t", 200.0)
    assert other.job.digest != job.digest
    named, _ = it.to_entry(pb.SubmitJobRequest(request=ask(priority=pb.INTERACTIVE)), "t", 0.0)
    assert named.job.priority is Priority.INTERACTIVE


def test_a_request_that_is_not_allowed_any_more_says_so() -> None:
    entry, _ = it.to_entry(pb.SubmitJobRequest(request=ask()), "t", 0.0)
    with pytest.raises(InferdError):
        it.read_request(pb.GenerateRequest(model="small").SerializeToString(), entry.job)


def test_all_of_a_job_is_told() -> None:
    job = DurableJob(
        id="j",
        tenant="t",
        model="m",
        priority=Priority.NORMAL,
        created_s=1.5,
        key="k",
        state=State.FAILED,
        n_tokens=3,
        resumed=2,
        ended_s=2.5,
        code="deadline",
        error="late",
    )
    wire = pb.Job(id="j", state="failed", model="m", tenant="t", priority="normal", idempotency_key="k", tokens=3)
    wire.created_unix_s, wire.ended_unix_s, wire.resumed, wire.code, wire.error = 1.5, 2.5, 2, "deadline", "late"
    assert it.to_job(job) == wire
    assert it.to_job(DurableJob(id="j", tenant="", model="", priority=Priority.BATCH, created_s=0.0)).state == "queued"


@pytest.mark.parametrize("reason", [FinishReason.STOP, FinishReason.LENGTH, FinishReason.TOOL_CALLS])
def test_every_end_has_a_word(reason: FinishReason) -> None:
    job = DurableJob(id="j", tenant="", model="", priority=Priority.BATCH, created_s=0.0, finish_reason=reason)
    assert it.to_job(job).finish_reason != pb.FINISH_REASON_UNSPECIFIED


def test_a_piece_is_a_delta() -> None:
    calls = [(0, CallPiece(0, "i", "f")), (1, CallPiece(0, arguments="{}"))]
    delta = it.to_delta(Piece(4, [1, 2], [1, 1], "ab", calls, [TokenLogprob(1, -0.5, "a", [(3, -2.0, "c")])]))
    assert (delta.index, list(delta.tokens), delta.text) == (4, [1, 2], "ab")
    assert [(call.id, call.name, call.arguments) for call in delta.tool_calls] == [("i", "f", ""), ("", "", "{}")]
    assert delta.logprobs[0].top[0].token == 3
