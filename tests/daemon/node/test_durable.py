"""Durable jobs over the fake engine: each has one result, whatever becomes of the daemon meanwhile."""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from inferd.backends.messages import FinishReason, Tool, ToolUse
from inferd.daemon.domain.config import Jobs, Queue
from inferd.daemon.domain.durable import DurableJob, Entry, Piece, State
from inferd.daemon.domain.errors import Code, InferdError
from inferd.daemon.domain.event import Kind
from inferd.daemon.domain.request import Phase, Priority
from inferd.daemon.domain.tools import join
from inferd.daemon.node import durable as it
from inferd.daemon.node import later, lines
from inferd.daemon.system.store import Store
from inferd.tests.daemon.node.house import GIB, LIMIT_S, SLOW, House, build, failure, first_text
from inferd.tests.daemon.node.test_view import look
from inferd.tests.daemon.system.test_store import full_disk

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from inferd.daemon.domain.request import Request

    Open = Callable[..., "Office"]

T = TypeVar("T")

LONG = "fake:tokens=200"
POLL_S = 0.01
MIB = 2**20


@dataclass
class Office:
    """A house that keeps jobs; `requests` stands for what is read from their bytes."""

    house: House
    folder: Path
    requests: dict[bytes, Request]
    ids: itertools.count[int]
    store: Store = field(init=False)

    def __post_init__(self) -> None:
        self.store = Store(self.folder)
        self.durable.begin(self.store, self.read)

    @property
    def durable(self) -> it.Durable:
        return self.house.node.durable

    def read(self, body: bytes, job: DurableJob) -> Request:
        return replace(self.requests[body], priority=job.priority)

    def entry(self, said: str | None = "fake:tokens=3", key: str = "", **fields: Any) -> tuple[Entry, Request]:
        given = {"priority": Priority.BATCH, "request_id": f"j{next(self.ids)}", **fields}
        deadline_s = given.pop("deadline_s", None)
        request = self.house.request(said, **given)
        self.requests[request.id.encode()] = request
        kept = DurableJob(
            id=request.id,
            tenant=request.tenant,
            model=request.model,
            priority=request.priority,
            created_s=time.time(),
            digest=repr(said).encode(),
            key=key,
            deadline_s=deadline_s,
        )
        return Entry(kept, request.id.encode()), request

    async def submit(self, said: str | None = "fake:tokens=3", key: str = "", **fields: Any) -> DurableJob:
        async with asyncio.timeout(LIMIT_S):
            return await self.durable.submit(*self.entry(said, key, **fields))

    async def get(self, job: DurableJob) -> DurableJob:
        return await self.durable.readout.get(job.id, None)

    async def read_all(self, job: DurableJob, offset: int = 0) -> tuple[list[Piece], DurableJob]:
        """Its answer from a token on, and how it ended."""
        pieces: list[Piece] = []
        async with asyncio.timeout(LIMIT_S):
            async for output in self.durable.readout.follow(job.id, None, offset):
                if isinstance(output, DurableJob):
                    return pieces, output
                pieces.append(output)
        raise AssertionError("it ended without saying how")

    async def tokens_kept(self, job: DurableJob, n: int) -> None:
        """Until so many are on the disk."""
        async with asyncio.timeout(LIMIT_S):
            async for output in self.durable.readout.follow(job.id, None, 0):
                if isinstance(output, DurableJob) or output.end >= n:
                    return

    async def close(self) -> None:
        if not self.durable._closing:
            await self.house.close()
            await self.durable.close()

    async def crash(self) -> None:
        """Nothing is written any more."""
        assert self.durable._task is not None
        self.durable._task.cancel()
        await self.durable.archive.close()
        self.durable._closing = True
        await self.house.close()


@pytest.fixture
async def offices(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Open]:
    """Each has the jobs of the one before it."""
    monkeypatch.setattr(it, "FLUSH_S", 0.02)
    monkeypatch.setattr(it, "RETRY_S", 0.05)
    monkeypatch.setattr(lines, "REST_S", 0.05)
    opened: list[Office] = []
    requests: dict[bytes, Request] = {}
    ids: itertools.count[int] = itertools.count()

    def open_one(**config: Any) -> Office:
        opened.append(Office(build(folder, **config), tmp_path / "state", requests, ids))
        return opened[-1]

    yield open_one
    for office in opened:
        await office.close()


@pytest.fixture
async def office(offices: Open) -> Office:
    return offices()


def text(pieces: list[Piece]) -> str:
    return "".join(piece.text for piece in pieces)


def tokens(pieces: list[Piece]) -> list[int]:
    return [token for piece in pieces for token in piece.tokens]


async def refusal(office: Office, *args: Any, **fields: Any) -> InferdError:
    return await failure(office.submit(*args, **fields))


async def eventually(look: Callable[[], Awaitable[T]], test: Callable[[T], bool]) -> T:
    """Look until it is so."""
    for _ in range(round(LIMIT_S / POLL_S)):
        if test(seen := await look()):
            return seen
        await asyncio.sleep(POLL_S)
    raise AssertionError("it never was so")


async def undisturbed(office: Office, said: str, **fields: Any) -> str:
    """What the same request gets from who waits for it."""
    return await office.house.answer(said, **fields)


# a job's way


async def test_a_job_becomes_a_result(office: Office) -> None:
    job = await office.submit("fake:tokens=7")
    assert (job.state, job.tenant, job.priority, job.n_tokens) == (State.QUEUED, "default", Priority.BATCH, 0)
    pieces, end = await office.read_all(job)
    assert text(pieces) == await undisturbed(office, "fake:tokens=7")
    assert (end.state, end.finish_reason, end.n_tokens) == (State.DONE, FinishReason.STOP, 7)
    assert (end.prompt_tokens, end.completion_tokens, end.resumed) == (13, 7, 0)
    assert end.ended_s is not None
    assert end.created_s <= end.ended_s <= time.time()
    assert await office.get(job) == end
    assert not office.durable.books
    assert not office.durable._busy
    assert office.durable.intake.n_live.total() == 0
    assert len(office.house.node.jobs) == 0


async def test_one_that_runs_says_so_and_grows(offices: Open) -> None:
    office = offices(tokens_per_s=SLOW)
    job = await office.submit(LONG)
    await office.tokens_kept(job, 5)
    shown = await office.get(job)
    assert (shown.state, shown.n_tokens >= 5) == (State.RUNNING, True)
    assert await office.durable.readout.newest(None, State.RUNNING, 9) == [await office.get(job)]
    assert await office.durable.readout.newest(None, State.QUEUED, 9) == []
    assert await office.durable.readout.newest("another", None, 9) == []
    assert [it.id for it in await office.durable.readout.newest("default", None, 9)] == [job.id]


async def test_every_token_can_be_the_first_that_a_reader_asks_for(office: Office) -> None:
    job = await office.submit("fake:tokens=9")
    whole, end = await office.read_all(job)
    words = text(whole).split(" ")
    for offset in range(10):
        pieces, again = await office.read_all(job, offset)
        assert again == end
        assert tokens(pieces) == tokens(whole)[offset:]
        assert text(pieces) == " ".join(words[offset:])
        assert all(piece.index >= offset for piece in pieces)
    error = await failure(office.read_all(job, 10))
    assert (error.code, error.field, error.details) == (Code.INVALID, "offset", {"highest": 9})


async def test_who_reads_while_it_is_written_gets_the_same(offices: Open) -> None:
    office = offices(tokens_per_s=400)
    job = await office.submit("fake:tokens=80")
    first, second = await asyncio.gather(office.read_all(job), office.read_all(job))
    assert len(first[0]) > 1
    assert text(first[0]) == text(second[0]) == await undisturbed(office, "fake:tokens=80")


async def test_text_that_is_held_back_is_kept_with_its_token(office: Office) -> None:
    said = f"fake:say={b'ab st ab sto'.hex()}"
    job = await office.submit(said, params={"stop": ("stop",)})
    pieces, end = await office.read_all(job)
    assert (text(pieces), end.finish_reason) == ("ab st ab sto", FinishReason.STOP)
    assert text((await office.read_all(job, end.n_tokens - 1))[0]) == "sto"
    assert (await office.read_all(job, end.n_tokens))[0] == []


async def test_one_that_fails_says_why(office: Office) -> None:
    job = await office.submit("x" * 9000)
    pieces, end = await office.read_all(job)
    assert (pieces, end.state, end.code) == ([], State.FAILED, "prompt_too_long")
    assert "9,000 tokens" in end.error


# restarts


async def after(office: Office, offices: Open, how: str, **config: Any) -> Office:
    await (office.close() if how == "ended" else office.crash())
    return offices(**config)


@pytest.mark.parametrize("how", ["ended", "killed"])
async def test_a_job_goes_on_at_its_saved_token(offices: Open, how: str) -> None:
    office = offices(tokens_per_s=SLOW)
    job, waits = await office.submit(LONG), await office.submit("fake:tokens=4")
    await office.tokens_kept(job, 10)
    office = await after(office, offices, how, tokens_per_s=2000)
    kept = await office.get(job)
    assert (kept.state, kept.over) in ((State.QUEUED, False), (State.RUNNING, False))
    assert kept.n_tokens >= 10
    pieces, end = await office.read_all(job)
    assert text(pieces) == await undisturbed(office, LONG)
    assert (end.state, end.n_tokens, end.completion_tokens, end.resumed) == (State.DONE, 200, 200, 1)
    computed = office.house.node.meter.total.generation_tokens
    assert computed <= 200 + 200 + 4 - kept.n_tokens  # of the undisturbed one, and of what was left of both jobs
    assert text((await office.read_all(waits))[0]) == await undisturbed(office, "fake:tokens=4")


async def test_many_restarts_are_one_answer(offices: Open) -> None:
    office = offices(tokens_per_s=400)
    jobs = [await office.submit(f"fake:tokens={n}") for n in (60, 90, 120)]
    for i in range(3):
        n = (await office.get(jobs[-1])).n_tokens
        await office.tokens_kept(jobs[-1], min(n + 7, 119))
        office = await after(office, offices, "ended" if i % 2 else "killed", tokens_per_s=400)
    for job, n in zip(jobs, (60, 90, 120), strict=True):
        pieces, end = await office.read_all(job)
        assert text(pieces) == await undisturbed(office, f"fake:tokens={n}")
        assert (end.state, end.n_tokens) == (State.DONE, n)


async def test_nothing_of_a_class_is_waited_for_when_the_daemon_ends(offices: Open) -> None:
    office = offices(tokens_per_s=SLOW)
    job = await office.submit(LONG, priority=Priority.INTERACTIVE)
    await office.tokens_kept(job, 1)
    async with asyncio.timeout(5):
        await office.house.node.drain(60.0)
    await office.durable.close()
    assert (await office_after(offices, job)).priority is Priority.INTERACTIVE


async def office_after(offices: Open, job: DurableJob) -> DurableJob:
    return (await offices().read_all(job))[1]


async def test_those_who_read_learn_that_the_daemon_ends(offices: Open) -> None:
    office = offices(tokens_per_s=SLOW)
    job = await office.submit(LONG)
    reading = asyncio.create_task(failure(office.read_all(job)))
    await office.tokens_kept(job, 3)
    await office.close()
    assert (await reading).code is Code.SHUTTING_DOWN
    assert (await failure(office.submit())).code is Code.SHUTTING_DOWN


async def test_calls_go_on_where_they_were(offices: Open) -> None:
    said = '<tool_call>\n{"name": "f", "arguments": {"text": "' + "long " * 30 + '"}}\n</tool_call> and more'
    use = ToolUse((Tool("f", "", ""),))
    given: dict[str, Any] = {"tools": use, "said": f"fake:say={said.encode().hex()}"}
    office = offices(tokens_per_s=SLOW)
    job = await office.submit(**given)
    await office.tokens_kept(job, 70)
    office = await after(office, offices, "killed", tokens_per_s=2000)
    pieces, end = await office.read_all(job)
    told = join([], [replace(call) for piece in pieces for _, call in piece.calls])
    assert end.finish_reason is FinishReason.TOOL_CALLS
    (call,) = told
    assert (call.name, call.arguments) == ("f", '{"text": "' + "long " * 30 + '"}')
    assert len(call.id) == 9
    assert text(pieces) == " and more"
    again = await office.read_all(job)
    assert again == (pieces, end)


async def test_a_prompt_is_read_once(offices: Open) -> None:
    office = offices(tokens_per_s=SLOW)
    job = await office.submit(None, prompt=LONG)
    await office.tokens_kept(job, 3)
    await office.crash()
    office.requests[job.id.encode()] = replace(office.requests[job.id.encode()], prompt="another text by now")
    office = offices()
    _, end = await office.read_all(job)
    assert (end.n_tokens, end.prompt_tokens) == (200, len(LONG))


async def test_a_model_that_is_gone_fails_its_jobs(offices: Open, folder: Path) -> None:
    office = offices(tokens_per_s=SLOW)
    job = await office.submit(LONG, model="beta")
    await office.tokens_kept(job, 1)
    office_closed = office.crash()
    await office_closed
    (folder / "beta.gguf").unlink()
    end = await office_after(offices, job)
    assert (end.state, end.code, end.n_tokens >= 1) == (State.FAILED, "not_found", True)


async def test_what_is_damaged_on_the_disk_fails_its_job_alone(offices: Open, tmp_path: Path) -> None:
    office = offices(tokens_per_s=SLOW)
    job, other = await office.submit(LONG), await office.submit(LONG)
    await office.tokens_kept(job, 10)
    await office.close()
    with closing(sqlite3.connect(tmp_path / "state" / "jobs.db")) as db:
        db.execute("UPDATE pieces SET text = 'x' WHERE job = ? AND at = 0", (job.id,))
        db.commit()
    office = offices()
    assert (await office.read_all(other))[1].state is State.DONE
    end = await eventually(lambda: office.get(job), lambda shown: shown.over)
    assert (end.state, end.code) == (State.FAILED, "internal")
    assert (await failure(office.read_all(job))).code is Code.INTERNAL


async def test_a_row_that_cannot_be_read_fails_its_job_alone(offices: Open, tmp_path: Path) -> None:
    office = offices(tokens_per_s=SLOW)
    bad, lost, other = [await office.submit(LONG) for _ in range(3)]
    await office.close()
    with closing(sqlite3.connect(tmp_path / "state" / "jobs.db")) as db:
        db.execute("UPDATE jobs SET priority = 'batcj' WHERE id = ?", (bad.id,))
        db.execute("UPDATE jobs SET tenant = CAST(x'ec' AS TEXT) WHERE id = ?", (lost.id,))
        db.commit()
    office = offices()
    assert (await office.read_all(other))[1].state is State.DONE
    end = await office.get(bad)
    assert (end.state, end.code) == (State.FAILED, "internal")
    assert (await failure(office.get(lost))).code is Code.INTERNAL
    assert {one.id for one in await office.durable.readout.newest(None, None, 9)} == {bad.id, other.id}


# who may what


async def test_a_key_finds_the_first_job(office: Office) -> None:
    first = await office.submit(key="k")
    _, end = await office.read_all(first)
    assert await office.submit(key="k") == end
    other = await office.submit(key="k", tenant="another")
    assert other.id != first.id
    error = await refusal(office, "fake:tokens=4", key="k")
    assert (error.code, error.field) == (Code.INVALID, "idempotency_key")
    assert first.id in error.message


async def test_a_key_that_comes_twice_at_once_is_one_job(office: Office) -> None:
    jobs = await asyncio.gather(*(office.submit(key="k") for _ in range(5)))
    assert len({job.id for job in jobs}) == 1
    await office.read_all(jobs[0])
    assert office.house.node.meter.total.requests_finished == 1
    assert office.durable.intake.n_live.total() == 0


async def test_an_id_is_given_once(office: Office) -> None:
    job = await office.submit(request_id="mine")
    await office.read_all(job)
    error = await refusal(office, request_id="mine")
    assert (error.code, error.field) == (Code.INVALID, "request.request_id")


async def test_a_job_of_another_tenant_does_not_exist(office: Office) -> None:
    job = await office.submit()
    nobody = await failure(office.durable.readout.get("nobody", "other"))
    for call in (office.durable.readout.get, office.durable.cancel):
        error = await failure(call(job.id, "other"))
        assert (error.code, error.message) == (nobody.code, nobody.message)
    assert (await office.durable.readout.get(job.id, "default")).id == job.id


# how many


async def test_the_scheduler_gets_a_few_at_a_time_and_its_queue_stays_open(offices: Open) -> None:
    office = offices(tokens_per_s=SLOW, queue=Queue(max_requests=40), options={"slots": 1})
    blocker = office.house.submit(LONG)
    await first_text(blocker)
    jobs = [await office.submit() for _ in range(60)]
    await office.house.until(lambda: len(office.house.node.jobs) > it.WINDOW)
    await office.durable._feed()
    waiting = [job for job in office.house.node.jobs if job.phase is Phase.QUEUED]
    assert len(waiting) == it.WINDOW + 1
    office.house.node.cancel(blocker.job.id)
    ends = [(await office.read_all(job))[1].state for job in jobs]
    assert ends == [State.DONE] * 60


async def test_tenants_do_not_wait_for_each_others_jobs(offices: Open) -> None:
    office = offices(tokens_per_s=SLOW, options={"slots": 1})
    many = [await office.submit("fake:tokens=10") for _ in range(40)]
    one = await office.submit("fake:tokens=10", tenant="another")
    await office.read_all(one)
    assert len([job for job in many if (await office.get(job)).over]) < 10


@pytest.mark.parametrize(
    ("options", "said"), [({"max_jobs": 3}, "there are 3 jobs"), ({"max_jobs_per_tenant": 3}, "this tenant has 3 jobs")]
)
async def test_there_are_so_many_at_most(offices: Open, options: dict[str, Any], said: str) -> None:
    office = offices(tokens_per_s=SLOW, jobs=Jobs(**options))
    jobs = [await office.submit(LONG) for _ in range(3)]
    error = await refusal(office)
    assert (error.code, error.retry_after_ms) == (Code.QUEUE_FULL, 10_000)
    assert said in error.message
    assert await office.durable.cancel(jobs[0].id, None)
    await office.submit(LONG)


async def test_what_has_ended_and_may_be_read_is_not_given_up_for_a_new_one(offices: Open) -> None:
    office = offices(jobs=Jobs(max_bytes=1))
    error = await refusal(office)
    assert (error.code, error.field) == (Code.NO_DISK, None)
    assert "at most 1 may be taken" in error.message


async def test_a_tenant_has_its_share_of_the_bytes(offices: Open) -> None:
    office = offices(tokens_per_s=SLOW, jobs=Jobs(max_bytes=10 * MIB, tenant_share=0.1))
    entry, request = office.entry(LONG)
    large = Entry(entry.job, entry.request + bytes(MIB))
    office.requests[large.request] = request
    await office.durable.submit(large, request)
    error = await refusal(office)
    assert (error.code, error.details["limit"], error.retry_after_ms) == (Code.NO_DISK, MIB, 60_000)
    assert "the jobs of this tenant take" in error.message
    await office.submit(tenant="another")
    assert await office.durable.cancel(entry.job.id, None)  # what was asked for goes with it
    await office.submit()


async def test_old_jobs_are_forgotten(offices: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(it, "PRUNE_S", 0.01)
    office = offices(jobs=Jobs(keep_s=1.0))
    job = await office.submit(key="k")
    await office.read_all(job)
    newest = office.durable.readout.newest
    await eventually(lambda: newest(None, None, 9), lambda jobs: not jobs)
    assert (await failure(office.get(job))).code is Code.NOT_FOUND
    assert (await office.submit(key="k")).id != job.id


async def test_what_the_queue_has_no_room_for_waits(offices: Open) -> None:
    office = offices(tokens_per_s=SLOW, queue=Queue(max_requests=1), options={"slots": 1})
    runs = office.house.submit("fake:tokens=30")
    await first_text(runs)
    waits = office.house.submit("fake:tokens=1")  # the queue is full
    jobs = [await office.submit() for _ in range(3)]
    ends = [(await office.read_all(job))[1] for job in jobs]
    assert [end.state for end in ends] == [State.DONE] * 3
    assert not waits.job.live


async def test_what_pressure_sends_away_comes_back(offices: Open) -> None:
    office = offices(tokens_per_s=SLOW, options={"slots": 1})
    first, second = await office.submit("fake:tokens=20"), await office.submit()
    await office.tokens_kept(first, 1)
    node = office.house.node
    node.carry_out(node.scheduler.on_pressure(50.0, time.monotonic()))
    assert not [job for job in node.jobs if job.phase is Phase.QUEUED]
    node.scheduler.desk.pressure = 0
    assert (await office.read_all(second))[1].state is State.DONE


async def test_one_whose_id_is_live_lets_the_others_go_first(offices: Open) -> None:
    office = offices(tokens_per_s=SLOW)
    office.durable.hold()
    job = await office.submit(request_id="mine")
    runs = office.house.submit(LONG, request_id="mine")
    others = [await office.submit() for _ in range(3)]
    office.durable.go_on()
    for other in others:
        assert (await office.read_all(other))[1].state is State.DONE
    assert (await office.get(job)).state is State.QUEUED
    assert office.house.told(Kind.REFUSED) == []  # nobody is told, as nobody asks
    assert office.house.node.cancel(runs.job.id)
    assert (await office.read_all(job))[1].state is State.DONE


async def test_an_id_that_is_live_is_not_taken_in(offices: Open) -> None:
    office = offices(tokens_per_s=SLOW)
    office.house.submit(LONG, request_id="mine")
    error = await refusal(office, request_id="mine")
    assert (error.code, error.field) == (Code.INVALID, "request.request_id")
    assert not office.durable.books


async def test_a_model_that_finds_no_room_for_now_is_waited_for(offices: Open) -> None:
    office = offices(host_bytes=16 * MIB)
    job = await office.submit()
    await office.house.until(lambda: bool(office.durable._later._ails))
    assert (await office.get(job)).state is State.QUEUED
    office.house.node.ledger.add_pool("host", 64 * GIB, 0)
    assert (await office.read_all(job))[1].state is State.DONE


async def test_but_not_for_ever(offices: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(later, "PATIENCE_S", 0.2)
    office = offices(host_bytes=16 * MIB)
    job = await office.submit()
    end = (await office.read_all(job))[1]
    assert (end.state, end.code) == (State.FAILED, "no_room")
    assert end.ended_s is not None
    assert end.ended_s - end.created_s >= 0.2


async def test_jobs_are_taken_in_and_not_started_before_it_is_known_where(office: Office) -> None:
    office.durable.hold()
    jobs = [await office.submit() for _ in range(3)]
    assert office.durable._busy == {}
    assert len(office.durable.books) == 3
    office.durable.go_on()
    for job in jobs:
        assert (await office.read_all(job))[1].state is State.DONE


async def test_drained_by_an_operator_nothing_new_is_taken_in(office: Office) -> None:
    office.house.node.draining = True
    assert (await refusal(office)).code is Code.DRAINING
    assert (await refusal(office, model="gamma")).code is Code.DRAINING
    office.house.node.draining = False
    assert (await refusal(office, model="gamma")).code is Code.NOT_FOUND


# the end of one


async def test_one_that_waits_is_cancelled(offices: Open) -> None:
    office = offices(tokens_per_s=SLOW, options={"slots": 1})
    blocker, job = await office.submit(LONG), await office.submit()
    await office.tokens_kept(blocker, 1)
    assert await office.durable.cancel(job.id, None)
    shown = await office.get(job)
    assert (shown.state, shown.code) == (State.CANCELLED, "cancelled")
    assert not await office.durable.cancel(job.id, None)


async def test_one_that_runs_is_cancelled_and_keeps_what_it_has(offices: Open) -> None:
    office = offices(tokens_per_s=400)
    job = await office.submit(LONG)
    await office.tokens_kept(job, 5)
    assert await office.durable.cancel(job.id, None)
    pieces, end = await office.read_all(job)
    assert end.state is State.CANCELLED
    assert len(tokens(pieces)) == end.n_tokens >= 5
    assert (await undisturbed(office, LONG)).startswith(text(pieces))
    assert not await office.durable.cancel(job.id, None)


async def test_one_that_was_sent_away_just_now_is_cancelled(offices: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    office = offices(tokens_per_s=SLOW, options={"slots": 1})
    node, blocker, job = office.house.node, await office.submit(LONG), await office.submit(LONG)
    await office.tokens_kept(blocker, 1)
    await office.house.until(lambda: office.durable.books[job.id].tape is not None)

    async def sends_away(*_: object) -> None:
        node.carry_out(node.scheduler.on_pressure(50.0, time.monotonic()))
        node.scheduler.desk.pressure = 0
        tape = office.durable.books[job.id].tape
        assert tape is not None
        assert tape.over

    with monkeypatch.context() as patch:
        patch.setattr(office.durable.readout, "get", sends_away)
        async with asyncio.timeout(LIMIT_S):
            assert await office.durable.cancel(job.id, None)
    assert (await office.get(job)).state is State.CANCELLED


async def test_one_beyond_the_window_is_cancelled(offices: Open) -> None:
    office = offices(tokens_per_s=SLOW, options={"slots": 1})
    jobs = [await office.submit(LONG) for _ in range(30)]
    assert await office.durable.cancel(jobs[-1].id, None)
    for job in jobs[:-1]:
        await office.durable.cancel(job.id, None)
    assert (await office.get(jobs[-1])).state is State.CANCELLED
    assert not office.durable.books


async def test_it_is_cancelled_like_any_request_too(offices: Open) -> None:
    office = offices(tokens_per_s=SLOW)
    job = await office.submit(LONG)
    await office.tokens_kept(job, 1)
    assert office.house.node.controls.cancel(job.id)
    assert (await office.read_all(job))[1].state is State.CANCELLED


async def test_one_beyond_the_window_is_cancelled_like_any_request(offices: Open) -> None:
    office = offices(tokens_per_s=SLOW, options={"slots": 1})
    jobs = [await office.submit(LONG) for _ in range(30)]
    last, controls = jobs[-1], office.house.node.controls
    await office.house.until(lambda: len(office.house.node.jobs) > 1)
    assert not controls.cancel(last.id)
    assert controls.tenant_of(last.id) == last.tenant
    assert not await office.durable.cancel_waiting(last.id, "somebody else")
    assert await office.durable.cancel_waiting(last.id, last.tenant)
    assert (await office.get(last)).state is State.CANCELLED
    assert controls.tenant_of(last.id) is None
    assert not await office.durable.cancel_waiting(last.id, last.tenant)


async def test_one_beyond_the_window_is_moved_to_another_class_and_is_before_all_others(offices: Open) -> None:
    office = offices(tokens_per_s=SLOW, options={"slots": 1})
    jobs = [await office.submit(LONG) for _ in range(30)]
    last = jobs[-1]
    assert not await office.durable.move_waiting(last.id, Priority.INTERACTIVE, "somebody else")
    assert not await office.durable.move_waiting("nobody", Priority.INTERACTIVE, None)
    assert await office.durable.move_waiting(last.id, Priority.INTERACTIVE, None)
    assert (await office.get(last)).priority is Priority.INTERACTIVE
    await office.tokens_kept(last, 1)
    assert not (await office.get(jobs[-2])).n_tokens
    office = await after(office, offices, "killed")
    assert (await office.get(last)).priority is Priority.INTERACTIVE


async def test_one_that_is_moved_again_as_that_is_written_is_moved_again(
    offices: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    office = offices(tokens_per_s=SLOW, options={"slots": 1})
    durable = office.durable
    last = [await office.submit(LONG) for _ in range(30)][-1]
    again: list[asyncio.Task[bool]] = []

    async def ask(function: Any, *args: Any) -> Any:
        found = await archive_ask(function, *args)
        if function is Store.commit and any(step.job.id == last.id for step in args[1]) and not again:
            again.append(asyncio.create_task(durable.move_waiting(last.id, Priority.INTERACTIVE, None)))
            await asyncio.sleep(0)
        return found

    archive_ask = durable.archive.ask
    monkeypatch.setattr(durable.archive, "ask", ask)
    async with asyncio.timeout(LIMIT_S):
        assert await durable.move_waiting(last.id, Priority.NORMAL, None)
        assert await again[0]
    assert (await office.get(last)).priority is Priority.INTERACTIVE
    await office.tokens_kept(last, 1)


async def test_one_that_is_moved_back_at_once_keeps_nobody_waiting(offices: Open) -> None:
    office = offices(tokens_per_s=SLOW, options={"slots": 1})
    last = [await office.submit(LONG) for _ in range(30)][-1]
    async with asyncio.timeout(LIMIT_S):
        moves = [office.durable.move_waiting(last.id, to, None) for to in (Priority.NORMAL, Priority.BATCH)]
        assert await asyncio.gather(*moves) == [True, True]
    assert (await office.get(last)).priority is Priority.BATCH
    assert office.house.told(Kind.PRIORITY_CHANGED)[0] == f"{last.id} was moved from batch to normal"


async def test_one_is_moved_while_it_is_read_from_the_disk(offices: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    office = offices(tokens_per_s=SLOW)
    durable = office.durable
    moves: list[asyncio.Task[bool]] = []

    async def ask(function: Any, *args: Any) -> Any:
        found = await archive_ask(function, *args)
        if function is Store.load:
            moves.append(asyncio.create_task(durable.move_waiting(args[0][0], Priority.NORMAL, None)))
            await asyncio.sleep(0)
        return found

    archive_ask = durable.archive.ask
    monkeypatch.setattr(durable.archive, "ask", ask)
    job = await office.submit(LONG)
    await office.tokens_kept(job, 1)
    assert await moves[0]
    assert (await office.get(job)).priority is Priority.NORMAL
    assert next(it for it in office.house.node.jobs if it.request.id == job.id).request.priority is Priority.NORMAL


async def test_a_deadline_counts_from_the_submission(offices: Open) -> None:
    office = offices(tokens_per_s=SLOW, options={"slots": 1})
    runs = await office.submit(LONG, deadline_s=time.time() + 0.3)
    waits = [await office.submit(LONG, deadline_s=time.time() + 0.4) for _ in range(20)]
    for job in (runs, *waits):
        end = (await office.read_all(job))[1]
        assert (end.state, end.code) == (State.FAILED, "deadline")
    too_late = await office.submit(deadline_s=time.time() - 1)
    assert (await office.read_all(too_late))[1].code == "deadline"


async def test_a_deadline_passes_while_the_daemon_is_down(offices: Open) -> None:
    office = offices(tokens_per_s=SLOW)
    await office.read_all(await office.submit())  # the model is loaded
    job = await office.submit(LONG, deadline_s=time.time() + 1.0)
    await office.tokens_kept(job, 1)
    await office.close()
    await asyncio.sleep(max(0.0, (job.deadline_s or 0.0) - time.time()))
    end = await office_after(offices, job)
    assert (end.code, end.n_tokens >= 1) == ("deadline", True)


async def test_another_class_outlives_the_daemon(offices: Open) -> None:
    office = offices(tokens_per_s=SLOW)
    job = await office.submit(LONG)
    await office.tokens_kept(job, 1)
    assert office.house.node.controls.set_priority(job.id, Priority.NORMAL)
    await office.tokens_kept(job, (await office.get(job)).n_tokens + 10)
    office = await after(office, offices, "killed")
    assert (await office.read_all(job))[1].priority is Priority.NORMAL


# the disk


async def test_a_full_disk_refuses_new_jobs_and_what_runs_is_written_later(offices: Open) -> None:
    office = offices(tokens_per_s=400)
    job, other = await office.submit("fake:tokens=100"), await office.submit("fake:tokens=1000")
    await office.tokens_kept(job, 5)
    with full_disk(office.store):
        error = await refusal(office)
        assert (error.code, error.retry_after_ms) == (Code.NO_DISK, 5000)
        assert "jobs cannot be kept" in error.message
        await office.house.until(lambda: not office.house.node.jobs.get(job.id))
        assert not (await office.get(job)).over
        (warning,) = [row for row in look(office.house).warnings if row.code == "no_disk"]
        assert warning.message == office.durable.archive.trouble
        assert not await office.durable.cancel(job.id, None)  # it is over, and only that is not written
        assert (await failure(office.durable.cancel(other.id, None))).code is Code.NO_DISK
    pieces, end = await office.read_all(job)
    assert text(pieces) == await undisturbed(office, "fake:tokens=100")
    assert end.state is State.DONE
    assert (await office.read_all(other))[1].state is State.CANCELLED
    told = office.house.told(Kind.DISK)
    assert (len(told), told[-1]) == (2, "jobs are kept on the disk again")
    assert office.durable.archive.trouble == ""


async def test_a_disk_that_has_room_again_is_found_without_anything_to_write(offices: Open) -> None:
    office = offices()
    await office.read_all(await office.submit())
    with full_disk(office.store):
        assert (await refusal(office)).code is Code.NO_DISK
    assert office.durable.archive.trouble
    await eventually(partial(asyncio.sleep, 0), lambda _: not office.durable.archive.trouble)
    assert not office.durable.books


async def test_a_folder_that_another_daemon_uses_is_looked_at_again(offices: Open) -> None:
    first = offices()
    job = await first.submit()
    await first.read_all(job)
    second = offices()
    error = await refusal(second)
    assert (error.code, error.message) == (Code.NO_DISK, "jobs cannot be kept: another daemon uses the folder")
    await first.close()
    await eventually(partial(asyncio.sleep, 0), lambda _: not second.durable.archive.trouble)
    assert (await second.get(job)).state is State.DONE


async def test_a_damaged_file_is_told_of(offices: Open, tmp_path: Path) -> None:
    office = offices()
    await office.submit()
    await office.close()
    (tmp_path / "state" / "jobs.db").write_bytes(b"damaged " * 2000)
    office = offices()
    await office.submit()
    assert "set aside" in office.house.told(Kind.DISK)[0]


async def test_without_a_store_there_are_no_jobs(folder: Path) -> None:
    house = build(folder)
    error = await failure(house.node.durable.readout.get("j", None))
    assert error.code is Code.UNSUPPORTED
    await house.close()
    await house.node.durable.close()
