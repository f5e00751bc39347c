"""Virtual time: the scheduler of the daemon, with arrivals from a trace and workers that only count.

What stands here is what `node/` does, without waiting: events are told to the very same scheduler in the same order,
and its decisions are carried out in the same way. There is no randomness, so the same arrivals give the same decisions.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ...backends.messages import Delta, Finished, SamplingParams, Stopped
from ..domain.config import Config
from ..domain.decision import Cancel, Evict, Load, Preempt, Refuse, Reject, Start, Unload
from ..domain.errors import Code, InferdError
from ..domain.request import Job, Phase, Request
from ..policy.scheduler import Scheduler
from .agenda import Agenda
from .engine import Work
from .fairness import Book, who
from .fleet import Fleet
from .report import DONE, Outcome, Result

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...backends.messages import Event
    from ..domain.decision import Decision
    from .arrivals import Arrival
    from .fleet import Machine

TICK_S = 1.0
PATIENCE_S = 6 * 3600.0  # after the last arrival; who has no end by then is lost
NAME = "model"  # of the one that a trace does not name
PARAMS = SamplingParams(max_tokens=0, temperature=0.0, ignore_eos=True)


def replay(arrivals: Sequence[Arrival], machine: Machine, config: Config | None = None) -> Result:
    """Play the arrivals, which are in the order of time, until each has an end."""
    return Replay(arrivals, machine, config or Config()).run()


class Replay:
    """One run; the owner of every job in it."""

    def __init__(self, arrivals: Sequence[Arrival], machine: Machine, config: Config) -> None:
        self.arrivals = arrivals
        self.book = Book()
        self.result = Result([Outcome(arrival) for arrival in arrivals], self.book)
        self.agenda = Agenda()
        longest = max((a.prompt_tokens + a.output_tokens for a in arrivals), default=0)
        self.context_tokens = machine.context_tokens or longest + 1
        names = dict.fromkeys(a.model or NAME for a in arrivals)
        self.fleet = Fleet(self, names, machine, self.context_tokens)
        self.scheduler = Scheduler(self.fleet.ledger, config)
        self._jobs: dict[str, Job] = {}
        self._outcomes: dict[str, Outcome] = {}
        self._prompts: dict[int, list[int]] = {}  # one list for all prompts of a length
        self._n_arrived = 0
        self._alarm_s: float | None = None  # for those who wait for memory

    @property
    def now_s(self) -> float:
        return self.agenda.now_s

    def run(self) -> Result:
        self.fleet.introduce()
        if self.arrivals:
            self.agenda.at(self.arrivals[0].at_s, self._arrive)
            self.agenda.at(TICK_S, self._tick)
        limit_s = PATIENCE_S + (self.arrivals[-1].at_s if self.arrivals else 0.0)
        while self.now_s < limit_s and self._step():
            pass
        self.result.evictions = self.fleet.evictions
        return self.result

    # time

    def _step(self) -> bool:
        """The next thing that happens; False when nothing more will."""
        worker_s = min((worker.next_s() for worker in self.fleet.workers()), default=math.inf)
        agenda_s = self.agenda.next_s()
        next_s = min(worker_s, agenda_s)
        if next_s == math.inf:
            return False
        self.agenda.now_s = next_s
        self._hear()
        if agenda_s < worker_s:
            self.agenda.pop()()
        self.book.look(next_s)
        return True

    def _tick(self) -> None:
        self.carry_out(self.scheduler.on_tick(self.now_s))
        if self._jobs or self._n_arrived < len(self.arrivals):
            self.agenda.after(TICK_S, self._tick)

    def _set_alarm(self) -> None:
        wake_s = self.scheduler.wake_s(self.now_s)
        if wake_s is not None and wake_s != self._alarm_s:
            self.agenda.at(wake_s, lambda: self._ring(wake_s))
        self._alarm_s = wake_s

    def _ring(self, wake_s: float) -> None:
        if wake_s == self._alarm_s:
            self._alarm_s = None
            self.carry_out(self.scheduler.on_tick(self.now_s))

    # what clients do

    def _arrive(self) -> None:
        arrival, outcome = self.arrivals[self._n_arrived], self.result.outcomes[self._n_arrived]
        job = self._job(arrival)
        self._n_arrived += 1
        self._jobs[job.id], self._outcomes[job.id] = job, outcome
        self.book.arrive(who(job.request), arrival.prompt_tokens, arrival.output_tokens)
        self.carry_out(self.scheduler.on_request(job, self.now_s))
        if job.live:
            if not self.scheduler.lanes[job.request.model].slots_free:
                self._tell_queued(job)
            self._prepare(job)
        if self._n_arrived < len(self.arrivals):
            self.agenda.at(self.arrivals[self._n_arrived].at_s, self._arrive)
        else:
            self.book.end_of_arrivals()

    def _job(self, arrival: Arrival) -> Job:
        prompt = self._prompts.setdefault(arrival.prompt_tokens, [])
        if not prompt:
            prompt += [0] * arrival.prompt_tokens
        request = Request(
            id=f"r{self._n_arrived}",
            model=arrival.model or NAME,
            params=PARAMS,
            priority=arrival.priority,
            tenant=arrival.tenant,
            tokens=prompt,
            max_tokens=arrival.output_tokens,
            deadline_ms=arrival.deadline_ms,
        )
        return Job(request, self.now_s, self._n_arrived)

    def _prepare(self, job: Job) -> None:
        """Its prompt came as tokens, so it is read at once."""
        request = job.request
        assert isinstance(request.tokens, list)
        room = self.context_tokens - len(request.tokens)
        if room <= 0:
            return self._fail_queued(job, InferdError(Code.PROMPT_TOO_LONG, "the context is too short"))
        job.prompt = request.tokens
        job.max_tokens = min(request.max_tokens or room, room)
        self.carry_out(self.scheduler.on_prepared(job, self.now_s))
        if job.phase is Phase.QUEUED:
            self._tell_queued(job)
        if request.deadline_ms is not None and job.live:
            self.agenda.after(request.deadline_ms / 1e3, lambda: self._on_deadline(job))
        return None

    def _fail_queued(self, job: Job, error: InferdError) -> None:
        job.move(Phase.FAILED)
        self._end(job, error)
        self._withdraw(job)

    def _tell_queued(self, job: Job) -> None:
        outcome = self._outcomes[job.id]
        if outcome.eta_ms is None:
            outcome.eta_ms = self.scheduler.eta_ms(job, self.now_s)

    def _on_deadline(self, job: Job) -> None:
        if job.live:
            self._cancel(job, InferdError(Code.DEADLINE, f"not finished {job.request.deadline_ms} ms after arrival"))

    def _cancel(self, job: Job, error: InferdError) -> None:
        if not job.live:
            return
        phase = job.phase
        job.move(Phase.CANCELLED)
        self._end(job, error)
        if phase is Phase.QUEUED:
            self._withdraw(job)
        elif phase is Phase.RUNNING:  # a PARKING one has been told already
            self.fleet.worker(job.request.model).cancel(job.id, job.attempt, self.now_s)

    def _withdraw(self, job: Job) -> None:
        """It waited, and is over."""
        self.book.leave(who(job.request))
        del self._jobs[job.id]
        self.carry_out(self.scheduler.on_withdrawn(job, self.now_s))

    def _end(self, job: Job, error: InferdError | None = None) -> None:
        """What its client is told last."""
        outcome = self._outcomes.pop(job.id)
        outcome.end_ms = (self.now_s - job.arrived_s) * 1e3
        outcome.output_tokens = len(job.generated)
        outcome.ended = DONE if error is None else error.code.value
        if error is not None:
            outcome.reason, outcome.retry_after_ms = str(error.details.get("reason", "")), error.retry_after_ms

    # what the scheduler decides

    def carry_out(self, decisions: Sequence[Decision]) -> None:
        for decision in decisions:
            match decision:
                case Start(job=job):
                    self._note("start", job.id)
                    self._start(job)
                case Preempt(job=job):
                    self._note("preempt", job.id)
                    self.park(job)
                case Cancel(job=job, error=error):
                    self._note("cancel", job.id)
                    self._cancel(job, error)
                case Reject(job=job, error=error):
                    self._note("reject", job.id)
                    self._reject(job, error)
                case Load(place=name):
                    self._note("load", name)
                    self.fleet.load(name)
                case Unload(place=name):
                    self._note("unload", name)
                    self.fleet.drain(name)
                case Evict(place=name):
                    self._note("evict", name)
                    self.fleet.evict(name)
                case Refuse():
                    pass  # nobody here wants a model without a request
        self._set_alarm()

    def _note(self, what: str, whom: str) -> None:
        self.result.decisions.append((self.now_s, what, whom))

    def _start(self, job: Job) -> None:
        assert job.prompt is not None
        job.move(Phase.RUNNING)
        job.attempt += 1
        n_prompt, n_generated = len(job.prompt), len(job.generated)
        if job.started_s is None:
            job.started_s = self.now_s
            self._outcomes[job.id].queue_ms = (self.now_s - job.arrived_s) * 1e3
        self.book.start(who(job.request), n_prompt, n_generated, again=job.attempt > 1)
        n_left = job.max_tokens - n_generated
        work = Work(job.id, job.attempt, self.now_s, n_prompt + n_generated, n_left, n_generated)
        self.fleet.worker(job.request.model).submit(work)

    def park(self, job: Job) -> None:
        """It makes way, and waits again when its worker has let go of it."""
        if job.phase is not Phase.RUNNING:
            return
        job.move(Phase.PARKING)
        self._outcomes[job.id].parks += 1
        self.result.preemptions += 1
        self.fleet.worker(job.request.model).cancel(job.id, job.attempt, self.now_s)

    def _reject(self, job: Job, error: InferdError) -> None:
        job.move(Phase.FAILED)
        self._end(job, error)
        self.book.leave(who(job.request))
        del self._jobs[job.id]

    # what workers say

    def _hear(self) -> None:
        """All workers, so that the scheduler counts every token that has come."""
        heard = [event for worker in self.fleet.workers() for event in worker.events(self.now_s)]
        for event in heard:
            if isinstance(event, Delta):
                self._on_delta(event)
        self.book.look(self.now_s)
        for event in heard:
            if not isinstance(event, Delta):
                self._on_end(event)

    def _on_delta(self, event: Delta) -> None:
        job = self._jobs[event.job]
        if not job.live:
            return
        if job.first_token_s is None:
            self.scheduler.on_first_token(job, self.now_s)
            job.first_token_s = self.now_s
            self._outcomes[job.id].ttft_ms = (self.now_s - job.arrived_s) * 1e3
        job.last_token_s = self.now_s
        job.generated += event.tokens
        self.book.grow(who(job.request), len(event.tokens))

    def _on_end(self, event: Event) -> None:
        """Of an attempt."""
        job = self._jobs[event.job]
        match event:
            case Finished():
                if job.live:
                    self.scheduler.on_finished(job, event.prefill_ms, event.decode_ms, self.now_s)
                    job.move(Phase.DONE)
                    self._end(job)
                self._release(job)
            case Stopped() if job.phase is Phase.PARKING:
                job.move(Phase.QUEUED)
                self.book.stop(who(job.request), _tokens(job), waits=True)
                self.carry_out(self.scheduler.on_parked(job, self.now_s))
                self.fleet.end_drained(job.request.model)
            case Stopped():
                self._release(job)

    def _release(self, job: Job) -> None:
        """The worker holds nothing of it any more."""
        del self._jobs[job.id]
        self.book.stop(who(job.request), _tokens(job))
        self.carry_out(self.scheduler.on_released(job, self.now_s))
        self.fleet.end_drained(job.request.model)


def _tokens(job: Job) -> int:
    return len(job.prompt or ()) + len(job.generated)
