"""What workers have computed and may be wanted again: held for them in RAM, kept on disk when they let go of it.

A worker decides what it keeps, within the bytes that are booked for it. Its runs of blocks are sealed files that this
process has open, too: the next worker of a place gets them when one has crashed, and they go to the disk when they are
dropped or the model is unloaded. A worker is told what the disk has for it, and asks for what it misses.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import time
from bisect import bisect_right
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING

from ...backends.messages import Dropped, Fetch, Kept, Stored
from .disk import close_all

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from ...backends.messages import OfRuns, Run
    from ..system.digests import Digests
    from .disk import Disk
    from .resident import Resident

log = logging.getLogger(__name__)

WAITING_BYTES = 256 * 2**20  # that are dropped and wait to be written; what comes then is not kept
FLUSH_S = 5.0  # for what a model leaves when it is unloaded
HURRIED_S = 0.3  # and when another one waits for its memory
HOLD_S = 10.0  # after a crash, until the next worker is there


@dataclass(slots=True)
class _Place:
    """What is known of one place."""

    fingerprint: str = ""  # of the model's file and how it is computed there; "": unknown, nothing goes to disk
    runs: dict[bytes, tuple[Run, int]] = field(default_factory=dict)  # with their files, by their names
    hurried: bool = False
    timer: asyncio.TimerHandle | None = None  # of a hold


class Tiers:
    """On the event loop; what has to wait is a task."""

    def __init__(self, disk: Disk, digests: Digests) -> None:
        self.disk = disk
        self._digests = digests
        self._places: dict[str, _Place] = {}
        self._listening: dict[str, Resident] = {}  # whose worker is ready
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiting_bytes = 0
        disk.on_opened = self._on_disk_opened

    def n_bytes(self, place: str) -> int:
        """Of host RAM that a place holds in files."""
        known = self._places.get(place)
        return sum(run.n_bytes for run, _ in known.runs.values()) if known is not None else 0

    # what happens to workers

    def on_ready(self, resident: Resident, fingerprint: str) -> None:
        """A worker is there and gets what one before it had; before its first request, so that this one finds it."""
        if not fingerprint:
            return
        place = self._places.setdefault(resident.place, _Place())
        place.hurried = False
        if place.timer is not None:
            place.timer.cancel()
            place.timer = None
        self._listening[resident.place] = resident
        if place.runs:
            resident.give(list(place.runs.values()))
        path = resident.model.plan.path
        if (digest := self._digests.known(path)) is not None:
            self._on_digest(resident, digest, fingerprint)
        else:
            self._begin(self._digest(resident, path, fingerprint))

    def on_message(self, resident: Resident, message: OfRuns) -> None:
        """What a worker says of its runs."""
        place = self._places.setdefault(resident.place, _Place())
        match message:
            case Kept(run=run):
                fd = resident.take(run)
                if fd is not None:
                    self._let_go(place, run.names[0])
                    place.runs[run.names[0]] = run, fd
            case Dropped(name=name):
                if name in place.runs:
                    self._drop(place, *place.runs.pop(name))
            case Fetch(names=names):
                self._begin(self._fetch(resident, place.fingerprint, names))

    def hurry(self, resident: Resident) -> None:
        """Somebody waits for what the place holds."""
        if (place := self._places.get(resident.place)) is not None:
            place.hurried = True

    def on_gone(self, resident: Resident, then: Callable[[], None], *, crashed: bool) -> None:
        """Its worker is dead. The next one gets what it had, if it crashed and that comes soon; else the disk does.

        `then` is called when what it leaves is written, at once where that is nothing.
        """
        self._listening.pop(resident.place, None)
        place = self._places.get(resident.place)
        if place is None or not place.runs:
            then()
        elif crashed:
            place.timer = asyncio.get_running_loop().call_later(HOLD_S, self._give_up, place)
            then()
        else:
            self._begin(self._flush(resident.place, then))

    async def _flush(self, name: str, then: Callable[[], None]) -> None:
        """Write what is newest, as much as is done in time, the newest last; then hold nothing of it."""
        place = self._places.pop(name)
        limit_s = HURRIED_S if place.hurried else FLUSH_S
        end_s = time.monotonic() + limit_s
        sizes = accumulate(run.n_bytes for run, _ in reversed(place.runs.values()))
        n_written = bisect_right(list(sizes), self.disk.takes_bytes(limit_s))
        try:
            for run, fd in list(place.runs.values())[len(place.runs) - n_written :]:
                if place.fingerprint and time.monotonic() < end_s:
                    await self.disk.put(place.fingerprint, run, fd)
        finally:
            close_all(place.runs.values())
            then()

    async def close(self) -> None:
        """Until nothing waits to be written."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=FLUSH_S)

    # how it is done

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work, name="tiers")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _digest(self, resident: Resident, path: str, fingerprint: str) -> None:
        digest = await asyncio.to_thread(self._digests.read, path)
        if digest is not None and self._listening.get(resident.place) is resident:
            self._on_digest(resident, digest, fingerprint)

    def _on_digest(self, resident: Resident, digest: str, fingerprint: str) -> None:
        place = self._places[resident.place]
        place.fingerprint = hashlib.sha256(f"{digest} {fingerprint}".encode()).hexdigest()
        self._tell(resident, self.disk.known(place.fingerprint))

    def _on_disk_opened(self) -> None:
        for name, resident in self._listening.items():
            if fingerprint := self._places[name].fingerprint:
                self._tell(resident, self.disk.known(fingerprint))

    def _tell(self, resident: Resident, runs: Sequence[Run]) -> None:
        if runs:
            resident.send(Stored([name for run in runs for name in run.names], runs[0].block_bytes))

    def _drop(self, place: _Place, run: Run, fd: int) -> None:
        if not place.fingerprint or self._waiting_bytes + run.n_bytes > WAITING_BYTES:
            return os.close(fd)
        self._waiting_bytes += run.n_bytes
        return self._begin(self._write(place.fingerprint, run, fd))

    async def _write(self, fingerprint: str, run: Run, fd: int) -> None:
        try:
            written = await self.disk.put(fingerprint, run, fd)
        finally:
            os.close(fd)
            self._waiting_bytes -= run.n_bytes
        for name, resident in self._listening.items():
            if written and self._places[name].fingerprint == fingerprint:
                self._tell(resident, [run])

    async def _fetch(self, resident: Resident, fingerprint: str, names: Sequence[bytes]) -> None:
        found, missing = await self.disk.get(fingerprint, names)
        place = self._places.get(resident.place)
        if self._listening.get(resident.place) is not resident or place is None:
            return close_all(found)
        resident.give(found, missing)
        for run, fd in found:
            self._let_go(place, run.names[0])
            place.runs[run.names[0]] = run, fd
        return None

    def _let_go(self, place: _Place, name: bytes) -> None:
        if name in place.runs:
            os.close(place.runs.pop(name)[1])

    def _give_up(self, place: _Place) -> None:
        place.timer = None
        close_all(place.runs.values())
        place.runs.clear()
