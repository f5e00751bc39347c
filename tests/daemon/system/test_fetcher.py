"""The process of a pull, held from outside."""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
from typing import TYPE_CHECKING

import pytest

from inferd.daemon.domain.errors import Code, InferdError
from inferd.daemon.domain.pull import Checking, Fetch, Fetched, HubFile, Look, Verified
from inferd.daemon.system import fetcher
from inferd.daemon.system.fetcher import Fetcher
from inferd.tests.hub import Fault, Repo, StandIn

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RAW = bytes(range(256)) * 2000
FILE = HubFile("m.gguf", len(RAW), hashlib.sha256(RAW).hexdigest())


@pytest.fixture
def stand_in() -> Iterator[StandIn]:
    with StandIn() as hub:
        hub.repos["owner/name"] = Repo({"m.gguf": RAW})
        yield hub


def look(stand_in: StandIn) -> Look:
    return Look(stand_in.endpoint, "", "owner/name", "main")


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_it_lists_and_fetches(stand_in: StandIn, tmp_path: Path) -> None:
    async with asyncio.timeout(60), Fetcher(tmp_path) as child:
        assert (await child.look(look(stand_in))).files == (FILE,)
        said = []
        async for answer in child.fetch(Fetch(str(tmp_path), (FILE,), 0)):
            said.append(answer)
            if isinstance(answer, Verified):
                break
    assert [type(answer) for answer in said[-3:]] == [Fetched, Checking, Verified]
    assert (tmp_path / FILE.digest).read_bytes() == RAW


async def test_whoever_leaves_ends_the_process_at_once(stand_in: StandIn, tmp_path: Path) -> None:
    fault = Fault(hold_after=100_000)
    stand_in.plant("m.gguf", fault)
    async with asyncio.timeout(60):
        async with Fetcher(tmp_path) as child:
            await child.look(look(stand_in))
            assert child._child is not None
            pid = child._child.pid
            async for _ in child.fetch(Fetch(str(tmp_path), (FILE,), 0)):
                break
            await asyncio.to_thread(fault.held.wait)
            assert alive(pid)
        assert not alive(pid)
    assert 0 <= (tmp_path / FILE.digest).stat().st_size <= 100_000


async def test_a_failure_of_the_hub_is_the_clients_to_read(stand_in: StandIn, tmp_path: Path) -> None:
    stand_in.plant("", Fault(status=429, retry_after="3600"))
    async with asyncio.timeout(60), Fetcher(tmp_path) as child:
        with pytest.raises(InferdError) as caught:
            await child.look(look(stand_in))
    assert (caught.value.code, caught.value.retry_after_ms) == (Code.PULL_FAILED, 3_600_000)


@pytest.mark.parametrize("says", ["print('{}')", "print('x' * 9_000_000)", "pass", "import os; os.abort()"])
async def test_a_process_that_makes_no_sense_is_an_error(
    stand_in: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str
) -> None:
    monkeypatch.setattr(fetcher, "COMMAND", (sys.executable, "-c", says))
    async with asyncio.timeout(60), Fetcher(tmp_path) as child:
        with pytest.raises(InferdError) as caught:
            await child.look(look(stand_in))
    assert caught.value.code is Code.INTERNAL


async def test_switches_of_whoever_runs_the_daemon_do_not_count(
    stand_in: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("HF_TOKEN", "hf_of_somebody")
    async with asyncio.timeout(60), Fetcher(tmp_path) as child:
        await child.look(look(stand_in))
    assert all("authorization" not in headers for _, headers in stand_in.asked)
