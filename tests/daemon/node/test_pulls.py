"""Pulls from a stand-in of the hub, each with its real process."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from inferd.daemon.domain.config import Hub
from inferd.daemon.domain.errors import Code, InferdError
from inferd.daemon.domain.event import Kind
from inferd.daemon.domain.pull import PullOrder, PullProgress, PullState
from inferd.daemon.node import pulls
from inferd.daemon.system.landing import UNFINISHED
from inferd.tests.daemon.node.house import LIMIT_S, House, failure
from inferd.tests.e2e.daemons import until
from inferd.tests.hub import Fault, Repo, StandIn
from inferd.tests.models.random_onnx import Size, encoder

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    Open = Callable[..., House]

ORDER = PullOrder("owner/name")
HALF = 20_000  # bytes, in the middle of the file


@pytest.fixture
def raw(gguf: Any) -> bytes:
    built: bytes = gguf.small(n_vocab=512).build()
    assert len(built) > 2 * HALF
    return built


@pytest.fixture
def stand_in(raw: bytes) -> Iterator[StandIn]:
    with StandIn() as hub:
        hub.repos["owner/name"] = Repo({"Tiny.Q4_K_M.gguf": raw, "README.md": b"hello"})
        yield hub


@pytest.fixture
def open_with(open_house: Open, stand_in: StandIn) -> Open:
    """With other settings of the hub, and of the folders of models."""

    def open_one(models: dict[str, Any] | None = None, **hub: Any) -> House:
        house = open_house(hub=Hub(endpoint=stand_in.endpoint, **hub))
        config = house.node.config
        changed = msgspec.structs.replace(config.models, **{"pull_min_free_bytes": 0, **(models or {})})
        house.node.config = msgspec.structs.replace(config, models=changed)
        return house

    return open_one


@pytest.fixture
async def puller(open_with: Open) -> House:
    return open_with()


async def pull(house: House, order: PullOrder = ORDER) -> list[PullProgress]:
    async with asyncio.timeout(LIMIT_S):
        return [progress async for progress in house.node.pulls.pull(order)]


@contextlib.asynccontextmanager
async def watching(house: House, order: PullOrder = ORDER) -> AsyncIterator[asyncio.Task[list[PullProgress]]]:
    """Somebody who has asked, and leaves at the end."""
    task = asyncio.create_task(pull(house, order))
    await asyncio.sleep(0)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def held(fault: Fault) -> None:
    assert await asyncio.to_thread(fault.held.wait, LIMIT_S)


async def settled(house: House) -> None:
    """Nothing of what was given up is alive."""
    async with asyncio.timeout(LIMIT_S):
        while house.node.pulls._ending:
            await house.node.pulls._ended.wait()


def unfinished(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in (folder / UNFINISHED).iterdir()}


def n_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


# it works


async def test_a_model_is_there_as_soon_as_it_is_pulled(puller: House, folder: Path, raw: bytes) -> None:
    told = await pull(puller)
    states = [progress.state for progress in told]
    assert sorted(set(states), key=states.index) == list(PullState)
    last = told[-1]
    assert (last.model, last.file, last.why) == ("tiny.q4_k_m", "Tiny.Q4_K_M.gguf", "it is the only one")
    assert (last.n_bytes, last.total_bytes, last.sha256) == (len(raw), len(raw), hashlib.sha256(raw).hexdigest())
    assert (folder / "tiny.q4_k_m" / "Tiny.Q4_K_M.gguf").read_bytes() == raw
    assert await puller.answer(model="tiny.q4_k_m")
    (event,) = puller.told(Kind.MODEL_PULLED)
    assert event.startswith("tiny.q4_k_m was pulled from owner/name at ")
    assert unfinished(folder) == {}


async def test_its_digest_is_known_from_then_on(puller: House, folder: Path, raw: bytes) -> None:
    await pull(puller)
    digests = puller.node.fleet.tiers.digests
    path = str(folder / "tiny.q4_k_m" / "Tiny.Q4_K_M.gguf")
    assert digests._known[path][1] == hashlib.sha256(raw).hexdigest()
    assert puller.node.fleet.imports.expected(path) == hashlib.sha256(raw).hexdigest()


async def test_it_has_the_name_that_is_wanted(puller: House) -> None:
    assert (await pull(puller, PullOrder("owner/name", name="mine")))[-1].model == "mine"
    assert await puller.answer(model="mine")


async def test_an_onnx_model_comes_with_what_belongs_to_it(
    puller: House, stand_in: StandIn, tmp_path: Path, folder: Path
) -> None:
    made = tmp_path / "made"
    encoder(made, Size())
    files = {str(path.relative_to(made)): path.read_bytes() for path in made.rglob("*") if path.is_file()}
    stand_in.repos["owner/MiniLM"] = Repo({**files, "pytorch_model.bin": b"x"})
    last = (await pull(puller, PullOrder("owner/MiniLM")))[-1]
    assert last.model == "minilm"
    entry = puller.node.catalog.scan()["minilm"]
    assert (entry.error, entry.facts is not None) == (None, True)
    names = {str(path.relative_to(folder / "minilm")) for path in (folder / "minilm").rglob("*") if path.is_file()}
    assert names == set(files)


async def test_what_is_there_is_not_fetched_again(puller: House, stand_in: StandIn) -> None:
    await pull(puller)
    n_asked = len(stand_in.gets("Tiny.Q4_K_M.gguf"))
    told = await pull(puller)
    assert [progress.state for progress in told][-1] is PullState.READY
    assert PullState.FETCHING not in [progress.state for progress in told]
    assert len(stand_in.gets("Tiny.Q4_K_M.gguf")) == n_asked
    assert len(puller.told(Kind.MODEL_PULLED)) == 1


# in pieces


async def test_whoever_leaves_last_stops_it_and_the_next_one_goes_on(
    puller: House, stand_in: StandIn, folder: Path, raw: bytes
) -> None:
    fault = Fault(hold_after=HALF)
    stand_in.plant("Tiny.Q4_K_M.gguf", fault)
    async with watching(puller):
        await held(fault)
        await asyncio.to_thread(until, lambda: sum(unfinished(folder).values()) > 0)
    await settled(puller)
    (n_kept,) = unfinished(folder).values()
    assert 0 < n_kept <= HALF
    assert (await pull(puller))[-1].state is PullState.READY
    assert [headers.get("range") for headers in stand_in.gets("Tiny.Q4_K_M.gguf")] == [None, f"bytes={n_kept}-"]
    assert (folder / "tiny.q4_k_m" / "Tiny.Q4_K_M.gguf").read_bytes() == raw
    assert puller.told(Kind.PULL_FAILED) == []


async def test_two_who_want_the_same_share_it(puller: House, stand_in: StandIn) -> None:
    fault = Fault(hold_after=HALF)
    stand_in.plant("Tiny.Q4_K_M.gguf", fault)
    async with watching(puller) as second:
        async with watching(puller):
            await held(fault)
        fault.release.set()
        assert (await second)[-1].state is PullState.READY, "the first one left, and it went on"
    assert len(stand_in.gets("Tiny.Q4_K_M.gguf")) == 1


async def test_the_same_bytes_under_two_names_come_one_after_the_other(puller: House, stand_in: StandIn) -> None:
    fault = Fault(hold_after=HALF)
    stand_in.plant("Tiny.Q4_K_M.gguf", fault)
    other = PullOrder("owner/name", name="other")
    async with watching(puller) as first:
        await held(fault)
        async with watching(puller, other) as second:
            async with asyncio.timeout(LIMIT_S):
                live = puller.node.pulls._live[other]
                while not live.progress.file:
                    await live.changes.wait()
            assert live.progress.state is PullState.RESOLVING
            fault.release.set()
            assert {(await first)[-1].model, (await second)[-1].model} == {"tiny.q4_k_m", "other"}


async def test_only_so_many_run_at_a_time(open_with: Open, stand_in: StandIn) -> None:
    house = open_with(max_pulls=1)
    fault = Fault(hold_after=HALF)
    stand_in.plant("Tiny.Q4_K_M.gguf", fault)
    async with watching(house) as first:
        await held(fault)
        n_asked = len(stand_in.asked)
        async with watching(house, PullOrder("owner/none")) as second:
            assert len(stand_in.asked) == n_asked
            fault.release.set()
            await first
            assert (await failure(second)).code is Code.NOT_FOUND


async def test_only_so_many_wait(puller: House, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulls, "MAX_LIVE", 1)
    async with watching(puller):
        error = await failure(pull(puller, PullOrder("owner/other")))
    assert (error.code, error.details) == (Code.QUEUE_FULL, {"highest": 1})


async def test_the_end_of_the_daemon_ends_it(puller: House, stand_in: StandIn, folder: Path) -> None:
    fault = Fault(hold_after=HALF)
    stand_in.plant("Tiny.Q4_K_M.gguf", fault)
    async with watching(puller) as watcher:
        await held(fault)
        await puller.node.drain(0.0)
        assert (await failure(watcher)).code is Code.SHUTTING_DOWN
    assert len(unfinished(folder)) == 1
    assert (await failure(pull(puller))).code is Code.SHUTTING_DOWN


# it is refused


async def test_a_digest_that_the_hub_does_not_have_is_refused_before_a_byte(puller: House, stand_in: StandIn) -> None:
    error = await failure(pull(puller, PullOrder("owner/name", sha256="0" * 64)))
    assert (error.code, error.field) == (Code.INVALID, "sha256")
    assert stand_in.gets("Tiny.Q4_K_M.gguf") == []


async def test_wrong_bytes_never_get_a_place(puller: House, stand_in: StandIn, folder: Path) -> None:
    stand_in.plant("Tiny.Q4_K_M.gguf", Fault(flip=True))
    error = await failure(pull(puller))
    assert error.code is Code.MODEL_CORRUPT
    assert not (folder / "tiny.q4_k_m").exists()
    assert unfinished(folder) == {}
    (event,) = puller.told(Kind.PULL_FAILED)
    assert event == f"owner/name could not be pulled: {error.message}"


async def test_a_file_that_is_no_model_never_gets_one(puller: House, stand_in: StandIn, folder: Path) -> None:
    stand_in.repos["owner/page"] = Repo({"page.gguf": b"<html>"})
    assert (await failure(pull(puller, PullOrder("owner/page")))).code is Code.MODEL_CORRUPT
    assert not (folder / "page").exists()


async def test_a_file_without_a_digest_needs_one(puller: House, stand_in: StandIn, raw: bytes) -> None:
    stand_in.repos["owner/name"].lies["Tiny.Q4_K_M.gguf"] = {"lfs": None, "blobId": None}
    assert (await failure(pull(puller))).code is Code.PULL_FAILED
    order = PullOrder("owner/name", sha256=hashlib.sha256(raw).hexdigest())
    assert (await pull(puller, order))[-1].state is PullState.READY


async def test_the_quota_counts_all_that_lies_there(
    open_with: Open, stand_in: StandIn, folder: Path, raw: bytes
) -> None:
    lies_there = n_bytes(folder)
    house = open_with({"pull_max_bytes": lies_there + len(raw) - 1})
    error = await failure(pull(house))
    assert error.code is Code.NO_ROOM
    assert error.details["needed_bytes"] == len(raw)
    assert error.details["free_bytes"] == len(raw) - 1
    assert stand_in.gets("Tiny.Q4_K_M.gguf") == []
    house = open_with({"pull_max_bytes": lies_there + len(raw)})
    assert (await pull(house))[-1].state is PullState.READY


async def test_the_disk_keeps_its_floor(open_with: Open, stand_in: StandIn) -> None:
    house = open_with({"pull_min_free_bytes": 2**60})
    assert (await failure(pull(house, PullOrder("owner/name", "Tiny.Q4_K_M.gguf")))).code is Code.NO_ROOM
    assert stand_in.gets("Tiny.Q4_K_M.gguf") == []


async def test_a_name_that_is_taken_is_refused(puller: House, stand_in: StandIn) -> None:
    await puller.node.aliases.set("mine", "alpha")
    for name in ("alpha", "mine"):
        error = await failure(pull(puller, PullOrder("owner/name", name=name)))
        assert (error.code, error.field) == (Code.INVALID, "name")
    assert stand_in.gets("Tiny.Q4_K_M.gguf") == []


@pytest.mark.parametrize("name", ["../x", "X", "a:b", "demo", "onnx", "12", "0" * 32, ".a", "a/b", "x" * 129])
async def test_a_name_that_means_something_else_is_refused(puller: House, stand_in: StandIn, name: str) -> None:
    error = await failure(pull(puller, PullOrder("owner/name", name=name)))
    assert (error.code, error.field) == (Code.INVALID, "name")
    assert stand_in.asked == []


async def test_a_model_that_would_be_called_like_ours_needs_a_name(
    puller: House, stand_in: StandIn, raw: bytes
) -> None:
    stand_in.repos["owner/demo"] = Repo({"Demo.gguf": raw})
    assert (await failure(pull(puller, PullOrder("owner/demo")))).field == "name"
    assert (await pull(puller, PullOrder("owner/demo", name="theirs")))[-1].model == "theirs"


async def test_what_cannot_be_gone_on_with_is_not_kept(open_with: Open, stand_in: StandIn, folder: Path) -> None:
    house = open_with(partial_ttl_s=0)
    fault = Fault(hold_after=HALF)
    stand_in.plant("Tiny.Q4_K_M.gguf", fault)
    async with watching(house):
        await held(fault)
        assert len(unfinished(folder)) == 1
    await settled(house)
    assert unfinished(folder) == {}


# the token


async def test_the_token_comes_from_its_file_each_time(open_with: Open, stand_in: StandIn, tmp_path: Path) -> None:
    stand_in.token = "hf_secret"
    path = tmp_path / "token"
    house = open_with(token_file=str(path))
    for content in (None, b"hf old", b"\xff\xff", b"hf_old"):
        if content is not None:
            path.write_bytes(content)
        error = await failure(pull(house))
        assert error.code is Code.PULL_FAILED
        assert str(path) not in error.message
    path.write_text("hf_secret\n")
    assert (await pull(house))[-1].state is PullState.READY


async def test_an_error_of_ours_is_told_as_one(puller: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise KeyError("a secret")

    monkeypatch.setattr(pulls, "choose", fail)
    error = await failure(pull(puller))
    assert isinstance(error, InferdError)
    assert (error.code, "secret" in error.message) == (Code.INTERNAL, False)
