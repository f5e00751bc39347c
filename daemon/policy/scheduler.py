"""Whose turn it is. Events and the time come in, decisions go out; jobs are moved by the Node, not here.

One lane per model holds the jobs that wait for it, and the places where it may be loaded with those in their slots.
The rules stand in rooms of their own: `desk` lets in, `line` and `slots` give turns, `keys` drops what was superseded,
`rooms` decides which models are in memory, and where. Every decision is a pure function's answer to a kept question.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ..domain.decision import Refuse, Reject, Unload
from ..domain.request import Priority
from .desk import Desk
from .journal import Journal, Record
from .keys import Keys
from .lane import Lane
from .line import Line
from .place import Place
from .pressure import Grade, Pressure, shed
from .reclass import move
from .rooms import NoRoom, Rooms, no_room
from .slots import Slots
from .turns import wait

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..domain.config import Config
    from ..domain.decision import Decision
    from ..domain.errors import InferdError
    from ..domain.request import Job
    from .ledger import Ledger
    from .line import Ticket


class Scheduler:
    def __init__(self, ledger: Ledger, config: Config, journal: Journal | None = None) -> None:
        options = config.scheduler
        self.fifo = options.policy == "fifo"
        self.lanes: dict[str, Lane] = {}
        self.places: dict[str, Place] = {}
        self.journal = journal or Journal()
        classes = {priority: getattr(options, priority.value) for priority in Priority}
        max_parks = options.max_parks if options.preempt and not self.fifo else 0
        self.desk = Desk(config.queue, classes, max_parks=max_parks, tenants=config.tenants)
        self.rooms = Rooms(ledger, self.lanes, options, self.journal)
        self.slots = Slots(classes, self.journal, max_parks=max_parks)
        self.pressure = Pressure(config.memory.pressure)
        self.keys = Keys()

    def add_model(
        self,
        name: str,
        keep_alive_s: float,
        *,
        slots: int = 1,
        context_tokens: int = 1 << 31,
        pinned: bool = False,
        helper_bytes: int = 0,
        replicas: int = 1,
        grows: bool = True,
    ) -> None:
        """A model that was not known, or whose file is another one now; nothing waits for it or runs."""
        if (known := self.lanes.get(name)) is not None:
            assert not known.line
            for place in list(known.places):
                self.remove_place(place.name)
        line = Line(self.slots.counters, fifo=self.fifo)
        self.lanes[name] = Lane(name, keep_alive_s, line, slots, context_tokens, pinned, helper_bytes, replicas, grows)

    def add_place(self, model: str, name: str, bytes_on: Mapping[str, int]) -> None:
        """A place where the model may be loaded, less preferred than those that it has."""
        assert name not in self.places
        self.places[name] = place = Place(name, self.lanes[model], bytes_on)
        place.lane.places.append(place)

    def remove_place(self, name: str) -> None:
        """Nothing is loaded there, and never will be."""
        place = self.places.pop(name)
        assert not any((place.running, place.up)), "somebody runs there, or it is loaded, or about to be"
        place.lane.places.remove(place)

    # what happens to requests

    def on_request(self, job: Job, now_s: float) -> list[Decision]:
        """The ticket is taken at arrival; the job can start once it is prepared."""
        lane = self.lanes[job.request.model]
        lane.note_use(now_s)
        self.slots.charge(lane)
        ticket = self.desk.ticket(lane, job)
        question = self.desk.question(lane, job, ticket, now_s)
        error = self.desk.refusal(lane, question)
        answer = None if error is None else error.details["reason"]
        self.journal.note(Record(now_s, "admit", (job.id,), lane.name, question, answer))
        if error is not None:
            return [Reject(job, error)]
        superseded = self.keys.arrive(job)
        for cancel in superseded:
            self.journal.note_end(cancel.job, cancel.error, now_s)
        self.desk.hold(job)
        self._enter(lane, job, ticket)
        lane.note_work(job.request.priority, ticket, now_s)
        # First what the rules decide: an older one may be among those who are sent away.
        return self._settle(lane, now_s) + superseded

    def on_prepared(self, job: Job, now_s: float) -> list[Decision]:
        """Its prompt has been read: the ticket is corrected."""
        lane = self.lanes[job.request.model]
        assert job.prompt is not None
        lane.pace.on_prompt(job.request.prompt_bytes, len(job.prompt))
        ticket = lane.line.tickets[job]
        self.desk.leave(job, ticket)
        lane.line.correct(job, len(job.prompt), lane.pace.expected_output(job.request.max_tokens, job.max_tokens))
        self.desk.enter(job, ticket)
        if not self.keys.blocked(job):
            lane.line.make_pickable(job)
        return self._settle(lane, now_s)

    def on_withdrawn(self, job: Job, now_s: float) -> list[Decision]:
        """A queued job was cancelled or failed."""
        lane = self.lanes[job.request.model]
        self._leave(lane, job)
        return self._settle(lane, now_s) + self._others(lane, now_s)

    def on_started(self, job: Job, cached_tokens: int) -> None:
        """Its worker has it; so many tokens of its prompt need not be computed."""
        lane = self.lanes[job.request.model]
        if cached_tokens and job in lane.running:
            self.slots.refund(lane, job, cached_tokens)

    def on_first_token(self, job: Job, now_s: float) -> None:
        """How good was the forecast?"""
        self.lanes[job.request.model].note_first_token(job, now_s)

    def on_finished(self, job: Job, prefill_ms: float, decode_ms: float, now_s: float) -> None:
        """It came to its end; the times are those of its last attempt, in its slot."""
        self.lanes[job.request.model].note_end(job, prefill_ms, decode_ms, now_s)

    def on_released(self, job: Job, now_s: float) -> list[Decision]:
        """The worker has let go of the job's slot, and the job is over."""
        lane = self.lanes[job.request.model]
        self._let_go(lane, job)
        self.desk.drop(job)
        self.keys.forget(job)
        return self._settle(lane, now_s) + self._others(lane, now_s)

    def on_parked(self, job: Job, now_s: float) -> list[Decision]:
        """Its slot is free and it waits again, at its old place in its class."""
        lane = self.lanes[job.request.model]
        ticket = self._let_go(lane, job)
        ticket.resumed = True
        self._enter(lane, job, ticket)
        return self._settle(lane, now_s)

    def on_priority(self, jobs: Sequence[Job], priority: Priority, now_s: float) -> list[Decision]:
        """The choices of one call belong to another class from now on."""
        lanes = dict.fromkeys(self.lanes[job.request.model] for job in jobs)  # whoever names the call names the models
        for job in jobs:
            move(job, priority, self.lanes[job.request.model], self.desk, self.slots, now_s)
        return [each for lane in lanes for each in self._settle(lane, now_s) + self._others(lane, now_s)]

    # what happens to models

    def on_load(self, name: str, now_s: float) -> list[Decision]:
        """Somebody asks for the model without a request."""
        lane = self.lanes[name]
        if not lane.slots and not lane.loading and lane.asked_s is None:
            lane.asked_s = now_s
        return self._settle(lane, now_s)

    def on_load_withdrawn(self, name: str, now_s: float) -> list[Decision]:
        """Nobody asks for it any more; a load that has begun goes on."""
        self.lanes[name].asked_s = None
        return self._others(self.lanes[name], now_s)

    def on_lease(self, name: str, lease: str, now_s: float) -> list[Decision]:
        """Somebody wants the model loaded, and to stay so until `on_lease_ended`."""
        lane = self.lanes[name]
        lane.leases[lease] = now_s
        lane.note_use(now_s)
        return self._settle(lane, now_s)

    def on_lease_ended(self, name: str, lease: str, now_s: float) -> list[Decision]:
        lane = self.lanes[name]
        lane.leases.pop(lease, None)
        return self._settle(lane, now_s) + self._others(lane, now_s)

    def on_given_up(self, name: str) -> None:
        """Whoever wanted the model loaded is told that it is not: leases and asks are void."""
        self.lanes[name].leases.clear()
        self.lanes[name].asked_s = None

    def on_ready(
        self, name: str, slots: int, kv_cells: int, load_s: float, now_s: float, *, shares_prefixes: bool = False
    ) -> list[Decision]:
        """The worker in this place takes requests."""
        place = self.places[name]
        place.loading, place.slots, place.kv_cells, place.ready_s = False, slots, kv_cells, now_s
        place.shares_prefixes = shares_prefixes
        place.failed, place.lane.asked_s = False, None
        place.lane.pace.load_s.add(load_s)
        return self._settle(place.lane, now_s)

    def on_closed(self, name: str, until_s: float) -> None:
        """The place takes nothing new until then: it drains, is in back-off, or its device is lost."""
        self.places[name].close(until_s)
        self.places[name].lane.asked_s = None

    def on_cold(self, name: str, now_s: float) -> list[Decision]:
        """Its process is gone and its bytes are free: for those it made way for, then for its own requests."""
        place = self.places[name]
        place.closed_until_s = place.cold_s = now_s
        return self.on_freed(name, now_s) + self._settle(place.lane, now_s) + self._others(place.lane, now_s)

    def on_load_failed(self, name: str, error: InferdError, now_s: float) -> list[Decision]:
        """Nobody who waits for the model can be served, unless it is loaded elsewhere, or can be tried there."""
        place = self.places[name]
        place.failed = True
        options = self.rooms.options_of(place.lane, now_s).options
        untried = [o for o in options if not self.places[o.place].failed and not self.rooms.short_for_ever(o)]
        if untried or any(other.up for other in place.lane.places):
            return self._settle(place.lane, now_s) + self._others(place.lane, now_s)
        return self._refuse(place.lane, error, now_s) + self._others(place.lane, now_s)

    # time

    def on_pressure(self, psi_some_avg10: float | None, now_s: float) -> list[Decision]:
        """What the machine says about its memory, once a second."""
        grade = self.pressure.on_reading(psi_some_avg10, now_s)
        self.desk.pressure = int(grade)
        if grade < Grade.SHED_BATCH:
            return []
        rejects: list[Decision] = []
        for lane in self.lanes.values():
            batch = [job for job in lane.line if job.request.priority is Priority.BATCH]
            rejects += [self._reject(lane, job, shed(), now_s) for job in batch]
            lane.note_idle(now_s)
        return rejects

    def on_freed(self, name: str, now_s: float) -> list[Decision]:
        """Bytes of the model are free: those it made way for may have them."""
        waited = [place for place in self.places.values() if name in place.granted]
        for place in waited:  # all of them first: for whoever asks next it must not seem to be on its way out still
            place.granted.discard(name)
        return [decision for place in waited for decision in self._settle(place.lane, now_s)]

    def on_tick(self, now_s: float) -> list[Decision]:
        """Those who wait look again; what is idle beyond its keep-alive goes, unless it makes way for somebody."""
        decisions: list[Decision] = []
        for lane in self.lanes.values():
            decisions += self._serve(lane, now_s)
        decisions += self._others(None, now_s)
        leaving = set().union(*(place.granted for place in self.places.values()))
        idle = (place.name for place in self.places.values() if place.idle_too_long(now_s))
        return decisions + [Unload(name) for name in idle if name not in leaving]

    def wake_s(self, now_s: float) -> float | None:
        """When `on_tick` is due for somebody who waits for room; None when nobody does."""
        times = (self.rooms.wake_s(lane, now_s) for lane in self.lanes.values() if self._claims(lane, now_s))
        return min((time_s for time_s in times if time_s is not None), default=None)

    # questions

    def eta_ms(self, job: Job, now_s: float) -> tuple[float, float] | None:
        """Between which times from now it gets its first token, in 80 of 100 cases; None while nothing is known."""
        return self.lanes[job.request.model].eta_ms(job, now_s)

    def why(self, job: Job, now_s: float) -> str:
        """What a waiting job waits for; recorded when it is something else than before (`job.why`)."""
        lane, short = self.lanes[job.request.model], self.pressure.grade >= Grade.NO_LOADS
        question = lane.wait_question(job, now_s, superseding=self.keys.blocked(job), pressure=short)
        answer = wait(question)
        if answer != job.why:
            self.journal.note(Record(now_s, "queue", (job.id,), lane.name, question, answer))
        return answer

    # how it hangs together

    def _settle(self, lane: Lane, now_s: float) -> list[Decision]:
        """Start what can start, then have room made for what is wanted."""
        return self._serve(lane, now_s) + self._claim(lane, now_s)

    def _serve(self, lane: Lane, now_s: float) -> list[Decision]:
        """Give turns, and note idleness."""
        self.slots.charge(lane)
        starts = self.slots.fill(lane, now_s)
        for start in starts:
            self.desk.leave(start.job, self.places[start.place].running[start.job])
            self.keys.start(start.job)
        lane.note_idle(now_s)
        return [*starts, *self.slots.make_way(lane, now_s)]

    def _claim(self, lane: Lane, now_s: float) -> list[Decision]:
        """Memory for the lane, if it wants any."""
        if not self._claims(lane, now_s):
            return []
        if lane.served:
            return self.rooms.claim_another(lane, now_s)
        try:
            return self.rooms.claim(lane, now_s)
        except NoRoom as no:
            return self._refuse(lane, no_room(lane.name, no.short), now_s)

    def _claims(self, lane: Lane, now_s: float) -> bool:
        """Whether the lane wants memory and may have it."""
        if lane.closed(now_s) or self.pressure.grade >= Grade.NO_LOADS:
            return False
        if lane.served:
            return lane.wants_another() and self.pressure.grade < Grade.NO_PREFETCH
        return lane.wanted_since_s() is not None

    def _others(self, lane: Lane | None, now_s: float) -> list[Decision]:
        """Something in `lane` has ended, and others may wait for just that: who waits longest, and luxuries last."""
        waiting = [other for other in self.lanes.values() if other is not lane and self._claims(other, now_s)]
        waiting.sort(key=lambda other: (other.served, other.wanted_since_s() or math.inf))
        return [decision for other in waiting for decision in self._claim(other, now_s)]

    def _enter(self, lane: Lane, job: Job, ticket: Ticket) -> None:
        ticket.pickable = job.prompt is not None and not self.keys.blocked(job)
        lane.line.add(job, ticket)
        self.desk.enter(job, ticket)

    def _leave(self, lane: Lane, job: Job) -> None:
        self.desk.leave(job, lane.line.remove(job))
        self.desk.drop(job)
        self.keys.forget(job)

    def _let_go(self, lane: Lane, job: Job) -> Ticket:
        """The slot is free; what waited for just this job can be picked."""
        self.slots.charge(lane)
        for follower in self.keys.let_go(job):
            if follower in lane.line and follower.prompt is not None:
                lane.line.make_pickable(follower)
        return lane.place_of(job).let_go(job)

    def _refuse(self, lane: Lane, error: InferdError, now_s: float) -> list[Decision]:
        """Nobody who wants the model gets it."""
        lane.asked_s = None
        for place in lane.places:
            place.failed = False  # the next one who asks has every place tried again
        return [*(self._reject(lane, job, error, now_s) for job in lane.waiting), Refuse(lane.name, error)]

    def _reject(self, lane: Lane, job: Job, error: InferdError, now_s: float) -> Reject:
        self._leave(lane, job)
        self.journal.note_end(job, error, now_s)
        return Reject(job, error)
