"""The table of jobs: what worker events do to a job, and what its reader is told about it."""

from __future__ import annotations

import pytest

from inferd.backends import messages as m
from inferd.backends.tools import HERMES
from inferd.daemon.domain.durable import Kept
from inferd.daemon.domain.errors import Code, InferdError
from inferd.daemon.domain.request import Job, Phase, Priority, Request
from inferd.daemon.domain.tools import CallPiece
from inferd.daemon.node.jobs import Jobs, summary
from inferd.daemon.node.stream import Finished, Queued, Resumed, Started, Stream, Text
from inferd.daemon.node.tape import Tape
from inferd.daemon.policy.calls import CallParser
from inferd.daemon.policy.meter import Meter


def request(request_id: str = "r") -> Request:
    return Request(request_id, "m", m.SamplingParams(max_tokens=9, seed=77), Priority.NORMAL, "t", tokens=[1, 2, 3])


def running(jobs: Jobs, *, arrived_s: float = 10.0, started_s: float = 11.0) -> tuple[Job, Stream]:
    job, stream = jobs.add(request(), arrived_s)
    job.prompt = [1, 2, 3]
    job.move(Phase.RUNNING)
    job.attempt, job.started_s = 1, started_s
    return job, stream


def delta(index: int, *tokens: int, text: str = "") -> m.Delta:
    return m.Delta("r", 1, index, list(tokens), text)


def finished(reason: m.FinishReason = m.FinishReason.STOP, text: str = "", n: int = 3, error: str = "") -> m.Finished:
    return m.Finished("r", 1, reason, text, n, prefill_ms=5.0, decode_ms=6.0, error=error)


async def test_timings_are_counted_from_arrival() -> None:
    jobs = Jobs(Meter())
    job, stream = running(jobs)
    jobs.started(job, m.Started("r", 1, 3, 2), "CPU")
    jobs.grown(job, delta(0, 5, text="a "), 12.0)
    jobs.grown(job, delta(1, 6, text="b "), 12.5)
    jobs.grown(job, delta(2, 7, text="c "), 14.0)
    jobs.finished(job, finished(text="."), 14.25)
    events = await stream.take()
    assert events == [
        Started("r", "m", prompt_tokens=3, cached_tokens=2, device="CPU", seed=77),
        Text(0, "a b c .", [5, 6, 7], None),
        Finished(
            m.FinishReason.STOP,
            prompt_tokens=3,
            cached_tokens=2,
            completion_tokens=3,
            queue_ms=1000.0,
            ttft_ms=2000.0,
            tpot_ms=1000.0,
            itl_max_ms=1500.0,
            e2e_ms=4250.0,
            prefill_ms=5.0,
            decode_ms=6.0,
        ),
    ]
    assert await stream.take() == []
    assert job.phase is Phase.DONE
    assert list(jobs.meter.ttft_ms) == [2000.0]
    assert list(jobs.meter.tpot_ms) == [1000.0]
    total = jobs.meter.total
    assert (total.prompt_tokens, total.generation_tokens, total.requests_finished) == (3, 3, 1)


async def test_an_answer_of_nothing_and_of_one_token_has_timings_too() -> None:
    for n in (0, 1):
        jobs = Jobs(Meter())
        job, stream = running(jobs)
        if n:
            jobs.grown(job, delta(0, 5), 12.0)
        jobs.finished(job, finished(n=n), 13.0)
        end = (await stream.take())[-1]
        assert isinstance(end, Finished)
        assert (end.completion_tokens, end.tpot_ms, end.itl_max_ms) == (n, 0.0, 0.0)
        assert end.ttft_ms == (2000.0 if n else 3000.0)
        assert not jobs.meter.tpot_ms


def test_text_is_counted_in_bytes_as_it_was_sent() -> None:
    jobs = Jobs(Meter())
    job, _ = running(jobs)
    jobs.grown(job, delta(0, 5, text="a"), 1.0)
    jobs.grown(job, delta(1, 6, 7, text="§€"), 2.0)
    assert (job.sent_bytes, job.generated) == (6, [5, 6, 7])


async def test_only_the_first_start_is_a_start() -> None:
    jobs = Jobs(Meter())
    job, stream = running(jobs)
    jobs.started(job, m.Started("r", 1, 3, 2), "CPU")
    job.parked_why = "evicted"
    jobs.started(job, m.Started("r", 2, 3, 3), "CPU")
    first, second = await stream.take()
    assert isinstance(first, Started)
    assert second == Resumed("evicted")
    assert (job.cached_tokens, jobs.meter.total.prompt_tokens) == (2, 3)


async def test_an_engines_error_fails_the_job_in_the_models_name() -> None:
    jobs = Jobs(Meter())
    job, stream = running(jobs)
    jobs.finished(job, finished(m.FinishReason.ERROR, error="it broke"), 12.0)
    with pytest.raises(InferdError, match=r"m: it broke") as caught:
        await stream.take()
    assert caught.value.code is Code.MODEL_FAILED
    assert (job.phase, jobs.meter.total.requests_failed) == (Phase.FAILED, 1)


@pytest.mark.parametrize("error", [None, InferdError(Code.DEADLINE, "late")])
async def test_a_cancelled_job_says_why(error: InferdError | None) -> None:
    jobs = Jobs(Meter())
    job, stream = running(jobs)
    jobs.cancelled(job, error)
    with pytest.raises(InferdError) as caught:
        await stream.take()
    assert caught.value.code is (error.code if error else Code.CANCELLED)
    assert jobs.meter.total.requests_cancelled == 1


def test_an_id_is_taken_until_its_job_is_forgotten() -> None:
    jobs = Jobs(Meter())
    first, _ = jobs.add(request(), 0.0)
    with pytest.raises(InferdError, match="request_id r is in use"):
        jobs.add(request(), 0.0)
    jobs.forget(first)
    assert len(jobs) == 0
    second, _ = jobs.add(request(), 0.0)
    jobs.forget(first)  # an old one does not take the new one with it
    assert jobs.get("r") is second
    assert first.arrival < second.arrival


async def test_a_place_in_the_queue_is_told() -> None:
    jobs = Jobs(Meter())
    job, stream = jobs.add(request(), 0.0)
    job.why = "load"
    jobs.tell_queued(job, 4)
    assert await stream.take() == [Queued("r", 4, "load")]


async def test_a_reader_that_stands_still_is_found_until_it_hangs_up() -> None:
    jobs = Jobs(Meter())
    job, stream = jobs.add(request(), 0.0)
    assert jobs.stalled(1e9, 30.0) == []
    jobs.tell_queued(job, 0)
    await stream.take()
    jobs.forget(job)  # it is over, and its last words are still being read
    assert jobs.stalled(1e9, 30.0) == [stream]
    assert jobs.stalled(1e9, 1e9) == []
    jobs.hung_up(stream)
    assert jobs.stalled(1e9, 30.0) == []


async def test_how_long_a_reader_stands_still_is_told_of_its_job() -> None:
    jobs = Jobs(Meter())
    job, stream = jobs.add(request(), 0.0)
    assert jobs.stalled_s(job, 1e9) == 0.0
    jobs.tell_queued(job, 0)
    await stream.take()
    assert jobs.stalled_s(job, 1e9) == stream.stalled_s(1e9) > 0.0


@pytest.mark.parametrize("end", ["finished", "failed", "cancelled", "refused"])
def test_each_end_is_counted_once_for_all_and_once_for_its_tenant(end: str) -> None:
    jobs = Jobs(Meter())
    job, _ = running(jobs)
    jobs.started(job, m.Started("r", 1, 3, 2), "CPU")
    jobs.grown(job, delta(0, 5, 6), 12.0)
    assert jobs.tokens_by_tenant() == {"t": 2}
    error = InferdError(Code.OVERLOADED, "x")
    if end == "finished":
        jobs.finished(job, finished(n=2), 13.0)
    else:
        getattr(jobs, end)(job, error)
    jobs.forget(job)
    account, total = jobs.tenants.of("t"), jobs.meter.total
    ends = ("finished", "failed", "cancelled", "refused")
    assert [getattr(account, name) for name in ends] == [int(name == end) for name in ends]
    assert [getattr(total, f"requests_{name}") for name in ends] == [int(name == end) for name in ends]
    assert (account.prompt_tokens, account.generation_tokens, account.live, account.seen_s) == (3, 2, 0, 10.0)
    assert jobs.tokens_by_tenant() == {}


def test_who_is_turned_away_at_the_door_is_no_job() -> None:
    jobs = Jobs(Meter())
    jobs.turned_away("t", 5.0)
    assert (len(jobs), jobs.meter.total.requests_refused, jobs.tenants.of("t").refused) == (0, 1, 1)


def test_a_summary_needs_a_reason() -> None:
    job, _ = running(Jobs(Meter()))
    with pytest.raises(AssertionError):
        summary(job, 0, 1.0)


@pytest.mark.parametrize("moves", [True, False])
async def test_what_a_lost_worker_had_computed_is_wasted_when_it_is_computed_again(moves: bool) -> None:
    jobs = Jobs(Meter())
    job, _ = running(jobs)
    jobs.grown(job, delta(0, 5, 6), 12.0)
    if moves:
        job.parked_why = "device_lost"
    else:
        jobs.failed(job, InferdError(Code.WORKER_CRASHED, "x"))
    jobs.attempt_lost(job, start_tokens=3)
    if moves:
        jobs.started(job, m.Started("r", 2, 3, 0), "cpu")
    else:
        jobs.forget(job)
    total = jobs.meter.total
    assert (total.computed_tokens, total.delivered_tokens) == (4, 0 if moves else 4)
    assert total.wasted_tokens == ({"device_lost": 4} if moves else {})


@pytest.mark.parametrize(("cached", "wasted"), [(0, 4), (2, 2), (4, 0), (9, 0)])
async def test_what_the_next_attempt_finds_computed_is_not_wasted(cached: int, wasted: int) -> None:
    jobs = Jobs(Meter())
    job, _ = running(jobs)
    jobs.grown(job, delta(0, 5, 6), 12.0)
    job.parked_why = "preempted"
    jobs.attempt_over(job, 4)
    jobs.started(job, m.Started("r", 2, 3, cached), "cpu")
    jobs.grown(job, delta(2, 7), 13.0)
    jobs.attempt_over(job, max(0, 5 - cached))
    jobs.finished(job, m.Finished("r", 2, m.FinishReason.LENGTH, "", 3, 1.0, 1.0), 14.0)
    jobs.forget(job)
    total = jobs.meter.total
    assert total.wasted_tokens == ({"preempted": wasted} if wasted else {})
    assert total.computed_tokens == total.delivered_tokens + wasted


async def test_an_error_that_the_request_is_to_blame_for_names_its_field() -> None:
    jobs = Jobs(Meter())
    job, stream = running(jobs)
    end = m.Finished("r", 1, m.FinishReason.ERROR, "", 0, 0.0, 0.0, "x", error_field="response_format")
    jobs.finished(job, end, 1.0)
    with pytest.raises(InferdError) as caught:
        await stream.take()
    assert (caught.value.code, caught.value.field) == (Code.INVALID, "response_format")


async def test_of_an_attempt_without_a_token_nothing_is_known() -> None:
    jobs = Jobs(Meter())
    job, _ = running(jobs)
    jobs.attempt_lost(job, start_tokens=3)
    assert jobs.meter.total.computed_tokens == 0


async def test_calls_are_found_in_the_text_and_end_the_answer_as_such() -> None:
    for reason, ended in ((m.FinishReason.STOP, m.FinishReason.TOOL_CALLS), (m.FinishReason.LENGTH,) * 2):
        jobs = Jobs(Meter())
        job, stream = running(jobs)
        job.calls = CallParser(HERMES, {"f"}, lambda: "id")
        jobs.grown(job, delta(0, 5, text="Hm. <tool_call>"), 12.0)
        jobs.grown(job, delta(1, 6, text='{"name": "f", "arguments": {'), 12.0)
        jobs.grown(job, delta(2, 7, text='"é": 1}}</tool'), 12.0)
        jobs.finished(job, finished(reason, text="_call>"), 13.0)
        said, end = await stream.take()
        assert said == Text(0, "Hm.", [5, 6, 7], None, [CallPiece(0, "id", "f", '{"é": 1}')])
        assert isinstance(end, Finished)
        assert end.reason is job.finish_reason is ended
        assert job.sent_bytes == len('Hm. <tool_call>{"name": "f", "arguments": {"é": 1}}</tool'.encode())


async def test_what_was_held_back_for_a_call_is_said_at_the_end() -> None:
    jobs = Jobs(Meter())
    job, stream = running(jobs)
    job.calls = CallParser(HERMES, {"f"}, lambda: "id")
    jobs.grown(job, delta(0, 5, text="a <tool_call>{"), 12.0)
    jobs.finished(job, finished(), 13.0)
    said, end = await stream.take()
    assert said == Text(0, "a <tool_call>{", [5], None)
    assert isinstance(end, Finished)
    assert end.reason is m.FinishReason.STOP


async def test_an_answer_that_is_kept_goes_on_and_counts_from_there() -> None:
    jobs = Jobs(Meter())
    job, tape = jobs.add(request(), 10.0, Kept([5, 6], 4))
    assert isinstance(tape, Tape)
    assert (job.durable, job.generated, job.reached) == (True, [5, 6], 2)
    job.prompt = [1, 2, 3]
    job.move(Phase.RUNNING)
    job.attempt = 1
    jobs.started(job, m.Started("r", 1, 3, 5), "CPU")  # its answer so far was computed already, too
    assert (job.cached_tokens, jobs.meter.total.prompt_tokens_cached) == (3, 3)
    jobs.grown(job, delta(2, 7, text="a b c "), 12.0)
    assert jobs.tokens_by_tenant() == {"t": 1}
    jobs.finished(job, finished(text="."), 13.0)
    jobs.forget(job)
    assert jobs.tenants.of("t").generation_tokens == 1
    (piece,) = tape.wind(whole=True)
    assert (piece.index, piece.tokens, piece.text) == (2, [7], "c .")
    assert tape.finished is not None
    assert (tape.finished.completion_tokens, tape.finished.cached_tokens) == (3, 3)
