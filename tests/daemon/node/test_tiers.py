"""What becomes of the runs that workers keep: held for the next worker, or written when nobody holds them."""

from __future__ import annotations

import asyncio
import os
import threading
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

    from inferd.daemon.system.digests import Stamp

A0, A1, B0 = (name * 8 for name in (b"a0", b"a1", b"b0"))
A, B = Run([A0, A1], 500, "t"), Run([B0], 500, "t")


def sealed(run: Run) -> int:
    fd = memfd.create(run.n_bytes)
    with memfd.writable(fd) as view:
        view[:] = b"x" * run.n_bytes
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

    def give(self, runs: Sequence[tuple[Run, int]], missing: Sequence[bytes] = ()) -> bool:
        for run, fd in runs:
            memfd.readable(fd, run.n_bytes).close()
        self.given.append(([run for run, _ in runs], list(missing)))
        return True

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
        await self.tiers.close()
        disk = disk or Disk()
        tiers = Tiers(disk, Digests())
        await disk.open(Cache(folder=str(self.folder / "kv")), self.folder / "state")
        self.tiers = tiers
        return tiers


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    before = len(os.listdir("/proc/self/fd"))
    path = tmp_path / "m.gguf"
    path.write_bytes(b"model")
    resident = Resident(SimpleNamespace(plan=SimpleNamespace(path=str(path), files=(), cache_bytes=10_000)))
    house = House(Tiers(Disk(), Digests()), resident, tmp_path)
    await house.reopened()
    yield house
    await gone(house.tiers, resident)
    await house.tiers.close()
    assert len(os.listdir("/proc/self/fd")) <= before


async def ready(tiers: Tiers, resident: Any, fingerprint: str = "how") -> None:
    """A worker is there, and its model's file was read."""
    tiers.on_loading(resident)
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


async def passed() -> None:
    """Timers that are due have run."""
    later = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(0.0, later.set_result, None)
    await later


async def test_when_no_worker_comes_the_disk_gets_what_was_held(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HOLD_S", 0.0)
    await ready(house.tiers, house.resident)
    house.keep(A)
    await gone(house.tiers, house.resident, crashed=True)
    await passed()
    await settled(house.tiers)
    assert house.tiers.n_bytes("m") == 0
    await ready(house.tiers, house.resident)
    assert (house.resident.given, house.resident.stored) == ([], [Stored([A0, A1], 500)])


async def test_while_the_next_worker_loads_nothing_is_given_up(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HOLD_S", 0.0)
    await ready(house.tiers, house.resident)
    house.keep(A)
    for _ in range(2):  # the first load fails
        house.tiers.on_gone(house.resident, lambda: None, crashed=True)
        house.tiers.on_loading(house.resident)
        await passed()
    house.tiers.on_ready(house.resident, "how")
    assert house.resident.given == [([A], [])]
    assert house.tiers.n_bytes("m") == 1000


async def test_an_unload_while_something_is_held_writes_it_once_and_closes_it_once(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HOLD_S", 0.0)
    await ready(house.tiers, house.resident)
    house.keep(A, B)
    await gone(house.tiers, house.resident, crashed=True)
    await gone(house.tiers, house.resident)
    mine = [os.dup(0) for _ in range(4)]  # numbers that were free
    await passed()
    await settled(house.tiers)
    for fd in mine:
        os.close(fd)  # nobody else did


async def test_a_model_whose_file_was_replaced_gets_nothing_of_the_old_one(house: House) -> None:
    await ready(house.tiers, house.resident)
    house.keep(A)
    await gone(house.tiers, house.resident, crashed=True)
    (house.folder / "new").write_bytes(b"other")
    (house.folder / "new").rename(house.folder / "m.gguf")
    await ready(house.tiers, house.resident)
    assert (house.resident.given, house.tiers.n_bytes("m")) == ([], 0)
    house.keep(B)
    await gone(house.tiers, house.resident)
    await ready(house.tiers, house.resident)
    assert house.resident.stored == [Stored([B0], 500)]


async def test_a_file_that_is_replaced_while_it_is_loaded_is_kept_nowhere(house: House) -> None:
    house.tiers.on_loading(house.resident)
    (house.folder / "new").write_bytes(b"other")
    (house.folder / "new").rename(house.folder / "m.gguf")
    house.tiers.on_ready(house.resident, "how")
    await settled(house.tiers)
    house.keep(A)
    await gone(house.tiers, house.resident)
    await ready(house.tiers, house.resident)
    assert house.resident.stored == []


@pytest.mark.parametrize(
    "run",
    [
        Run([A0[:15]], 500, "t"),
        Run([], 500, "t"),
        Run([A0] * 65, 10, "t"),
        Run([A0], 500, "t" * 1025),
        Run([B0, A0], 5250, "t"),  # more than the plan allows
    ],
    ids=["name", "none", "many", "salt", "large"],
)
async def test_a_worker_may_keep_no_more_than_was_booked_and_nothing_odd(house: House, run: Run) -> None:
    await ready(house.tiers, house.resident)
    house.keep(A)
    house.resident.files.append(sealed(Run([A0], max(1, run.n_bytes), "t")))
    house.tiers.on_message(house.resident, Kept(run))
    assert house.tiers.n_bytes("m") in (0, 1000)


async def test_what_an_unloaded_model_leaves_is_told_to_its_next_worker_in_this_daemon_and_the_next(
    house: House,
) -> None:
    await ready(house.tiers, house.resident)
    house.keep(A, B)
    await gone(house.tiers, house.resident)
    assert house.tiers.n_bytes("m") == 0
    for same in (True, False):
        tiers = house.tiers if same else await house.reopened()
        house.resident.stored.clear()
        await ready(tiers, house.resident)
        assert [sorted(told.names) for told in house.resident.stored] == [[A0, A1, B0]]
        tiers.on_message(house.resident, Fetch([A0, b"x"]))
        await settled(tiers)
        assert house.resident.given.pop() == ([A], [b"x"])
        assert tiers.n_bytes("m") == 1000
        await gone(tiers, house.resident)


async def test_what_is_dropped_goes_to_the_disk_and_can_be_had_again(house: House) -> None:
    await ready(house.tiers, house.resident)
    house.keep(A, B)
    house.tiers.on_message(house.resident, Dropped(A0, wanted=True))
    assert house.tiers.n_bytes("m") == 500
    await settled(house.tiers)
    assert house.resident.stored == [Stored([A0, A1], 500)]


async def test_what_nobody_wanted_twice_is_not_written(house: House) -> None:
    await ready(house.tiers, house.resident)
    house.keep(A)
    house.tiers.on_message(house.resident, Dropped(A0, wanted=False))
    await settled(house.tiers)
    assert (house.tiers.n_bytes("m"), house.resident.stored) == (0, [])


async def test_too_much_at_once_is_not_written(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAITING_BYTES", 1400)
    await ready(house.tiers, house.resident)
    house.keep(A, B)
    for name in (A0, B0, b"unknown"):
        house.tiers.on_message(house.resident, Dropped(name, wanted=True))
    await settled(house.tiers)
    assert [run.names[0] for run in house.tiers.disk.known(house.tiers._places["m"].fingerprint)] == [A0]


async def test_a_disk_that_is_found_late_is_told_of_then(house: House) -> None:
    await ready(house.tiers, house.resident)
    house.keep(A)
    await gone(house.tiers, house.resident)
    await house.tiers.close()
    late = Disk()
    house.tiers = Tiers(late, Digests())
    await ready(house.tiers, house.resident)
    assert house.resident.stored == []
    await late.open(Cache(folder=str(house.folder / "kv")), house.folder / "state")
    assert house.resident.stored == [Stored([A0, A1], 500)]


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


async def test_what_is_left_before_the_file_was_read_waits_for_that(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, go_on = house.tiers.digests.read, threading.Event()

    def read(paths: Sequence[str], stamps: Sequence[Stamp]) -> str | None:
        go_on.wait(10)
        return real(paths, stamps)

    monkeypatch.setattr(house.tiers.digests, "read", read)
    house.tiers.on_loading(house.resident)
    house.tiers.on_ready(house.resident, "how")
    house.keep(A)
    ended = asyncio.Event()
    house.tiers.on_gone(house.resident, ended.set, crashed=False)
    await passed()
    assert not ended.is_set()
    go_on.set()
    await asyncio.wait_for(ended.wait(), 5.0)
    await ready(house.tiers, house.resident)
    assert house.resident.stored == [Stored([A0, A1], 500)]


async def test_a_file_that_does_not_come_is_as_if_it_had_not_been_kept(house: House) -> None:
    await ready(house.tiers, house.resident)
    house.resident.files.append(None)
    house.tiers.on_message(house.resident, Kept(A))
    house.tiers.on_message(house.resident, Dropped(A0, wanted=True))
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
    house.tiers.hurry("m")
    allowed: Callable[[float], int] = lambda limit_s: 600 if limit_s == module.HURRIED_S else 10**9  # noqa: E731
    monkeypatch.setattr(house.tiers.disk, "takes_bytes", allowed)
    await gone(house.tiers, house.resident)
    await ready(house.tiers, house.resident)
    assert house.resident.stored == [Stored([B0], 500)]


async def test_a_worker_that_is_gone_gets_no_answer(house: House) -> None:
    await ready(house.tiers, house.resident)
    house.keep(A)
    await gone(house.tiers, house.resident)
    await ready(house.tiers, house.resident)
    house.tiers.on_message(house.resident, Fetch([A0]))
    await gone(house.tiers, house.resident, crashed=True)
    await settled(house.tiers)
    assert house.resident.given == []


async def test_what_is_held_goes_to_the_disk_when_the_daemon_ends(house: House) -> None:
    await ready(house.tiers, house.resident)
    house.keep(A)
    await gone(house.tiers, house.resident, crashed=True)
    fingerprint = house.tiers._places["m"].fingerprint
    assert [run.names for run in (await house.reopened()).disk.known(fingerprint)] == [A.names]


async def test_an_engine_that_keeps_nothing_is_told_nothing(house: House) -> None:
    await ready(house.tiers, house.resident, "")
    assert (house.resident.given, house.resident.stored) == ([], [])
