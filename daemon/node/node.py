"""The heart: owns every mutable fact and carries decisions out.

Everything that changes something is a plain `def` on the event loop: no lock, no await in the middle. What must wait
(a prompt being read, a worker being born) is a task that ends by calling such a `def`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any

import msgspec

from ...backends.messages import (
    Cancel,
    Delta,
    Finished,
    LoadFailed,
    Loading,
    Ready,
    Started,
    Step,
    Stopped,
    Submit,
    WorkerStats,
)
from ..domain.decision import Load, Reject, Start, Unload
from ..domain.errors import Code, InferdError
from ..domain.model import ModelState
from ..domain.request import Phase, Priority, check_tokens
from ..policy.ledger import Ledger, Shortfall
from ..policy.meter import Meter
from ..policy.scheduler import Scheduler, no_room
from .changes import Changes
from .jobs import Jobs
from .plans import keep_alive_s, make_plan
from .resident import Resident

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Sequence

    from ...backends.messages import ChatMessage, Event, FromWorker
    from ...backends.process import Exit
    from ..domain.config import Config
    from ..domain.decision import Decision
    from ..domain.model import Model
    from ..domain.request import Job, Request
    from ..system.catalog import Catalog
    from .stream import Stream

RANK = {Priority.BATCH: 0, Priority.NORMAL: 1, Priority.INTERACTIVE: 2}  # who is parked first when KV is short


class Node:
    """State and its single writer. Doors call `submit`, `cancel`, `load`, `unload`; they never look and then leap."""

    def __init__(self, config: Config, catalog: Catalog, ledger: Ledger, n_threads: int) -> None:
        self.config = config
        self.catalog = catalog
        self.ledger = ledger
        self.n_threads = n_threads
        self.gpus: tuple[str, ...] = ()  # device ids that llama.cpp can use
        self.meter = Meter()
        self.jobs = Jobs(self.meter)
        self.changes = Changes()
        self.residents: dict[str, Resident] = {}
        self.closing = False
        queue = config.queue
        self.scheduler = Scheduler(ledger, queue.max_requests, queue.max_requests_per_tenant)
        self._tasks: set[asyncio.Task[None]] = set()

    # what doors ask for

    def submit(self, request: Request) -> Stream:
        """Take a request in. Raises InferdError when it is refused at once; later refusals end the stream."""
        now_s = time.monotonic()
        if self.closing:
            raise InferdError(Code.SHUTTING_DOWN, "the daemon is shutting down", retry_after_ms=5000)
        resident = self.resident(request.model)
        if resident.model.state is ModelState.FAILED:
            raise resident.refusal(now_s)
        job, stream = self.jobs.add(request, now_s)
        decisions = self.scheduler.on_request(job, now_s)
        self._carry_out(decisions)
        if job.live:
            self._spawn(self._prepare(job, resident), f"prepare {job.id}")
            if request.deadline_ms is not None:
                loop = asyncio.get_running_loop()
                loop.call_later(request.deadline_ms / 1e3, self._on_deadline, job)
        return stream

    def cancel(self, job_id: str, error: InferdError | None = None) -> bool:
        """End a job whatever it is doing; False when there is no such live job."""
        job = self.jobs.get(job_id)
        return job is not None and self._cancel(job, error)

    def hang_up(self, stream: Stream) -> None:
        """The reader of this stream is gone; nothing happens when the request is over already."""
        self._cancel(stream.job)

    async def tokenize(
        self, model: str, *, messages: Sequence[ChatMessage] | None = None, prompt: str | None = None
    ) -> list[int]:
        """Token ids; loads nothing but the vocabulary."""
        return await self.resident(model).prompter.prepare(messages=messages, prompt=prompt)

    async def load(self, name: str) -> AsyncIterator[Model]:
        """Have a model loaded; yields it at each change until it is ready. Raises InferdError when it fails."""
        resident = self.resident(name)
        model = resident.model
        self._ask_load(resident)
        while model.state is not ModelState.READY:
            if resident.load_error is not None and model.state in (ModelState.FAILED, ModelState.COLD):
                raise resident.load_error
            if model.state is ModelState.COLD and not self.scheduler.lanes[name].loading:
                self._ask_load(resident)
            yield model
            await self.changes.wait()
        yield model

    async def unload(self, name: str, force: bool) -> bool:
        """Have a model unloaded; False when it was not loaded. Running requests end first, unless `force`."""
        resident = self.resident(name)
        model = resident.model
        resident.prompter.close()
        if model.state not in (ModelState.LOADING, ModelState.READY, ModelState.DRAINING):
            return False
        self._drain(resident, force)
        while model.state is ModelState.DRAINING:
            await self.changes.wait()
        return True

    def resident(self, name: str) -> Resident:
        """The model of that name, known from now on. Raises NOT_FOUND, or MODEL_CORRUPT for a file nobody can read."""
        if (resident := self.residents.get(name)) is not None:
            return resident
        entry = self.catalog.scan().get(name)
        if entry is None:
            raise InferdError(Code.NOT_FOUND, f"there is no model {name[:128]!r}; see: inferd models", field="model")
        if entry.facts is None:
            raise InferdError(Code.MODEL_CORRUPT, f"{name}: {entry.error}", field="model")
        plan = make_plan(name, entry.facts, self.config, self.n_threads, self.gpus)
        resident = Resident(name, entry.facts, plan, keep_alive_s(name, self.config), self.ledger)
        self.residents[name] = resident
        self.scheduler.add_model(name, resident.footprint.bytes_on, resident.model.keep_alive_s)
        return resident

    # time

    def tick(self, now_s: float) -> None:
        """Once a second: rates, keep-alive, readers that stand still, news for those who wait."""
        self.meter.on_tick(now_s)
        self._carry_out(self.scheduler.on_tick(now_s))
        limit_s = self.config.server.slow_consumer_s
        for job in self.jobs.stalled(now_s, limit_s):
            message = f"the reader of this stream took nothing for {limit_s:g} s"
            self.cancel(job.id, InferdError(Code.SLOW_CONSUMER, message))
        for lane in self.scheduler.lanes.values():
            for position, job in enumerate(lane.waiting):
                self._tell_queued(job, position, now_s)
        for resident in self.residents.values():
            model, prompter = resident.model, resident.prompter
            idle = model.state is ModelState.COLD and prompter.open and model.keep_alive_s >= 0
            if idle and now_s - prompter.used_s > model.keep_alive_s:
                prompter.close()
        self.changes.notify()

    async def drain(self, limit_s: float) -> None:
        """Refuse what is new, let what is here finish, then end every process. Bounded by `limit_s` and a grace."""
        self.closing = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                while any(job.live for job in self.jobs):
                    await self.changes.wait()
        error = InferdError(Code.SHUTTING_DOWN, "the daemon is shutting down", retry_after_ms=5000)
        for job in self.jobs:
            self.cancel(job.id, error)
        for resident in self.residents.values():
            resident.prompter.close()
            if resident.model.state in (ModelState.LOADING, ModelState.READY, ModelState.DRAINING):
                self._drain(resident, force=True)
        while any(r.model.state is ModelState.DRAINING or r.prompter.open for r in self.residents.values()):
            await self.changes.wait()

    # what happens

    async def _prepare(self, job: Job, resident: Resident) -> None:
        request = job.request
        try:
            if request.tokens is not None:
                tokens = list(request.tokens)
            else:
                tokens = await resident.prompter.prepare(messages=request.messages, prompt=request.prompt)
            if job.live:
                self._on_prepared(job, tokens, resident.model)
        except InferdError as error:
            self._fail_queued(job, error)

    def _on_prepared(self, job: Job, tokens: list[int], model: Model) -> None:
        """The prompt has a length now, and its limits can be checked. Raises InferdError."""
        check_fits(job.request, len(tokens), model)
        check_tokens("tokens", job.request.tokens or (), model.facts.n_vocab)
        check_tokens("logit_bias", sorted(job.request.params.logit_bias), model.facts.n_vocab)
        room = model.plan.n_ctx - len(tokens)
        job.prompt = tokens
        job.max_tokens = min(job.request.max_tokens or room, room)
        self._carry_out(self.scheduler.on_prepared(job, time.monotonic()))

    def _fail_queued(self, job: Job, error: InferdError) -> None:
        if job.live:
            phase = job.phase
            self.jobs.failed(job, error)
            self._let_go(job, phase)

    def _on_deadline(self, job: Job) -> None:
        if job.live:
            message = f"not finished {job.request.deadline_ms} ms after arrival"
            self.cancel(job.id, InferdError(Code.DEADLINE, message, field="deadline_ms"))

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
            self._carry_out(self.scheduler.on_withdrawn(job, time.monotonic()))
            self.jobs.forget(job)
        elif phase is Phase.RUNNING:  # a PARKING one has been told already
            self.residents[job.request.model].send(Cancel(job.id, job.attempt))
        self.changes.notify()

    def _ask_load(self, resident: Resident) -> None:
        if self.closing:
            raise InferdError(Code.SHUTTING_DOWN, "the daemon is shutting down", retry_after_ms=5000)
        model, now_s = resident.model, time.monotonic()
        if model.state is ModelState.FAILED:
            raise resident.refusal(now_s)
        if model.state is ModelState.COLD:
            if (short := self.ledger.shortfall(resident.footprint.bytes_on)) is not None:
                raise no_room(model.name, short.pool, short.needed_bytes, short.free_bytes)
            self._carry_out(self.scheduler.on_load(model.name, now_s))

    def _carry_out(self, decisions: Sequence[Decision]) -> None:
        for decision in decisions:
            match decision:
                case Start(job=job):
                    self._start(job)
                case Load(model=name):
                    self._load(self.residents[name])
                case Unload(model=name):
                    self._drain(self.residents[name], force=False)
                case Reject(job=job, error=error):
                    self.jobs.failed(job, error)
                    self.jobs.forget(job)

    def _start(self, job: Job) -> None:
        assert job.prompt is not None
        job.move(Phase.RUNNING)
        job.attempt += 1
        job.why = ""
        params = msgspec.structs.replace(job.request.params, max_tokens=job.max_tokens)
        tokens = job.prompt + job.generated
        submit = Submit(
            job.id, job.attempt, tokens, len(job.prompt), params, RANK[job.request.priority], job.sent_bytes
        )
        self.residents[job.request.model].send(submit)

    def _load(self, resident: Resident) -> None:
        name, now_s = resident.model.name, time.monotonic()
        try:
            resident.load(
                now_s,
                lambda message: self._on_message(resident, message),
                lambda: self._on_gone(resident),
                lambda how: self._on_reaped(resident, how),
            )
        except Shortfall as short:
            self.scheduler.on_closed(name, now_s)
            error = no_room(name, short.pool, short.needed_bytes, short.free_bytes)
            self._carry_out(self.scheduler.on_load_failed(name, error))
        self.changes.notify()

    def _drain(self, resident: Resident, force: bool) -> None:
        """Take nothing new; end the worker when its last request ended, or now."""
        model = resident.model
        if model.state is not ModelState.DRAINING:
            loading = model.state is ModelState.LOADING
            model.move(ModelState.DRAINING)
            self.scheduler.on_closed(model.name, float("inf"))
            force = force or loading
        running = self.scheduler.lanes[model.name].running
        if force:
            error = InferdError(Code.CANCELLED, f"{model.name} was unloaded")
            for job in list(running):
                self.cancel(job.id, error)
        if force or not running:
            resident.stop()
        self.changes.notify()

    # what workers say

    def _on_message(self, resident: Resident, message: FromWorker) -> None:
        model = resident.model
        match message:
            case Step(events=events):
                now_s = time.monotonic()
                for event in events:
                    self._on_event(resident, event, now_s)
            case WorkerStats():
                model.stats = message
            case Loading(progress=progress):
                model.load_progress = progress
                self.changes.notify()
            case Ready():
                self._on_ready(resident, message)
            case LoadFailed():
                resident.note_load_failure(message)
            case other:
                raise AssertionError(f"not from a worker: {other}")

    def _on_ready(self, resident: Resident, ready: Ready) -> None:
        model, now_s = resident.model, time.monotonic()
        resident.worker_ready()
        model.move(ModelState.READY)
        model.ready, model.load_progress = ready, 1.0
        model.load_ms = (now_s - model.load_started_s) * 1e3
        self._carry_out(self.scheduler.on_ready(model.name, ready.n_slots, ready.kv_cells, now_s))
        self.changes.notify()

    def _on_event(self, resident: Resident, event: Event, now_s: float) -> None:
        job = self.jobs.get(event.job)
        if job is None or job.attempt != event.attempt:
            return
        match event:
            case Delta():
                if job.live:
                    self.jobs.grown(job, event, now_s)
                    resident.model.produced = True
            case Started():
                if job.live:
                    device = resident.model.ready.device if resident.model.ready else ""
                    self.jobs.started(job, event, device, now_s)
            case Finished():
                if job.live:
                    self.jobs.finished(job, event, now_s)
                self._release(resident, job, now_s)
            case Stopped(parked=parked):
                if job.live and parked and job.phase is Phase.RUNNING:
                    job.move(Phase.PARKING)
                if job.phase is Phase.PARKING:
                    job.move(Phase.QUEUED)
                    self._carry_out(self.scheduler.on_parked(job, now_s))
                else:
                    self._release(resident, job, now_s)

    def _release(self, resident: Resident, job: Job, now_s: float) -> None:
        """The worker holds nothing of the job any more."""
        self.jobs.forget(job)
        self._carry_out(self.scheduler.on_released(job, now_s))
        if resident.model.state is ModelState.DRAINING and not self.scheduler.lanes[resident.model.name].running:
            resident.stop()
        self.changes.notify()

    def _on_gone(self, resident: Resident) -> None:
        """The worker's channel ended: what ran in it ends now, before the process is reaped."""
        name = resident.model.name
        lane = self.scheduler.lanes[name]
        self.scheduler.on_closed(name, float("inf"))
        message = f"the worker of {name} ended while this request ran"
        for job in list(lane.running):
            if job.live:
                self.jobs.failed(job, InferdError(Code.WORKER_CRASHED, message, retry_after_ms=1000))
            self.jobs.forget(job)
            self.scheduler.on_released(job, time.monotonic())
        self.changes.notify()

    def _on_reaped(self, resident: Resident, how: Exit) -> None:
        now_s = time.monotonic()
        model = resident.model
        loading = model.state is ModelState.LOADING
        back_off_s = resident.reaped(how, now_s)
        if loading and resident.load_error is not None and model.state is ModelState.FAILED:
            self._carry_out(self.scheduler.on_load_failed(model.name, resident.load_error))
        if model.state is ModelState.FAILED:
            asyncio.get_running_loop().call_later(back_off_s, self._on_back_off_over, resident)
        else:
            self._carry_out(self.scheduler.on_cold(model.name, now_s))
        self.changes.notify()

    def _on_back_off_over(self, resident: Resident) -> None:
        resident.model.move(ModelState.COLD)
        if not self.closing:
            self._carry_out(self.scheduler.on_cold(resident.model.name, time.monotonic()))
        self.changes.notify()

    # small things

    def _tell_queued(self, job: Job, position: int, now_s: float) -> None:
        job.why = self.scheduler.why(job)
        self.jobs.tell_queued(job, position, now_s)

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def check_fits(request: Request, n_prompt: int, model: Model) -> None:
    """The prompt and what it asks for must fit one context. Raises InferdError naming both numbers."""
    n_ctx = model.plan.n_ctx
    if n_prompt == 0:
        raise InferdError(Code.INVALID, "the prompt is empty", field="prompt")
    if n_prompt >= n_ctx:
        message = f"the prompt has {n_prompt:,} tokens, but {model.name} has a context of {n_ctx:,}"
        raise InferdError(Code.PROMPT_TOO_LONG, message, field="prompt", prompt_tokens=n_prompt, context_tokens=n_ctx)
    if request.max_tokens is not None and request.max_tokens > n_ctx:
        message = f"max_tokens is {request.max_tokens:,}, but {model.name} has a context of {n_ctx:,}"
        raise InferdError(Code.INVALID, message, field="max_tokens", highest=n_ctx)
