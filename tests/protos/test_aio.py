"""The asyncio client against a scripted daemon."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from inferd import AsyncClient, Unreachable
from inferd.protos import inferd_pb2 as pb


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


async def test_tokens_travel_and_are_made_shown_and_revoked(daemon: Any) -> None:
    async with AsyncClient(daemon.address, token="ours") as client:
        await client.whoami()
        await client.generate("demo", "hi").text()
        assert (await client.create_token("ada", tenant="t")).info.tenant == "t"
        assert [token.name for token in await client.tokens()] == ["ada"]
        assert (await client.revoke_token("ada"), await client.revoke_token("bob")) == (True, False)
    assert [metadata.get("authorization") for metadata in daemon.metadata] == ["Bearer ours"] * 2


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


async def test_a_model_is_pulled_and_named_too(daemon: Any) -> None:
    async with AsyncClient(daemon.address) as client:
        assert [report.state async for report in client.pull("a/b")] == ["resolving", "fetching", "ready"]
        assert await client.set_alias("mine", "t") == ""
    assert daemon.asked == [pb.PullModelRequest(repo="a/b"), pb.SetAliasRequest(alias="mine", model="t")]


async def test_what_operators_ask_for_too(daemon: Any) -> None:
    async with AsyncClient(daemon.address, tenant="ada") as client:
        assert await client.set_priority("r1", "batch") is True
        assert await client.pin("demo") is False
        assert await client.pin("demo", pinned=False) is True
        assert await client.drain() is False
        assert await client.drain(draining=False) is True
        assert list((await client.reload()).needs_restart) == ["fake.enabled"]
        assert [event.kind async for event in client.events(follow=False)] == ["model_ready", "draining"]
        assert (await client.whoami()).tenant == "ada"
    assert [type(request).__name__ for request in daemon.asked] == [
        "SetPriorityRequest", "PinRequest", "PinRequest", "DrainRequest", "DrainRequest", "ReloadRequest",
        "WatchEventsRequest", "WhoAmIRequest",
    ]  # fmt: skip
    assert daemon.asked[0].priority == pb.BATCH
