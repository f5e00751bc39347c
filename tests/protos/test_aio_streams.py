"""Answers and snapshots as they come, with asyncio, against a scripted daemon."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from inferd import AsyncClient, InferdError


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


async def test_watch_ends_with_the_loop(daemon: Any) -> None:
    async with AsyncClient(daemon.address) as client:
        async for snapshot in client.watch(interval_ms=250):
            assert snapshot.sequence == 1
            break
        assert await ended(daemon)
