"""What workers say, and what it means for the jobs in them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ...backends.messages import Delta, Embedded, Finished, FinishReason, Inferred, Started, Stopped
from ..domain.errors import Code, InferdError
from ..domain.event import Kind, Severity
from ..domain.model import ModelState
from ..domain.request import Phase

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...backends.messages import Event
    from ..domain.request import Job
    from .node import Node
    from .resident import Resident


class Answers:
    """Shares the Node's loop and state; called by the Fleet with every frame."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.jobs = node.jobs
        self.scheduler = node.scheduler

    def on_events(self, resident: Resident, events: Sequence[Event]) -> None:
        """What one step of a worker brought."""
        now_s = time.monotonic()
        for event in events:
            if type(event) is Inferred:
                self._on_inferred(resident, event)
                continue
            job = self.jobs.get(event.job)
            if job is None or job.attempt != event.attempt or job.phase is Phase.QUEUED:
                continue  # of an attempt that is over
            if job.place != resident.place:
                continue  # another model's: a worker that was taken over may say anything
            if type(event) is not Delta:
                self._on_event(resident, job, event, now_s)
            elif job.live:
                if job.first_token_s is None:
                    self.scheduler.on_first_token(job, now_s)
                resident.model.produced = True
                self.jobs.grown(job, event, now_s)

    def on_worker_gone(self, resident: Resident) -> None:
        """What ran in it goes on in the next worker, but for what it may die of."""
        name, starved = resident.model.name, resident.ran_out()
        code = Code.WORKER_OOM if starved else Code.WORKER_CRASHED
        for job in self.jobs.on_crash(self.scheduler.places[resident.place].running):
            message = f"the worker of {name} ended {job.crashes} times while this request ran"
            message += ", the last time as it ran out of memory" if starved else ""
            self.jobs.failed(job, InferdError(code, message, retry_after_ms=1000))
        self.node.move_away(resident, "worker_crashed")

    def _on_inferred(self, resident: Resident, event: Inferred) -> None:
        """Its file is taken also when nobody wants it any more: the next one stands behind it."""
        blob = resident.take_blob(event)
        job = self.jobs.get(event.job)
        wanted = job is not None and job.attempt == event.attempt and job.live and job.phase is not Phase.QUEUED
        wanted = wanted and job is not None and job.place == resident.place
        self.jobs.statistics.on_call(resident.model.name, event.call, wanted=wanted)
        if job is None or not wanted:
            return blob.close()
        resident.model.produced = True
        return self.jobs.inferred(job, event, blob)

    def _on_event(self, resident: Resident, job: Job, event: Event, now_s: float) -> None:
        """Anything but a token."""
        match event:
            case Started():
                resident.widest_prompt = max(resident.widest_prompt, *(job.lengths or [event.prompt_tokens]))
                if job.live:
                    if not job.announced:
                        # One that goes on after a restart may find more than its prompt.
                        self.scheduler.on_started(job, min(event.cached_tokens, event.prompt_tokens))
                    else:
                        message = f"{job.id} goes on where it stopped ({job.parked_why})"
                        self.node.events.about(job, Severity.INFO, Kind.RESUMED, message)
                    device = resident.model.ready.device if resident.model.ready else ""
                    self.jobs.started(job, event, device)
            case Embedded():
                resident.model.produced = True
                if job.live:
                    self.jobs.embedded(job, event)
                    self.jobs.statistics.on_call(job.request.model, event.call)
            case Finished():
                self.jobs.drafts(job, event.draft_n, event.draft_n_accepted)
                if job.live:
                    if event.reason is not FinishReason.ERROR:
                        if not job.request.generates:  # where text begins, vectors and tensors are complete
                            self.scheduler.on_first_token(job, now_s)
                        self.scheduler.on_finished(job, event.prefill_ms, event.decode_ms, now_s)
                    self.jobs.finished(job, event, now_s)
                self.jobs.attempt_over(job, event.n_computed)
                self._release(resident, job, now_s)
            case Stopped(parked=parked):
                self.jobs.drafts(job, event.draft_n, event.draft_n_accepted)
                if job.live and parked and job.phase is Phase.RUNNING:
                    job.move(Phase.PARKING)
                    job.parked_why = "kv_full"
                self.jobs.attempt_over(job, event.n_computed)
                if job.phase is Phase.PARKING:
                    job.move(Phase.QUEUED)
                    self.node.carry_out(self.scheduler.on_parked(job, now_s))
                    self._end_drained(resident)
                else:
                    self._release(resident, job, now_s)

    def _release(self, resident: Resident, job: Job, now_s: float) -> None:
        """The worker holds nothing of the job any more."""
        self.node.forget(job, now_s)
        self._end_drained(resident)
        self.node.changes.notify()

    def _end_drained(self, resident: Resident) -> None:
        """A draining worker ends with the last that runs in it."""
        if resident.model.state is ModelState.DRAINING and not self.scheduler.places[resident.place].running:
            resident.stop()
