"""What becomes of the runs that workers keep: held for the next worker, or written when nobody holds them."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from inferd.backends import memfd
from inferd.backends.messages import Dropped, Fetch, Kept, Run, Stored
from inferd.daemon.domain.config import Cache
from inferd.daemon.node import tiers as module
from inferd.daemon.node.disk import Disk
from inferd.daemon.node.tiers import Tiers
from inferd.daemon.system.digests import Digests

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path

A, B = Run([b"a0", b"a1"], 500, "t"), Run([b"b0"], 500, "t")


def sealed(run: Run) -> int:
    fd = memfd.create(run.n_bytes)
    memfd.seal(fd)
    return fd


@dataclass
class Resident:
    """A place whose worker is the test."""

    model: Any
    place: str = "m"
    files: list[int | None] = field(default_factory=list)  # that the worker sends, in order
    given: list[tuple[list[Run], list[bytes]]] = field(default_factory=list)
    stored: list[Stored] = field(default_factory=list)

    def take(self, run: Run) -> int | None:
        return self.files.pop(0)

    def give(self, runs: Sequence[tuple[Run, int]], missing: Sequence[bytes] = ()) -> None:
        for run, fd in runs:
            memfd.readable(fd, run.n_bytes).close()
        self.given.append(([run for run, _ in runs], list(missing)))

    def send(self, message: Stored) -> None:
        self.stored.append(message)


@dataclass
class House:
    tiers: Tiers
    resident: Any  # a Resident
    folder: Path

    def keep(self, *runs: Run) -> None:
        for run in runs:
            self.resident.files.append(sealed(run))
            self.tiers.on_message(self.resident, Kept(run))

    async def reopened(self, disk: Disk | None = None) -> Tiers:
        """The tiers of the next daemon."""
        disk = disk or Disk()
        tiers = Tiers(disk, Digests())
        await disk.open(Cache(folder=str(self.folder / "kv")), self.folder / "state")
        return tiers


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    before = len(os.listdir("/proc/self/fd"))
    path = tmp_path / "m.gguf"
    path.write_bytes(b"model")
    resident = Resident(SimpleNamespace(plan=SimpleNamespace(path=str(path))))
    house = House(Tiers(Disk(), Digests()), resident, tmp_path)
    house.tiers = await house.reopened()
    yield house
    await gone(house.tiers, resident)
    assert len(os.listdir("/proc/self/fd")) <= before


async def ready(tiers: Tiers, resident: Any, fingerprint: str = "how") -> None:
    """A worker is there, and its model's file was read."""
    tiers.on_ready(resident, fingerprint)
    await settled(tiers)


async def settled(tiers: Tiers) -> None:
    while tiers._tasks:
        await asyncio.wait(tiers._tasks)


async def gone(tiers: Tiers, resident: Any, *, crashed: bool = False) -> None:
    ended = asyncio.Event()
    tiers.on_gone(resident, ended.set, crashed=crashed)
    await asyncio.wait_for(ended.wait(), 5.0)


async def test_the_worker_after_a_crash_gets_what_the_last_one_had(house: House) -> None:
    await ready(house.tiers, house.resident)
    house.keep(A, B)
    assert house.tiers.n_bytes("m") == 1500
    await gone(house.tiers, house.resident, crashed=True)
    await ready(house.tiers, house.resident)
    assert house.resident.given == [([A, B], [])]


async def test_when_no_worker_comes_nothing_is_held_for_ever(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HOLD_S", 0.0)
    await ready(house.tiers, house.resident)
    house.keep(A)
    await gone(house.tiers, house.resident, crashed=True)
    later = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(0.0, later.set_result, None)
    await later
    assert house.tiers.n_bytes("m") == 0
    await ready(house.tiers, house.resident)
    assert house.resident.given == []


async def test_what_an_unloaded_model_leaves_is_told_to_its_next_worker_in_this_daemon_and_the_next(
    house: House,
) -> None:
    await ready(house.tiers, house.resident)
    house.keep(A, B)
    await gone(house.tiers, house.resident)
    assert house.tiers.n_bytes("m") == 0
    for tiers in (house.tiers, await house.reopened()):
        house.resident.stored.clear()
        await ready(tiers, house.resident)
        assert house.resident.stored == [Stored([b"a0", b"a1", b"b0"], 500)]
        tiers.on_message(house.resident, Fetch([b"a0", b"x"]))
        await settled(tiers)
        assert house.resident.given.pop() == ([A], [b"x"])
        assert tiers.n_bytes("m") == 1000
        await gone(tiers, house.resident)


async def test_what_is_dropped_goes_to_the_disk_and_can_be_had_again(house: House) -> None:
    await ready(house.tiers, house.resident)
    house.keep(A, B)
    house.tiers.on_message(house.resident, Dropped(b"a0"))
    assert house.tiers.n_bytes("m") == 500
    await settled(house.tiers)
    assert house.resident.stored == [Stored([b"a0", b"a1"], 500)]


async def test_too_much_at_once_is_not_written(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAITING_BYTES", 1400)
    await ready(house.tiers, house.resident)
    house.keep(A, B)
    for name in (b"a0", b"b0", b"unknown"):
        house.tiers.on_message(house.resident, Dropped(name))
    await settled(house.tiers)
    assert [run.names[0] for run in house.tiers.disk.known(house.tiers._places["m"].fingerprint)] == [b"a0"]


async def test_a_disk_that_is_found_late_is_told_of_then(house: House) -> None:
    await ready(house.tiers, house.resident)
    house.keep(A)
    await gone(house.tiers, house.resident)
    late = Disk()
    tiers = Tiers(late, Digests())
    await ready(tiers, house.resident)
    assert house.resident.stored == []
    await late.open(Cache(folder=str(house.folder / "kv")), house.folder / "state")
    assert house.resident.stored == [Stored([b"a0", b"a1"], 500)]


@pytest.mark.parametrize("change", ["file", "how"])
async def test_another_file_or_another_way_to_compute_finds_nothing(house: House, change: str) -> None:
    await ready(house.tiers, house.resident)
    house.keep(A)
    await gone(house.tiers, house.resident)
    if change == "file":
        path = house.folder / "m.gguf"
        path.write_bytes(b"other")
        os.utime(path, ns=(1, 1))
    await ready(house.tiers, house.resident, "how" if change == "file" else "other")
    assert house.resident.stored == []


async def test_a_file_that_does_not_come_is_as_if_it_had_not_been_kept(house: House) -> None:
    await ready(house.tiers, house.resident)
    house.resident.files.append(None)
    house.tiers.on_message(house.resident, Kept(A))
    house.tiers.on_message(house.resident, Dropped(b"a0"))
    assert house.tiers.n_bytes("m") == 0


async def test_of_two_with_one_name_the_later_one_is_held(house: House) -> None:
    await ready(house.tiers, house.resident)
    house.keep(A, A)
    assert house.tiers.n_bytes("m") == 1000


async def test_a_hurried_unload_writes_what_is_newest_and_no_more_than_is_done_in_time(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ready(house.tiers, house.resident)
    house.keep(A, B)
    house.tiers.hurry(house.resident)
    allowed: Callable[[float], int] = lambda limit_s: 600 if limit_s == module.HURRIED_S else 10**9  # noqa: E731
    monkeypatch.setattr(house.tiers.disk, "takes_bytes", allowed)
    await gone(house.tiers, house.resident)
    await ready(house.tiers, house.resident)
    assert house.resident.stored == [Stored([b"b0"], 500)]


async def test_a_worker_that_is_gone_gets_no_answer(house: House) -> None:
    await ready(house.tiers, house.resident)
    house.keep(A)
    await gone(house.tiers, house.resident)
    await ready(house.tiers, house.resident)
    house.tiers.on_message(house.resident, Fetch([b"a0"]))
    await gone(house.tiers, house.resident, crashed=True)
    await settled(house.tiers)
    assert house.resident.given == []


async def test_an_engine_that_keeps_nothing_is_told_nothing(house: House) -> None:
    await ready(house.tiers, house.resident, "")
    assert (house.resident.given, house.resident.stored) == ([], [])
