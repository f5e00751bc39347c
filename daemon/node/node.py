"""The heart: owns every mutable fact and carries decisions out.

Everything that changes something is a plain `def` on the event loop: no lock, no await in the middle. What must wait
(a prompt being read, a worker being born) is a task that ends by calling such a `def`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from ...backends.messages import Cancel
from ..domain.decision import Cancel as CancelJob
from ..domain.decision import Evict, Load, Preempt, Refuse, Reject, Start, Unload
from ..domain.errors import Code, InferdError
from ..domain.event import Kind, Severity
from ..domain.inputs import check_task
from ..domain.model import ModelState, check_adapter
from ..domain.request import Phase, Priority
from ..domain.tensors import check_ports
from ..policy.meter import Meter
from ..policy.scheduler import Scheduler
from .aliases import Aliases
from .answers import Answers
from .changes import Changes
from .controls import Controls
from .deadlines import Deadlines
from .durable import Durable
from .events import Events
from .fleet import Fleet
from .health import Health
from .jobs import Jobs
from .keyring import Keyring
from .news import News
from .orders import order
from .pulls import Pulls
from .reader import Reader
from .wishes import Wishes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...backends.messages import ChatMessage
    from ..domain.config import Config
    from ..domain.decision import Decision
    from ..domain.durable import Kept
    from ..domain.request import Job, Request
    from ..policy.ledger import Ledger
    from ..system.catalog import Catalog
    from .deployment import Deployment
    from .reload import Reload
    from .resident import Resident
    from .stream import Stream


class Node:
    """State and its single writer. Doors call `submit`, `cancel`, `load`, `unload`; they never look and then leap."""

    def __init__(self, config: Config, catalog: Catalog, ledger: Ledger, n_threads: int) -> None:
        self.config = config
        self.catalog = catalog
        self.ledger = ledger
        self.meter = Meter()
        self.jobs = Jobs(self.meter)
        self.changes = Changes()
        self.events = Events()
        self.aliases = Aliases(self)
        self.fleet = Fleet(self, n_threads)
        self.pulls = Pulls(self)
        self.wishes = Wishes(self)
        self.controls = Controls(self)
        self.health = Health(self)
        self.reload: Reload | None = None  # where there is a config that can be read again
        self.keyring = Keyring()
        self.draining = False  # no new request is taken in
        self.closing = False
        self._drain_limit: asyncio.Timeout | None = None
        self.scheduler = Scheduler(ledger, config)
        self.news = News(self.scheduler, self.jobs)
        self.reader = Reader(self)
        self.answers = Answers(self)
        self.durable = Durable(self)
        self.deadlines = Deadlines(self)
        self._alarm: asyncio.TimerHandle | None = None  # for those who wait for memory

    # what doors ask for

    def submit(self, request: Request, kept: Kept | None = None) -> Stream:
        """Take a request in. Raises InferdError when it is refused at once; later refusals end the stream.

        `kept`: what the disk has of its answer, which goes on from there. It was let in when it was written.
        """
        now_s = time.monotonic()
        try:
            self.refuse_new() if kept is None else self.refuse_when_closing()
            deployment = self.check(request, now_s)
            if deployment.name != request.model:  # it came by an alias
                request = replace(request, model=deployment.name)
            job, stream = self.jobs.add(request, now_s, kept)
        except InferdError as error:
            if kept is None:  # else nobody is told, and it comes again
                self.turned_away(request.tenant, error, request.id)
            raise
        job.cache_salt = "" if self.config.cache.share_between_tenants else request.tenant
        job.cache_salt += f"\0{request.lora}" if request.lora else ""
        self.carry_out(self.scheduler.on_request(job, now_s))
        if job.live:
            if job.phase is Phase.QUEUED and not self.scheduler.lanes[request.model].slots_free:
                self.fleet.tiers.hurry()
                self.news.tell(job, now_s)
            if request.tensors is None:
                self.reader.begin(job, deployment)
            self.deadlines.begin(job)
        return stream

    def check(self, request: Request, now_s: float) -> Deployment:
        """The model that it asks for, if that can do it. Raises InferdError."""
        deployment = self.fleet.get(request.model)
        if deployment.state is ModelState.FAILED:
            raise deployment.speaker.refusal(now_s)
        check_task(request, deployment.model)
        check_adapter(request, deployment.model)
        if request.tensors is not None:
            check_ports(request.tensors, request.model, deployment.facts)
        return deployment

    def turned_away(self, tenant: str, error: InferdError, request_id: str = "") -> None:
        """A door refused it, before it was a job."""
        self.jobs.turned_away(tenant, time.monotonic())
        message = f"{request_id or 'a request'} was refused: {error.message}"
        # Not by its model: that is whatever a client has written, and each name would be a burst of its own.
        self.events.note(Severity.WARNING, Kind.REFUSED, message, request_id=request_id, tenant=tenant)

    def cancel(self, job_id: str, error: InferdError | None = None, tenant: str | None = None) -> bool:
        """End a request whatever it is doing, with all its choices; False when nothing is live (of the tenant)."""
        return any([self._cancel(job, error) for job in (self.jobs.called(job_id, tenant) if job_id else ())])

    def hang_up(self, stream: Stream) -> None:
        """The reader of this stream is gone; nothing happens when the request is over already."""
        self.jobs.hung_up(stream)
        self.deadlines.drop(stream.job)
        self._cancel(stream.job)
        stream.discard()

    async def tokenize(
        self, model: str, *, messages: Sequence[ChatMessage] | None = None, prompt: str | None = None
    ) -> list[int]:
        """Token ids; loads nothing but the vocabulary."""
        self.refuse_when_closing()
        return await self.fleet.get(model).prompter.prepare(messages=messages, prompt=prompt)

    # time

    def tick(self, now_s: float) -> None:
        """Once a second: rates, keep-alive, readers that stand still, news for those who wait."""
        self.meter.on_tick(now_s)
        self.jobs.tenants.on_tick(now_s, self.jobs.tokens_by_tenant())
        self.look_again(now_s)
        limit_s = self.config.server.slow_consumer_s
        for stream in self.jobs.stalled(now_s, limit_s):
            error = InferdError(Code.SLOW_CONSUMER, f"the reader of this stream took nothing for {limit_s:g} s")
            self.jobs.tenants.of(stream.job.request.tenant).stalls += 1
            message = f"{stream.job.id} was cut: its reader took nothing for {limit_s:g} s"
            self.events.about(stream.job, Severity.WARNING, Kind.SLOW_CONSUMER, message)
            self._cancel(stream.job, error)
            stream.cut(error)
        self.news.tick(now_s)
        self.fleet.tick(now_s)
        self.health.look(now_s)
        self.events.tick()
        self.changes.notify()

    def on_pressure(self, psi_some_avg10: float | None, now_s: float) -> None:
        """What the machine says about its memory, once a second."""
        pressure = self.scheduler.pressure
        before = pressure.grade
        decisions = self.scheduler.on_pressure(psi_some_avg10, now_s)
        if pressure.grade is not before:
            severity = Severity.WARNING if pressure.grade else Severity.INFO
            message = f"pressure on memory: from {before.name.lower()} to {pressure.grade.name.lower()}"
            self.events.note(severity, Kind.PRESSURE, message)
        self.carry_out(decisions)

    async def drain(self, limit_s: float) -> None:
        """Refuse what is new, let what is here finish, then end every process. Bounded by `limit_s` and a grace.

        Batch work is not waited for: what it has computed goes to the disk, and whoever asks again goes on from there.
        Nor are durable jobs: they go on by themselves.
        """
        self.closing = True
        self.events.note(Severity.INFO, Kind.DAEMON_STOPPING, "the daemon is shutting down")
        for job in self.jobs:
            if job.durable or job.request.priority is Priority.BATCH:
                self._cancel(job, shutting_down())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s) as self._drain_limit:
                while any(job.live for job in self.jobs):
                    await self.changes.wait()
        self._drain_limit = None
        for job in self.jobs:
            self._cancel(job, shutting_down())
        await self.pulls.close()
        await self.fleet.close()
        self.events.tick()  # there is no next second for what it would tell

    def hurry(self) -> None:
        """Let the drain end now."""
        if self._drain_limit is not None:
            self._drain_limit.reschedule(asyncio.get_running_loop().time())

    def refuse_when_closing(self) -> None:
        if self.closing:
            raise shutting_down()

    def refuse_new(self) -> None:
        """Raises InferdError while nothing new is taken in."""
        self.refuse_when_closing()
        if self.draining:
            message = "the daemon is draining: no new request is taken in"
            raise InferdError(Code.DRAINING, message, retry_after_ms=5000)

    # what happens

    def on_prepared(self, job: Job) -> None:
        """Its prompt is read, and fits."""
        now_s = time.monotonic()
        self.carry_out(self.scheduler.on_prepared(job, now_s))
        if job.phase is Phase.QUEUED:
            self.news.tell(job, now_s)

    def fail_queued(self, job: Job, error: InferdError) -> None:
        """It will never get a slot."""
        if job.live:
            phase = job.phase
            self.jobs.failed(job, error)
            self._let_go(job, phase)

    def _cancel(self, job: Job, error: InferdError | None = None) -> bool:
        if not job.live:
            return False
        phase = job.phase
        self.jobs.cancelled(job, error)
        self._let_go(job, phase)
        return True

    def _let_go(self, job: Job, phase: Phase) -> None:
        """The job is over for its client; free its place, or have the worker free its slot."""
        if phase is Phase.QUEUED:
            self.carry_out(self.scheduler.on_withdrawn(job, time.monotonic()))
            self.jobs.forget(job)
        elif phase is Phase.RUNNING:  # a PARKING one has been told already
            self.fleet.residents[job.place].send(Cancel(job.id, job.attempt))
        self.changes.notify()

    def carry_out(self, decisions: Sequence[Decision]) -> None:
        self.fleet.share_cores()  # a worker must know before the first request that it is not alone
        for decision in decisions:
            match decision:
                case Start(job=job, place=place):
                    self._start(job, place)
                case Preempt(job=job, asker=asker):
                    self.events.about(job, Severity.INFO, Kind.PREEMPTED, f"{job.id} makes way for {asker}")
                    self._park(job, "preempted")
                case CancelJob(job=job, error=error):
                    self._cancel(job, error)
                case Load(place=place):
                    if not self.fleet.closed:
                        self.fleet.begin(self.fleet.residents[place])
                case Unload(place=place):
                    self.fleet.drain(self.fleet.residents[place], force=False)
                case Evict(place=place, model=name):
                    self.fleet.evict(self.fleet.residents[place], name)
                case Refuse(model=name, error=error):
                    self.fleet.refuse(name, error)
                case Reject(job=job, error=error):
                    self.events.about(job, Severity.WARNING, Kind.REFUSED, f"{job.id} was refused: {error.message}")
                    self.jobs.refused(job, error)
                    self.jobs.forget(job)
        self._set_alarm()

    def park(self, place: str, why: str) -> None:
        """Have all that runs in a place make way; each waits again when its worker has let go of it."""
        for job in list(self.scheduler.places[place].running):
            if job.phase is Phase.RUNNING:
                self._park(job, why)

    def _park(self, job: Job, why: str) -> None:
        job.move(Phase.PARKING)
        job.parked_why = why
        self.meter.total.preemptions += 1
        self.fleet.residents[job.place].send(Cancel(job.id, job.attempt))

    def move_away(self, resident: Resident, why: str) -> None:
        """All that runs in a place waits again at once: its worker will not answer any more."""
        now_s = time.monotonic()
        for job, ticket in list(self.scheduler.places[resident.place].running.items()):
            if job.phase is Phase.RUNNING:
                job.move(Phase.PARKING)
            job.parked_why = why
            self.jobs.attempt_lost(job, ticket.start_tokens)
            if job.live:
                job.move(Phase.QUEUED)
                self.carry_out(self.scheduler.on_parked(job, now_s))
            else:
                self.forget(job, now_s)
        self.changes.notify()

    def forget(self, job: Job, now_s: float) -> None:
        """It is over, and no worker holds anything of it any more."""
        self.jobs.forget(job)
        self.carry_out(self.scheduler.on_released(job, now_s))

    def _start(self, job: Job, place: str) -> None:
        job.move(Phase.RUNNING)
        job.attempt += 1
        job.why, job.place = "", place
        if job.started_s is None:
            job.started_s = time.monotonic()
            self.meter.queue_ms.append((job.started_s - job.arrived_s) * 1e3)
        itl_target_ms = self.scheduler.slots.classes[job.request.priority].itl_target_ms
        resident = self.fleet.residents[place]
        asked = order(job, resident.model.facts, itl_target_ms, self.config.cache.session_s)
        resident.order(asked, job.request.tensors)

    # small things

    def look_again(self, now_s: float | None = None) -> None:
        """Whoever waits for room or for a turn."""
        self.carry_out(self.scheduler.on_tick(time.monotonic() if now_s is None else now_s))

    def _set_alarm(self) -> None:
        """Waiting for memory ends at a time of its own, which may be before the next tick."""
        now_s = time.monotonic()
        wake_s = self.scheduler.wake_s(now_s)
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if wake_s is not None and not self.closing:
            self._alarm = asyncio.get_running_loop().call_later(wake_s - now_s, self.look_again)


def shutting_down() -> InferdError:
    return InferdError(Code.SHUTTING_DOWN, "the daemon is shutting down", retry_after_ms=5000)
