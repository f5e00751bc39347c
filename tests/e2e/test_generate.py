"""Answers through the whole path: the clients, the order of events, exact counts, priorities and deadlines."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from inferd import AsyncClient, Client, InferdError
from inferd.protos import inferd_pb2 as pb
from inferd.tests.e2e.daemons import ask, until

if TYPE_CHECKING:
    from inferd.tests.e2e.daemons import Daemon, Launcher

WAIT_S = 60.0  # a call that is stuck must fail its test, not hang it


def events(daemon: Daemon, request: pb.GenerateRequest, **options: Any) -> list[pb.GenerateResponse]:
    return list(daemon.inference.Generate(request, timeout=WAIT_S, **options))


def deltas(answer: list[pb.GenerateResponse], choice: int = 0) -> list[pb.Delta]:
    return [event.delta for event in answer if event.WhichOneof("event") == "delta" and event.delta.choice == choice]


def test_the_client_gets_an_answer_and_its_figures(daemon: Daemon) -> None:
    with Client(daemon.address) as client:
        answer = client.generate("small", "hello fake:tokens=7")
        text = answer.text()
    assert len(text.split()) == 7
    assert answer.finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 7
    assert answer.timings is not None
    assert 0 <= answer.timings.queue_ms <= answer.timings.ttft_ms <= answer.timings.e2e_ms


async def test_the_asynchronous_client_gets_the_same(daemon: Daemon) -> None:
    async with AsyncClient(daemon.address) as client:
        first = await client.generate("small", "fake:tokens=9", seed=5).text()
        again = await client.generate("small", "fake:tokens=9", seed=5).text()
    assert len(first.split()) == 9
    assert first == again


def test_events_come_in_order_and_no_token_is_lost_or_repeated(daemon: Daemon) -> None:
    answer = events(daemon, ask("fake:tokens=60"))
    kinds = [str(event.WhichOneof("event")) for event in answer]
    kinds = [kind for kind in kinds if kind != "queued"]
    assert kinds[0] == "started"
    assert kinds[-1] == "finished"
    assert set(kinds[1:-1]) == {"delta"}
    position = 0
    for delta in deltas(answer):
        assert delta.index == position
        position += len(delta.tokens)
    assert position == answer[-1].finished.usage.completion_tokens == 60


def test_several_answers_share_one_call(daemon: Daemon) -> None:
    answer = events(daemon, ask("fake:tokens=40", sampling=pb.Sampling(n=3, seed=11)))
    for choice in range(3):
        assert sum(len(delta.tokens) for delta in deltas(answer, choice)) == 40
    texts = {"".join(delta.text for delta in deltas(answer, choice)) for choice in range(3)}
    assert len(texts) == 3
    seeds = [event.started.seed for event in answer if event.WhichOneof("event") == "started"]
    assert sorted(seeds) == [11, 12, 13]
    ends = [event.finished.choice for event in answer if event.WhichOneof("event") == "finished"]
    assert sorted(ends) == [0, 1, 2]


def test_leaving_a_call_with_several_answers_frees_all_their_slots(daemon: Daemon) -> None:
    call = daemon.inference.Generate(ask("fake:tokens=10000", sampling=pb.Sampling(n=3)), timeout=WAIT_S)
    for event in call:
        if event.WhichOneof("event") == "delta":
            break
    assert len(daemon.live()) == 3
    call.cancel()
    assert until(daemon.idle) < 1.0


def test_token_ids_are_a_prompt_too(daemon: Daemon) -> None:
    request = pb.GenerateRequest(model="small", tokens=pb.Tokens(ids=b"fake:tokens=3"))
    answer = events(daemon, request)
    assert answer[-1].finished.usage.prompt_tokens == len("fake:tokens=3")
    assert answer[-1].finished.usage.completion_tokens == 3


def test_max_tokens_ends_with_length(daemon: Daemon) -> None:
    finished = events(daemon, ask("fake:tokens=50", max_tokens=4))[-1].finished
    assert finished.finish_reason == pb.LENGTH
    assert finished.usage.completion_tokens == 4


def test_cancel_by_id_ends_the_other_connections_stream(daemon: Daemon) -> None:
    call = daemon.inference.Generate(ask("fake:tokens=10000", request_id="stop-me"), timeout=WAIT_S)
    next(call)
    assert daemon.client.cancel("stop-me")
    with pytest.raises(grpc.RpcError) as caught:
        list(call)
    assert caught.value.code() is grpc.StatusCode.CANCELLED
    assert not daemon.client.cancel("stop-me")
    until(daemon.idle)


def test_an_id_in_use_is_refused_and_its_owner_goes_on(daemon: Daemon) -> None:
    call = daemon.inference.Generate(ask("fake:tokens=60", request_id="mine"), timeout=WAIT_S)
    next(call)
    with pytest.raises(InferdError) as caught:
        daemon.client.generate("small", "x", request_id="mine").text()
    assert (caught.value.code, caught.value.field) == ("invalid", "request_id")
    assert list(call)[-1].finished.usage.completion_tokens == 60


def test_a_deadline_ends_the_request(daemon: Daemon) -> None:
    with pytest.raises(InferdError) as caught:
        daemon.client.generate("small", "fake:tokens=10000", deadline_ms=100).text()
    assert caught.value.code in ("deadline", "overloaded")  # the latter if others showed that it takes longer
    until(daemon.idle)


def test_the_calls_own_deadline_frees_the_slot(daemon: Daemon) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        list(daemon.inference.Generate(ask("fake:tokens=10000"), timeout=0.2))
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert until(daemon.idle) < 1.0


def test_interactive_requests_overtake_batch(daemon: Daemon) -> None:
    calls: dict[str, tuple[float, Any]] = {}

    def submit(name: str, priority: pb.Priority.ValueType, tokens: int = 10) -> None:
        request = ask(f"fake:tokens={tokens}", "single", request_id=name, priority=priority)
        calls[name] = time.monotonic(), daemon.inference.Generate(request, timeout=WAIT_S)
        until(lambda: name in daemon.live())

    submit("runs", pb.BATCH, tokens=100)
    until(lambda: daemon.live().get("runs") == "running")
    submit("batch 1", pb.BATCH)
    submit("batch 2", pb.BATCH)
    submit("normal", pb.NORMAL)
    submit("interactive", pb.INTERACTIVE)
    started_s = {
        name: asked_s + list(call)[-1].finished.timings.queue_ms / 1e3 for name, (asked_s, call) in calls.items()
    }
    assert sorted(started_s, key=started_s.__getitem__) == ["runs", "interactive", "normal", "batch 1", "batch 2"]


def test_the_tenant_is_the_metadatas_word(daemon: Daemon) -> None:
    call = daemon.inference.Generate(
        ask("fake:tokens=200", request_id="whose"), metadata=(("inferd-tenant", "team a"),), timeout=WAIT_S
    )
    next(call)
    assert [request.tenant for request in daemon.snapshot().requests if request.id == "whose"] == ["team a"]
    call.cancel()
    until(daemon.idle)


def test_a_full_queue_says_when_to_come_back(launcher: Launcher) -> None:
    crowded = launcher.start(
        "[queue]\nmax_requests = 1\n[models.defaults]\nslots = 1\ncontext_tokens = 20_480\n",
        "--fake-tokens-per-s",
        "50",
        name="q",
    )
    running = crowded.inference.Generate(ask("fake:tokens=10000", request_id="runs"), timeout=WAIT_S)
    until(lambda: crowded.live().get("runs") == "running")
    waiting = crowded.inference.Generate(ask("x", request_id="waits"), timeout=WAIT_S)
    until(lambda: "waits" in crowded.live())
    with pytest.raises(InferdError) as caught:
        crowded.client.generate("small", "x").text()
    assert caught.value.code == "queue_full"
    assert caught.value.retry_after_ms
    assert caught.value.details["limit"] == "1"
    for call in (running, waiting):
        call.cancel()
    until(crowded.idle)
