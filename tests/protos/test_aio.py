"""The asyncio client against a scripted daemon."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import grpc
import pytest

from inferd import AsyncClient, InferdError, Unreachable
from inferd.protos import inferd_pb2 as pb


async def ended(daemon: Any) -> bool:
    return bool(await asyncio.to_thread(daemon.ended.wait, 5))


async def test_an_answer_is_read_delta_by_delta(daemon: Any) -> None:
    async with AsyncClient(daemon.address, tenant="ada") as client:
        generation = client.generate("demo", "hi", seed=3)
        assert [(d.text, d.tokens, d.index) async for d in generation] == [("hello", [10], 0), (" world", [11], 1)]
    assert generation.finish_reason == "stop"
    assert generation.usage is not None
    assert generation.usage.completion_tokens == 2
    assert daemon.metadata[0]["inferd-tenant"] == "ada"
    assert daemon.requests[0].sampling.seed == 3


def test_a_client_serves_one_loop_after_the_other(daemon: Any) -> None:
    client = AsyncClient(daemon.address)

    async def once() -> str:
        return await client.generate("demo", "hi").text()

    assert [asyncio.run(once()), asyncio.run(once())] == ["hello world"] * 2
    asyncio.run(client.close())


async def test_many_answers_at_once(daemon: Any) -> None:
    async with AsyncClient(daemon.address) as client:
        texts = await asyncio.gather(*(client.generate("demo", "hi").text() for _ in range(20)))
    assert texts == ["hello world"] * 20


async def test_leaving_the_loop_early_cancels(daemon: Any, steps: Any) -> None:
    daemon.script = [steps.started(), steps.delta("a"), daemon.forever]
    async with AsyncClient(daemon.address) as client:
        generation = client.generate("demo", "hi")
        async for _ in generation:
            break
        assert await ended(daemon)
        assert (generation.finish_reason, await generation.text()) == ("cancelled", "a")


async def test_another_task_can_cancel(daemon: Any, steps: Any) -> None:
    daemon.script = [steps.started(), steps.delta("a"), daemon.forever]
    async with AsyncClient(daemon.address) as client:
        generation = client.generate("demo", "hi")
        async for _ in generation:
            asyncio.get_running_loop().call_later(0.01, generation.cancel)
        assert generation.finish_reason == "cancelled"
        assert await ended(daemon)


async def test_cancelling_the_reading_task_cancels_the_request(daemon: Any, steps: Any) -> None:
    daemon.script = [steps.started(), steps.delta("a"), daemon.forever]
    async with AsyncClient(daemon.address) as client:
        task = asyncio.create_task(client.generate("demo", "hi").text())
        await asyncio.to_thread(daemon.arrived.wait, 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await ended(daemon)


async def test_the_with_block_of_a_generation_cancels(daemon: Any, steps: Any) -> None:
    daemon.script = [steps.started(), steps.delta("a"), daemon.forever]
    async with AsyncClient(daemon.address) as client:
        async with client.generate("demo", "hi") as generation:
            events = generation.events()
            assert (await anext(events)).started.model == "demo"
        assert await ended(daemon)
        await events.aclose()


async def test_a_refusal_carries_reason_and_retry(daemon: Any, steps: Any) -> None:
    daemon.script = [steps.fail(grpc.StatusCode.RESOURCE_EXHAUSTED, "queue_full", "2,048 wait", 500, limit="2048")]
    async with AsyncClient(daemon.address) as client:
        generation = client.generate("demo", "hi")
        for _ in range(2):
            with pytest.raises(InferdError) as caught:
                await generation.text()
    assert (caught.value.code, caught.value.retry_after_ms) == ("queue_full", 500)
    assert caught.value.details == {"limit": "2048"}


async def test_nobody_there_is_unreachable(quiet_daemon: Any) -> None:
    async with AsyncClient(quiet_daemon.address, connect_timeout_s=0.2) as client:
        for call in (client.snapshot, client.generate("demo", "hi").text):
            with pytest.raises(Unreachable, match="no daemon at unix:"):
                await call()


async def test_a_starting_daemon_is_waited_for(quiet_daemon: Any) -> None:
    timer = threading.Timer(0.2, quiet_daemon.start)
    timer.start()
    async with AsyncClient(quiet_daemon.address, connect_timeout_s=10) as client:
        assert await client.generate("demo", "hi").text() == "hello world"
    timer.join()


async def test_the_other_calls(daemon: Any) -> None:
    async with AsyncClient(daemon.address) as client:
        assert await client.tokenize("demo", [{"role": "user", "content": "hi"}]) == [1, 2, 3]
        assert await client.cancel("r1") is True
        assert [m.name for m in await client.models()] == ["demo"]
        assert [p.state async for p in client.load("demo")] == ["loading", "ready"]
        last = await client.load("demo").wait()
        assert last is not None
        assert last.device == "cpu"
        assert await client.unload("demo") is True
        assert (await client.snapshot()).sequence == 1
    assert daemon.asked[0].messages.messages[0].content == "hi"


async def test_watch_ends_with_the_loop(daemon: Any) -> None:
    async with AsyncClient(daemon.address) as client:
        async for snapshot in client.watch(interval_ms=250):
            assert snapshot.sequence == 1
            break
        assert await ended(daemon)


async def test_a_closed_client_says_so(daemon: Any) -> None:
    client = AsyncClient(daemon.address)
    await client.close()
    with pytest.raises(RuntimeError, match="closed"):
        await client.snapshot()


async def test_plans_explanations_and_leases_too(daemon: Any) -> None:
    daemon.records = [pb.DecisionRecord(kind="admit")]
    async with AsyncClient(daemon.address) as client:
        assert (await client.plan("demo")).outcome == "fits"
        assert [record.kind for record in await client.explain("r1")] == ["admit"]
        async with client.lease("demo"):
            assert not daemon.ended.is_set()
        assert await asyncio.to_thread(daemon.ended.wait, 5)
