"""The slots of a lane: who gets one, who makes way, and whose account what is computed goes to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..domain.decision import Preempt, Start
from ..domain.request import Priority
from .fair import Counters, service
from .journal import Record
from .line import RANK
from .placing import Copy, RouteQuestion, route
from .turns import SHOWN, PreemptQuestion, Running, TurnQuestion, Waiting, preempt, turn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..domain.config import ClassOptions
    from ..domain.decision import Decision
    from ..domain.request import Job
    from .journal import Journal
    from .lane import Lane
    from .line import Ticket
    from .place import Place

LOWER = (Priority.BATCH, Priority.NORMAL)  # classes with a floor, the lowest first


class Slots:
    """The counters of the tenants are those of the whole machine, by class; floor shares are kept by lane."""

    def __init__(self, classes: Mapping[Priority, ClassOptions], journal: Journal, *, max_parks: int) -> None:
        self.counters = {priority: Counters() for priority in Priority}
        self.classes = classes
        self.journal = journal
        self.max_parks = max_parks  # of one request; 0: nobody makes way

    def fill(self, lane: Lane, now_s: float) -> list[Start]:
        """Pickable jobs in their turn, while slots and cells last; one that waits for cells holds back its juniors."""
        starts: list[Start] = []
        while lane.line.n_pickable and (free := [place for place in lane.places if place.slots_free]):
            owed = [p for p in LOWER if self._is_owed(lane, p, now_s)]
            question, jobs = self._question(lane, owed)
            chosen = turn(question)
            place = None if chosen is None else self._route(lane, free, jobs[chosen], now_s)
            if chosen is None or place is None:
                break
            self.journal.note(Record(now_s, "start", (chosen,), lane.name, question, chosen))
            self._start(place, jobs[chosen], owed, now_s)
            starts.append(Start(jobs[chosen], place.name))
        if lane.owed_tokens:
            for priority in LOWER:
                if not lane.line.totals[priority].n:
                    lane.owed_tokens.pop(priority, None)  # a share is not saved up
        return starts

    def _route(self, lane: Lane, free: list[Place], job: Job, now_s: float) -> Place | None:
        """Where the job runs; None when it has to wait for KV cells."""
        if len(lane.places) == 1:
            return free[0] if free[0].takes(job) else None
        last = lane.sessions.get(_session(job))
        copies = tuple(Copy(p.name, p.slots_free, p.slots, p.cells_free(), p.takes(job), p.name == last) for p in free)
        question = RouteQuestion(job.id, copies)
        chosen = route(question)
        if chosen is not None:
            lane.remember(_session(job), chosen)
            self.journal.note(Record(now_s, "route", (job.id,), lane.name, question, chosen))
        return next((place for place in free if place.name == chosen), None)

    def make_way(self, lane: Lane, now_s: float) -> list[Decision]:
        """Interactive requests that found no slot have others parked, as many as there are of them."""
        waiting = lane.line.pickable[Priority.INTERACTIVE]
        decisions: list[Decision] = []
        if not self.max_parks or not waiting:
            return []
        ready = [place for place in lane.places if place.slots and not place.leaving]
        # Those that are over for their client, and only wait for their worker to say so, give their slot back anyway.
        n_leaving = sum(job in place.parking or not job.live for place in ready for job in place.running)
        for _ in range(min(waiting, lane.slots) - n_leaving):
            running = [(j, ticket) for p in ready for j, ticket in p.running.items() if j.live and j not in p.parking]
            if all(job.request.priority is Priority.INTERACTIVE for job, _ in running):
                break  # the usual case when all is busy; nothing to decide
            asker = lane.line.heads(Priority.INTERACTIVE, 1)[0][1][2]
            rows = tuple(_row(job, ticket) for job, ticket in running)
            question = PreemptQuestion(asker.id, RANK[Priority.INTERACTIVE], rows, self.max_parks)
            chosen = preempt(question)
            if chosen is None:
                break
            self.journal.note(Record(now_s, "preempt", (asker.id, chosen), lane.name, question, chosen))
            victim = next(job for job, _ in running if job.id == chosen)
            lane.place_of(victim).parking.add(victim)
            decisions.append(Preempt(victim, asker.id))
        return decisions

    def charge(self, lane: Lane) -> None:
        """Charge tenants for what their running requests have got since the last look."""
        if not lane.grows:
            return
        for job, ticket in lane.running.items():
            if (n := len(job.generated) - ticket.charged_tokens) > 0:
                ticket.charged_tokens += n
                self._serve(lane, job, service(0, n))

    def refund(self, lane: Lane, job: Job, cached_tokens: int) -> None:
        """Tokens of its prompt had been computed before."""
        _, tenant = lane.line.where(job)
        account = lane.running[job].prompt_class
        assert account is not None, "it has a slot, and nobody paid for its prompt"
        self.counters[account].credit(tenant, service(cached_tokens, 0))

    def _start(self, place: Place, job: Job, owed: list[Priority], now_s: float) -> None:
        lane = place.lane
        priority, _ = lane.line.where(job)
        ticket = lane.line.remove(job)
        place.running[job] = ticket
        lane.started_s[priority] = now_s
        ticket.owed = priority in owed
        ticket.start_tokens = job.reached
        if ticket.prompt_class is None:  # once: what a parked request computes again is not its tenant's doing
            ticket.prompt_class = priority
            self._serve(lane, job, service(ticket.prompt_tokens, 0))

    def _serve(self, lane: Lane, job: Job, weighted_tokens: float) -> None:
        priority, tenant = lane.line.where(job)
        weighted_tokens = self.counters[priority].charge(tenant, weighted_tokens)
        for lower in LOWER:
            if lane.line.totals[lower].n:
                share = self.classes[lower].floor_share * weighted_tokens
                lane.owed_tokens[lower] = lane.owed_tokens.get(lower, 0.0) + share
        if priority in lane.owed_tokens:
            # What a class got beyond its share while nobody else wanted it is no debt.
            lane.owed_tokens[priority] = max(0.0, lane.owed_tokens[priority] - weighted_tokens)

    def _question(self, lane: Lane, owed: list[Priority]) -> tuple[TurnQuestion, dict[str, Job]]:
        """The heads of the highest class that has any, and of those with a floor share to come."""
        candidates: list[Waiting] = []
        jobs: dict[str, Job] = {}
        for priority in Priority:
            if candidates and priority not in owed:
                continue
            for served, (deadline_s, arrival, job) in lane.line.heads(priority, SHOWN):
                until_s = None if deadline_s == float("inf") else deadline_s
                candidates.append(Waiting(job.id, job.request.tenant, RANK[priority], served, until_s, arrival))
                jobs[job.id] = job
        n_others = sum(lane.line.pickable.values()) - len(candidates)
        ranks = tuple(RANK[priority] for priority in owed)
        return TurnQuestion(lane.name, tuple(candidates), n_others, ranks), jobs

    def _is_owed(self, lane: Lane, priority: Priority, now_s: float) -> bool:
        """Its floor share has added up to what its next request takes, or it has waited too long for any slot."""
        if not lane.line.totals[priority].n:
            return False
        owed_tokens, started_s = lane.owed_tokens.get(priority, 0.0), lane.started_s.get(priority)
        if owed_tokens <= 0 and started_s is not None and now_s < started_s + self.classes[priority].max_wait_s:
            return False
        heads = lane.line.heads(priority, 1)
        if not heads:
            return False
        job = heads[0][1][2]
        if owed_tokens >= _price(lane.line.tickets[job]):
            return True
        last_s = max(job.arrived_s, started_s or 0.0)
        return now_s - last_s >= self.classes[priority].max_wait_s


def _price(ticket: Ticket) -> float:
    return service(ticket.prompt_tokens, ticket.output_tokens)


def _row(job: Job, ticket: Ticket) -> Running:
    n_tokens = len(job.prompt or ()) + len(job.generated)
    return Running(job.id, RANK[job.request.priority], n_tokens, ticket.parks, ticket.owed)


def _session(job: Job) -> tuple[str, str]:
    """No two tenants have one in common; "": none."""
    return job.request.tenant, job.request.session_id
