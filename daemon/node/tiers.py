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

from ...backends import kinds
from ...backends.messages import Dropped, Fetch, Kept, Stored
from ..system.digests import stamps_of
from .disk import close_all

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from ...backends.messages import OfRuns, Run
    from ..system.digests import Digests, Stamp
    from .disk import Disk
    from .resident import Resident

    Runs = dict[bytes, tuple[Run, int]]  # with their files, by their names

log = logging.getLogger(__name__)

WAITING_BYTES = 256 * 2**20  # that are dropped and wait to be written; what comes then is not kept
FLUSH_S = 5.0  # for what a model leaves when it is unloaded
HURRIED_S = 0.3  # and when another one waits for its memory
HOLD_S = 10.0  # after a crash, until the next worker is on its way
MAX_RUNS, MAX_NAMES, NAME_BYTES, MAX_SALT = 1024, 64, 16, 1024  # of a place, of a run, of a name; in characters


@dataclass(slots=True)
class _Place:
    """What is known of one place."""

    paths: list[str] = field(default_factory=list)  # of the model's files
    stamps: list[Stamp] = field(default_factory=list)  # of those that its worker has loaded
    how: str = ""  # it computes: the worker's fingerprint
    fingerprint: str = ""  # of the files and how; "": not known yet, nothing goes to disk
    runs: Runs = field(default_factory=dict)
    leaving: Runs = field(default_factory=dict)  # of a worker that is gone, on their way to the disk
    hurried: bool = False
    reading: asyncio.Task[None] | None = None  # of the files, for the fingerprint
    timer: asyncio.TimerHandle | None = None  # of a hold

    @property
    def n_bytes(self) -> int:
        return sum(run.n_bytes for runs in (self.runs, self.leaving) for run, _ in runs.values())

    def stop_timer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class Tiers:
    """On the event loop; what has to wait is a task."""

    def __init__(self, disk: Disk, digests: Digests) -> None:
        self.disk = disk
        self.digests = digests
        self._places: dict[str, _Place] = {}
        self._listening: dict[str, Resident] = {}  # whose worker is ready
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiting_bytes = 0
        disk.on_opened = self._on_disk_opened

    def n_bytes(self, place: str) -> int:
        """Of host RAM that a place holds in files."""
        known = self._places.get(place)
        return known.n_bytes if known is not None else 0

    # what happens to workers

    def on_loading(self, resident: Resident) -> None:
        """A worker is about to open the model's files; what it computes belongs to them as they are now."""
        place = self._places.setdefault(resident.place, _Place())
        place.stop_timer()
        paths = list(resident.model.plan.files) or kinds.model_files(resident.model.plan.path)
        stamps = stamps_of(paths)
        if stamps != place.stamps or paths != place.paths:
            self._let_go(place)
        place.paths, place.stamps, place.hurried = paths, stamps, False

    def on_ready(self, resident: Resident, how: str) -> None:
        """A worker is there and gets what one before it had; before its first request, so that this one finds it."""
        place = self._places[resident.place]
        if how != place.how:
            self._let_go(place)
        place.how = how
        if not how or not place.stamps or stamps_of(place.paths) != place.stamps:
            return self._let_go(place)
        self._listening[resident.place] = resident
        if place.runs and not resident.give(list(place.runs.values())):
            self._let_go(place)
        if (digest := self.digests.known(place.paths, place.stamps)) is not None:
            self._on_digest(resident, place, digest)
        else:
            place.reading = self._begin(self._digest(resident, place, place.stamps, how))
        return None

    def on_message(self, resident: Resident, message: OfRuns) -> None:
        """What a worker says of its runs."""
        place = self._places.setdefault(resident.place, _Place())
        match message:
            case Kept(run=run):
                self._on_kept(resident, place, run)
            case Dropped(name=name, wanted=wanted):
                if name in place.runs:
                    self._drop(place, *place.runs.pop(name), wanted=wanted)
            case Fetch(names=names):
                self._begin(self._fetch(resident, place, names))

    def hurry(self, place: str = "") -> None:
        """Somebody waits for what this place holds, or those whose worker is gone: the disk gets less time for it."""
        for name, known in self._places.items():
            known.hurried |= name == place or bool(known.leaving)

    def on_gone(self, resident: Resident, then: Callable[[], None], *, crashed: bool) -> None:
        """Its worker is dead. The next one gets what it had, if it crashed and that comes soon; else the disk does.

        `then` is called when what it leaves is written, at once where that is nothing.
        """
        self._listening.pop(resident.place, None)
        place = self._places.get(resident.place)
        if place is None or not place.runs:
            then()
        elif crashed:
            place.stop_timer()
            place.timer = asyncio.get_running_loop().call_later(HOLD_S, self._give_up, place)
            then()
        else:
            self._begin(self._flush(place, then))

    async def close(self) -> None:
        """Until nothing waits to be written."""
        for place in self._places.values():
            if place.runs:
                self._begin(self._flush(place, _nothing))
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=FLUSH_S)
        self.digests.stop()
        self.disk.close()

    # how it is done

    def _begin(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work, name="tiers")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _digest(self, resident: Resident, place: _Place, stamps: list[Stamp], how: str) -> None:
        digest = await asyncio.to_thread(self.digests.read, place.paths, stamps)
        if digest is not None and (place.stamps, place.how) == (stamps, how):
            self._on_digest(resident, place, digest)

    def _on_digest(self, resident: Resident, place: _Place, digest: str) -> None:
        place.fingerprint = hashlib.sha256(f"{digest} {place.how}".encode()).hexdigest()
        if self._listening.get(resident.place) is resident:
            self._tell(resident, self.disk.known(place.fingerprint))

    def _on_disk_opened(self) -> None:
        for name, resident in self._listening.items():
            if fingerprint := self._places[name].fingerprint:
                self._tell(resident, self.disk.known(fingerprint))

    def _tell(self, resident: Resident, runs: Sequence[Run]) -> None:
        if runs:
            resident.send(Stored([name for run in runs for name in run.names], runs[0].block_bytes))

    def _on_kept(self, resident: Resident, place: _Place, run: Run) -> None:
        """A worker is believed no more than it may keep: another tenant's model may be the one that broke it."""
        fd = resident.take(run)
        if fd is None:
            return
        most_bytes = resident.model.plan.cache_bytes  # and one run more, until it drops another one
        well_formed = (
            0 < len(run.names) <= MAX_NAMES
            and all(len(name) == NAME_BYTES for name in run.names)
            and len(run.salt) <= MAX_SALT
        )
        self._forget(place, run.names[0] if run.names else b"")
        if not well_formed or len(place.runs) >= MAX_RUNS or max(run.n_bytes, place.n_bytes) > most_bytes:
            log.warning("%s keeps more than it may; a run of computed blocks is not held", resident.place)
            os.close(fd)
        else:
            place.runs[run.names[0]] = run, fd

    def _drop(self, place: _Place, run: Run, fd: int, *, wanted: bool) -> None:
        if not wanted or not place.fingerprint or self._waiting_bytes + run.n_bytes > WAITING_BYTES:
            os.close(fd)
        else:
            self._waiting_bytes += run.n_bytes
            self._begin(self._write(place.fingerprint, run, fd))

    async def _write(self, fingerprint: str, run: Run, fd: int) -> None:
        try:
            written = await self.disk.put(fingerprint, run, fd)
        finally:
            os.close(fd)
            self._waiting_bytes -= run.n_bytes
        for name, resident in self._listening.items():
            if written and self._places[name].fingerprint == fingerprint:
                self._tell(resident, [run])

    async def _fetch(self, resident: Resident, place: _Place, names: Sequence[bytes]) -> None:
        fingerprint = place.fingerprint
        found, missing = await self.disk.get(fingerprint, names, resident.model.plan.cache_bytes)
        listens = self._listening.get(resident.place) is resident and place.fingerprint == fingerprint
        if not listens or not resident.give(found, missing):
            return close_all(found)
        for run, fd in found:
            self._forget(place, run.names[0])
            place.runs[run.names[0]] = run, fd
        return None

    async def _flush(self, place: _Place, then: Callable[[], None]) -> None:
        """Write what is newest, as much as is done in time, the newest last; then hold nothing of it."""
        place.stop_timer()
        place.leaving, place.runs = place.runs, {}
        begun_s = time.monotonic()
        limit_s = HURRIED_S if place.hurried else FLUSH_S
        if place.reading is not None and not place.fingerprint:
            await asyncio.wait({place.reading}, timeout=limit_s)
        new = [(run, fd) for run, fd in place.leaving.values() if not self.disk.has(place.fingerprint, run)]
        sizes = accumulate(run.n_bytes for run, _ in reversed(new))
        n_written = bisect_right(list(sizes), self.disk.takes_bytes(limit_s)) if place.fingerprint else 0
        try:
            for run, fd in new[len(new) - n_written :]:
                if time.monotonic() > begun_s + (HURRIED_S if place.hurried else FLUSH_S):
                    break
                await self.disk.put(place.fingerprint, run, fd)
        finally:
            left, place.leaving = list(place.leaving.values()), {}
            try:
                await asyncio.to_thread(close_all, left)  # gigabytes are given back, which takes a while
            finally:
                then()

    def _let_go(self, place: _Place) -> None:
        """What it has does not fit what is loaded now; what it computes from now on is another thing."""
        close_all(place.runs.values())
        place.runs, place.fingerprint = {}, ""

    def _forget(self, place: _Place, name: bytes) -> None:
        if name in place.runs:
            os.close(place.runs.pop(name)[1])

    def _give_up(self, place: _Place) -> None:
        """No worker came."""
        place.timer = None
        self._begin(self._flush(place, _nothing))


def _nothing() -> None:
    """Nobody waits for it."""
