"""Durable jobs: taken in once they are on the disk, submitted like any request, and written as they grow.

One task writes: what came since the last time goes to the disk in one transaction for all of them. Readers see what is
there, so what a client has seen is never computed again.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import logging
import time
from typing import TYPE_CHECKING

from ..domain.durable import State
from ..domain.errors import Code, InferdError
from ..domain.event import Kind, Severity
from ..system.rows import DAMAGED
from ..system.store import AT_ONCE, Store, StoreError
from .archive import CLOSE_S, Archive
from .book import Book, as_of_now, late, outcome
from .intake import Arrival, Intake, same
from .later import Later, is_alone
from .lines import Lines
from .readout import Readout
from .tape import Tape

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..domain.durable import DurableJob, Entry, Loaded, Progress
    from ..domain.request import Priority, Request
    from .book import Group
    from .node import Node

    ReadRequest = Callable[[bytes, DurableJob], Request]  # raises InferdError

log = logging.getLogger(__name__)

FLUSH_S = 0.5  # between two writes of one job that goes on
RETRY_S = 1.0  # after the disk refused
PRUNE_S = 60.0
WINDOW = 16  # of a model, tenant and class, so many beyond its slots are in the scheduler at a time


class Durable:
    """Shares the Node's loop. Without `begin` there are no jobs."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.archive = Archive(node)
        self.readout = Readout(self)
        self.intake = Intake(node, self.archive)
        self.books: dict[str, Book] = {}  # of all jobs that have not ended
        self._busy: dict[str, Book] = {}  # of these, what the Node has, and of what something is to be written
        self._lines = Lines()
        self._later = Later()
        self._may_start = True
        self._arrivals: list[Arrival] = []
        self._deadlines: list[tuple[float, str]] = []  # a heap of when and whose
        self._due = asyncio.Event()  # something is to be written at once
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        self._pruned_s = 0.0

    def begin(self, store: Store, read: ReadRequest) -> None:
        """Open what is there and go on with it; nobody waits for that but who asks for jobs."""
        self.archive.use(store)
        self._read = read
        self._task = asyncio.create_task(self._run(), name="jobs")

    def hold(self) -> None:
        """Jobs are taken in, and none is started until `go_on`."""
        self._may_start = False

    def go_on(self) -> None:
        self._may_start = True
        self._due.set()

    async def close(self) -> None:
        """Write what came last. The Node has let go of all jobs."""
        self._closing = True
        if self._task is None:
            return
        self._due.set()
        self.archive.notify()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._task, CLOSE_S)
        for book in self.books.values():
            book.changes.notify()  # those who read learn that it is the end
        await self.archive.close()

    # what doors ask for

    async def submit(self, entry: Entry, request: Request) -> DurableJob:
        """Take a job in, or find the one with its key; returns when it is on the disk. Raises InferdError."""
        job = entry.job
        await self.archive.ready()
        tenant_bytes = await self.intake.tenant_bytes(job.tenant)
        if job.key:
            first = await self.archive.look(Store.by_key, job.tenant, job.key)
            if first is not None:
                return self.readout.now(same(first, job))
        try:
            self.intake.check(job, request, tenant_bytes)
        except InferdError as error:
            self.node.turned_away(job.tenant, error, job.id)
            raise
        arrival = Arrival(entry, asyncio.get_running_loop().create_future())
        self.intake.n_live[job.tenant] += 1
        self._arrivals.append(arrival)
        self._due.set()
        return self.readout.now(same(await arrival.taken_in, job))

    async def cancel(self, job_id: str, tenant: str | None) -> bool:
        """End a job (`tenant` None: of any); False: it has ended. Returns when it is written. Raises InferdError."""
        await self.readout.get(job_id, tenant)
        book = self.books.get(job_id)
        if book is None or book.end is not None:
            return False
        self._cancel(book)
        await self.archive.until(book.changes, lambda: book.row.over)
        return book.row.state is State.CANCELLED

    def waiting(self, job_id: str, tenant: str | None) -> Book | None:
        """One that has not ended, and that the Node does not have, or has sent away."""
        book = self.books.get(job_id)
        return book if book is not None and book.waits and tenant in (None, book.row.tenant) else None

    async def cancel_waiting(self, job_id: str, tenant: str | None) -> bool:
        """As `cancel`; False for one that does not wait here, too."""
        if self._task is not None:
            await self.archive.ready()
        return self.waiting(job_id, tenant) is not None and await self.cancel(job_id, tenant)

    async def move_waiting(self, job_id: str, priority: Priority, tenant: str | None) -> bool:
        """To another class; False when it does not wait here. Returns when that is on the disk. Raises InferdError."""
        if self._task is not None:
            await self.archive.ready()
        book = self.waiting(job_id, tenant)
        if book is None or (book.tape is not None and not self._comes_back(book, book.tape.error)):
            return False
        if (was := book.priority or book.row.priority) is not priority:
            said = f"{job_id} was moved from {was.value} to {priority.value}"
            self.node.events.note(Severity.INFO, Kind.PRIORITY_CHANGED, said, request_id=job_id, tenant=book.row.tenant)
        book.priority, self._busy[job_id] = priority, book
        book.changes.notify()  # who wanted another one waits in vain
        self._due.set()
        await self.archive.until(
            book.changes, lambda: priority is book.row.priority or priority is not book.priority or book.row.over
        )
        return True

    # mutators

    def _take_up(self, job: DurableJob) -> None:
        """It is on the disk and has not ended: it waits for its turn."""
        book = self.books[job.id] = Book(job)
        self._lines.add(book)
        if job.deadline_s is not None:
            heapq.heappush(self._deadlines, (job.deadline_s, job.id))

    def _cancel(self, book: Book) -> None:
        error, tape = InferdError(Code.CANCELLED, "the job was cancelled"), book.tape
        if tape is not None and not tape.over:
            self.node.cancel(book.row.id, error, book.row.tenant)
        elif tape is None or self._comes_back(book, tape.error):
            self._end(book, error)

    def _comes_back(self, book: Book, error: InferdError | None) -> bool:
        """What ended its stay in the Node is not its end."""
        return error is not None and self._later.is_for_now(error, book.row.model, time.monotonic())

    def _end(self, book: Book, error: InferdError) -> None:
        """Of one that the Node does not have."""
        book.fail(error, time.time())
        self._busy[book.row.id] = book
        self._due.set()

    def _end_late(self) -> None:
        """Those whose deadline has passed while they waited; the Node sees to what it has."""
        while self._deadlines and self._deadlines[0][0] <= time.time():
            book = self.books.get(heapq.heappop(self._deadlines)[1])
            if book is not None and book.tape is None:
                self._end(book, late())

    def _begin(self, book: Book, loaded: Loaded | None) -> None:
        """Give it to the Node."""
        row, now_s = book.row, time.monotonic()
        if book.end is not None or self._closing:
            return self._lines.release(book)
        if self._lines.rests(book.group, now_s):  # one of it was sent away just now
            return self._lines.put_back([book])
        try:
            if loaded is None or loaded.damaged or len(loaded.kept.tokens) != row.n_tokens:
                raise InferdError(Code.INTERNAL, DAMAGED)
            request = as_of_now(self._read(loaded.request, row), row, loaded.prompt, book.priority)
            tape = self.node.submit(request, loaded.kept)
            assert isinstance(tape, Tape)
            if tape.over and tape.error is not None:
                self.node.hang_up(tape)
                raise tape.error
        except InferdError as error:
            if self._comes_back(book, error):
                return self._lines.send_away(book, now_s, alone=is_alone(error))
            self._lines.release(book)
            return self._end(book, error)
        book.tape, book.has_prompt, book.goes_on = tape, loaded.prompt is not None, bool(loaded.kept.tokens)
        book.written_s = now_s
        self._busy[row.id] = book
        tape.on_over = self._due.set
        return None

    def _step(self, book: Book, now_s: float) -> Progress | None:
        """What is to be written of it now."""
        tape = book.tape
        if tape is not None and tape.over:
            if book.end is None and not self._comes_back(book, tape.error):
                book.end = outcome(tape, time.time())
            book.pending += tape.wind(whole=book.end is not None)
        elif tape is not None and now_s >= book.written_s + FLUSH_S:
            book.pending += tape.wind(whole=False)
        if book.pending:
            self._later.is_well(book.row.model)
        step = book.step()
        if tape is not None and tape.over:
            book.tape = None
            self.node.hang_up(tape)
            self._lines.release(book)
        if step is None:
            self._settle(book)
        return step

    def _settle(self, book: Book) -> None:
        """All that was to be written of it is on the disk."""
        if book.row.over:
            del self._busy[book.row.id], self.books[book.row.id]
            self.intake.n_live[book.row.tenant] -= 1
        elif book.tape is None and book.end is None:
            if book.priority in (None, book.row.priority):  # else it was moved as it was written
                del self._busy[book.row.id]
            if book not in self._lines:  # it comes from the Node
                self._lines.send_away(book, time.monotonic())

    def _arrive(self, arrival: Arrival, job: DurableJob) -> None:
        """It is on the disk; `job`: it, or the one that was there before."""
        if job is arrival.entry.job:
            self._take_up(job)
        else:
            self.intake.n_live[arrival.entry.job.tenant] -= 1
        if not arrival.taken_in.done():
            arrival.taken_in.set_result(job)

    def _refuse(self, error: Exception) -> None:
        """The disk will not."""
        self.archive.refuse(error)
        for arrival in self._arrivals:
            self.intake.n_live[arrival.entry.job.tenant] -= 1
            if not arrival.taken_in.done():
                arrival.taken_in.set_exception(self.archive.refusal())
        self._arrivals.clear()
        for book in self._busy.values():
            book.changes.notify()

    def _room(self, group: Group) -> int:
        lane = self.node.scheduler.lanes.get(group[0])
        return WINDOW + (0 if lane is None else lane.n_slots)

    # the task

    async def _run(self) -> None:
        while (jobs := await self.archive.open()) is None:
            if self._closing:
                return
            await self._rest(RETRY_S)
        for job in jobs:
            self.intake.n_live[job.tenant] += 1
            self._take_up(job)
        while True:
            closing = self._closing
            try:
                await self._write()
                if not closing:
                    if self._may_start:
                        await self._feed()
                    await self._prune()
            except StoreError as error:
                self._refuse(error)
            except Exception:
                log.exception("writing jobs failed")
                self._refuse(RuntimeError("the log says why"))
            if closing:
                return
            hindered, idle = bool(self.archive.trouble), not (self._busy or self._lines)
            await self._rest(RETRY_S if hindered else PRUNE_S if idle else FLUSH_S)

    async def _rest(self, limit_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await self._due.wait()
        self._due.clear()

    async def _write(self) -> None:
        """Raises StoreError; what was to be written is tried again, but for arrivals."""
        self._end_late()
        now_s = time.monotonic()
        steps = [step for book in list(self._busy.values()) if (step := self._step(book, now_s)) is not None]
        arrivals, self._arrivals = self._arrivals, []
        if not (steps or arrivals or self.archive.trouble):  # a disk that refused is tried with nothing, too
            return
        try:
            entries = [arrival.entry for arrival in arrivals]
            jobs = await self.archive.ask(Store.commit, entries, steps)
        except BaseException:
            self._arrivals[:0] = arrivals
            raise
        self.archive.relieve()
        for step in steps:
            was = (book := self.books[step.job.id]).group
            book.written(step, time.monotonic())
            self._lines.move(book, was)
            self._settle(book)
        for arrival, job in zip(arrivals, jobs, strict=True):
            self._arrive(arrival, job)

    async def _feed(self) -> None:
        """Raises StoreError."""
        now_s = time.monotonic()
        books = self._lines.take(self._room, now_s)
        if not books:
            return
        try:
            found = await self.archive.ask(Store.load, [book.row.id for book in books])
        except BaseException:
            for book in books:
                self._lines.send_away(book, now_s)
            raise
        by_id = {loaded.job_id: loaded for loaded in found}
        for book in books:
            self._begin(book, by_id.get(book.row.id))

    async def _prune(self) -> None:
        """Raises StoreError."""
        if time.monotonic() < self._pruned_s + PRUNE_S:
            return
        n_gone = await self.archive.ask(Store.prune, time.time() - self.node.config.jobs.keep_s)
        if n_gone < AT_ONCE:
            self._pruned_s = time.monotonic()
