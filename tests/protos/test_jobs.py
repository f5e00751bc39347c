"""Durable jobs through both clients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pytest

from inferd import AsyncClient, Client, InferdError, Unreachable
from inferd.protos import inferd_pb2 as pb
from inferd.protos import jobs as it
from inferd.protos import patience
from inferd.protos.jobs import job_request, job_twin

if TYPE_CHECKING:
    from collections.abc import Callable


def gone(
    after: list[int], says: Callable[[grpc.ServicerContext], None] | None = None
) -> Callable[[grpc.ServicerContext], None]:
    """A step at which the daemon goes away, so many times; `says`: how it tells of it."""

    def step(context: grpc.ServicerContext) -> None:
        if after:
            after.pop()
            if says is not None:
                says(context)
            context.abort(grpc.StatusCode.UNAVAILABLE, "the connection is closed")

    return step


def ending(steps: Any) -> Any:
    """What a daemon says that ends in an orderly way."""
    return steps.fail(grpc.StatusCode.UNAVAILABLE, "shutting_down", "the daemon is shutting down", 5000)


def test_a_job_is_batch_work_unless_it_says_otherwise() -> None:
    request = job_request("demo", "hi", "k", {"max_tokens": 5})
    assert (request.idempotency_key, request.request.priority, request.request.max_tokens) == ("k", pb.BATCH, 5)
    assert request.request.messages.messages[0].content == "hi"
    assert job_request("demo", "hi", None, {"priority": "normal"}).request.priority == pb.NORMAL
    assert job_request("demo", "hi", None, {"priority": None}).request.priority == pb.BATCH
    keys = {job_request("demo", "hi", key, {}).idempotency_key for key in (None, None, "")}
    assert len(keys - {""}) == 3  # one that is made anew for each, so that a lost answer can be asked for again
    with pytest.raises(InferdError):
        job_request("demo", "hi", 3, {})  # type: ignore[arg-type]


def test_the_twin_has_every_name_of_the_contract() -> None:
    shown = job_twin(pb.Job(id="j1", finish_reason=pb.LENGTH))
    assert set(shown) == set(pb.Job.DESCRIPTOR.fields_by_name)
    assert (shown["id"], shown["finish_reason"], shown["ended_unix_s"], shown["usage"]) == ("j1", "length", None, None)
    assert job_twin(pb.Job())["finish_reason"] is None


def test_jobs_are_asked_for(daemon: Any) -> None:
    with Client(daemon.address) as client:
        assert client.submit_job("demo", "hi", key="k").id == "j1"
        assert client.job("j1") == daemon.job
        assert client.jobs("running", 5) == [daemon.job]
        assert client.jobs("done") == []
        assert client.cancel_job("j1")
        assert not client.cancel_job("j2")
    submitted, shown, listed, *_ = daemon.asked
    assert (submitted.idempotency_key, shown.id, listed.state, listed.limit) == ("k", "j1", "running", 5)


def test_an_answer_is_read_from_an_offset(daemon: Any) -> None:
    with Client(daemon.address) as client:
        answer = client.stream_job("j1")
        assert [(delta.index, delta.text) for delta in answer] == [(0, "hello"), (1, " world")]
        assert answer.job is not None
        assert (answer.job.state, answer.text_so_far()) == ("done", "hello world")
        assert client.stream_job("j1", 1).text() == " world"


def test_a_daemon_that_is_restarted_meanwhile_is_asked_for_the_rest(daemon: Any) -> None:
    daemon.outputs.insert(1, gone([1, 2]))
    with Client(daemon.address) as client:
        answer = client.stream_job("j1")
        assert answer.text() == "hello world"
        assert answer.job is not None
    assert [request.offset for request in daemon.asked] == [0, 1, 1]


@pytest.mark.parametrize("at", [0, 1])
def test_one_that_ends_well_is_waited_for_as_well(
    daemon: Any, steps: Any, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "ENDING_RETRY_S", 0.01)
    daemon.outputs.insert(at, gone([1, 2, 3], ending(steps)))
    with Client(daemon.address, connect_timeout_s=0.0) as client:
        assert client.stream_job("j1").text() == "hello world"
    assert [request.offset for request in daemon.asked] == [0, at, at, at]


def test_a_daemon_that_never_ends_its_end_is_not_waited_for_for_ever(
    daemon: Any, steps: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(it, "RESUME_S", 0.1)
    monkeypatch.setattr(patience, "ENDING_RETRY_S", 0.01)
    daemon.outputs.insert(0, gone([1] * 999, ending(steps)))
    with Client(daemon.address, connect_timeout_s=0.0) as client, pytest.raises(InferdError) as caught:
        client.stream_job("j1").text()
    assert caught.value.code == "shutting_down"


def test_one_that_stays_away_is_waited_for_only_so_long(daemon: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(it, "RESUME_S", 0.2)
    daemon.outputs.insert(1, gone([1] * 999))
    with Client(daemon.address, connect_timeout_s=0.2) as client:
        answer = client.stream_job("j1")
        with pytest.raises(Unreachable):
            answer.text()
    assert answer.text_so_far() == "hello"


async def test_the_same_for_asyncio(daemon: Any, steps: Any) -> None:
    daemon.outputs.insert(1, gone([1]))
    daemon.outputs.insert(1, gone([1], ending(steps)))
    async with AsyncClient(daemon.address) as client:
        assert (await client.submit_job("demo", "hi", key="k")).id == "j1"
        assert await client.job("j1") == daemon.job
        assert await client.jobs("running", 5) == [daemon.job]
        assert await client.cancel_job("j1")
        answer = client.stream_job("j1")
        assert await answer.text() == "hello world"
        assert answer.job is not None
        assert answer.job.state == "done"
        assert [delta.text async for delta in client.stream_job("j1", 1)] == [" world"]
