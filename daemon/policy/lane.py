"""One model as the scheduler sees it: who waits for it, how fast it is, and the places where it may be loaded."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .forecast import Flow, Pace
from .line import RANK
from .place import cells
from .turns import WaitQuestion

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ..domain.request import Job, Priority
    from .line import Line, Ticket
    from .place import Place

MIN_LEARNT_TOKENS = 64  # the few that follow a known beginning cost as much as many: they say nothing about each
MAX_SESSIONS = 4096
USE_MEMORY_S = 600.0  # after this long a use counts half for the chance of the next one


@dataclass(slots=True, eq=False)
class Lane:
    """One line for all places: one with a free slot takes the next. Up to `replicas` of them are loaded at a time."""

    name: str
    keep_alive_s: float
    line: Line
    planned_slots: int = 1
    context_tokens: int = 1 << 31
    pinned: bool = False
    helper_bytes: int = 0  # of host memory, for the process that reads its prompts
    replicas: int = 1
    grows: bool = True  # its requests get tokens while they run
    places: list[Place] = field(default_factory=list)  # the one that is preferred first
    leases: dict[str, float] = field(default_factory=dict)  # id -> since when
    asked_s: float | None = None  # somebody wants it loaded, without a request
    pace: Pace = field(default_factory=Pace)
    flows: dict[Priority, Flow] = field(default_factory=dict)  # work that each class brought lately
    owed_tokens: dict[Priority, float] = field(default_factory=dict)  # of a class's floor share
    started_s: dict[Priority, float] = field(default_factory=dict)  # when a class last got a slot
    sessions: OrderedDict[tuple[str, str], str] = field(default_factory=OrderedDict)  # where their last turns ran
    uses: float = 0.0  # requests, old ones counting less
    used_s: float = 0.0

    def remember(self, session: tuple[str, str], place: str) -> None:
        """Its last turn ran there; of sessions that were not seen for long nothing is remembered."""
        if session[1]:
            self.sessions[session] = place
            self.sessions.move_to_end(session)
            if len(self.sessions) > MAX_SESSIONS:
                self.sessions.popitem(last=False)

    @property
    def slots(self) -> int:
        """Of all places that are ready; 0 while none is."""
        return sum(place.slots for place in self.places)

    @property
    def served(self) -> bool:
        """Loaded somewhere, or about to be."""
        return any(place.slots or place.loading for place in self.places)

    @property
    def n_slots(self) -> int:
        return self.slots or self.planned_slots

    @property
    def slots_free(self) -> int:
        return sum(place.slots_free for place in self.places)

    @property
    def loading(self) -> bool:
        return any(place.loading for place in self.places)

    @property
    def running(self) -> Mapping[Job, Ticket]:
        if len(self.places) == 1:
            return self.places[0].running
        return {job: ticket for place in self.places for job, ticket in place.running.items()}

    def in_slots(self) -> Mapping[Job, Ticket]:
        """What runs, but for what a place on its way out still runs."""
        if len(self.places) == 1:
            return self.places[0].running
        return {job: ticket for place in self.places if place.slots for job, ticket in place.running.items()}

    def place_of(self, job: Job) -> Place:
        """Where a job runs."""
        return next(place for place in self.places if job in place.running)

    @property
    def waiting(self) -> list[Job]:
        """In the order in which they would be served."""
        return self.line.order()

    def closed(self, now_s: float) -> bool:
        """Nothing can be loaded anywhere now."""
        return all(place.closed_until_s > now_s for place in self.places)

    def wanted_since_s(self) -> float | None:
        """Since when somebody waits for it to be loaded; None when nobody does."""
        first_s = self._first_s()
        return None if first_s is None else max([first_s, *(place.cold_s for place in self.places)])

    def had_its_turn(self) -> bool:
        """Who waits longest waited already when the model was loaded last."""
        first_s = self._first_s()
        return first_s is not None and any(place.cold_s > first_s for place in self.places)

    def _first_s(self) -> float | None:
        since = (self.line.oldest_s(), self.asked_s, *self.leases.values())
        return min((s for s in since if s is not None), default=None)

    def wants_another(self) -> bool:
        """All slots of what is loaded are taken, somebody waits, and one more copy may be loaded."""
        n_up = sum(place.up for place in self.places)
        return 0 < n_up < self.replicas and len(self.line) > 0 and not self.loading and not self.slots_free

    def highest_rank(self) -> int | None:
        """Of those who wait or run; None when nobody does."""
        return 0 if self.leases or self.asked_s is not None else self.rank_of(self.running)

    def rank_of(self, running: Iterable[Job]) -> int | None:
        """The highest of those who wait and of these; None when there is nobody."""
        ranks = [RANK[priority] for priority, load in self.line.totals.items() if load.n]
        return min([*ranks, *(RANK[job.request.priority] for job in running)], default=None)

    def note_idle(self, now_s: float) -> None:
        """Which places have had nothing to do since now."""
        for place in self.places:
            if place.running or self.line or self.leases:
                place.idle_since_s = None
            elif place.slots and place.idle_since_s is None:
                place.idle_since_s = now_s

    def note_use(self, now_s: float) -> None:
        self.uses = self.uses * math.exp2((self.used_s - now_s) / USE_MEMORY_S) + 1.0
        self.used_s = now_s

    def uses_per_s(self, now_s: float) -> float:
        """The rate at which requests have come lately."""
        return self.uses * math.exp2((self.used_s - now_s) / USE_MEMORY_S) * math.log(2) / USE_MEMORY_S

    def note_work(self, priority: Priority, ticket: Ticket, now_s: float) -> None:
        """A request was let in, or came over from another class, which asks for its work no more."""
        if ticket.noted is not None and (flow := self.flows.get(ticket.noted[0])) is not None:
            flow.withdraw(*ticket.noted[1:], now_s)
        work_ms = self.pace.slot_ms(ticket.prompt_tokens, ticket.output_tokens)
        ticket.noted = priority, work_ms, now_s
        self.flows.setdefault(priority, Flow(now_s)).add(work_ms, now_s)

    def note_first_token(self, job: Job, now_s: float) -> None:
        """How good was the forecast of it?"""
        ticket = self.running.get(job)
        if ticket is not None and ticket.forecast_ms is not None and not ticket.resumed and ticket.moved_s is None:
            self.pace.first_token[ticket.at_once].add(ticket.forecast_ms, (now_s - job.arrived_s) * 1e3)

    def note_end(self, job: Job, prefill_ms: float, decode_ms: float, now_s: float) -> None:
        """How long it took, of which a parked job's last attempt says nothing."""
        ticket = self.running.get(job)
        if ticket is None or ticket.resumed:
            return
        computed = len(job.prompt or ()) - job.cached_tokens
        if job.cached_tokens and computed < MIN_LEARNT_TOKENS:
            computed = 0
        self.pace.on_finished(computed, len(job.generated), prefill_ms, decode_ms, job.request.max_tokens)
        if ticket.forecast_end_ms is not None and ticket.moved_s is None:
            self.pace.finish.add(ticket.forecast_end_ms, (now_s - job.arrived_s) * 1e3)

    def load_above(self, priority: Priority, now_s: float) -> float:
        """The part of the slots' time that higher classes asked for lately; above 1 they ask for more than there is."""
        above_ms = sum(flow.rate(now_s) for other, flow in self.flows.items() if RANK[other] < RANK[priority])
        return above_ms / 1e3 / self.n_slots

    def wait_question(self, job: Job, now_s: float, *, superseding: bool, pressure: bool) -> WaitQuestion:
        """What a waiting job finds here."""
        return WaitQuestion(
            request_id=job.id,
            prompt_read=job.prompt is not None,
            superseding=superseding,
            ready=self.slots > 0,
            loading=any(place.up for place in self.places),
            closed=self.closed(now_s),
            pressure=pressure,
            slots_free=self.slots_free,
            cells_needed=cells(job),
            cells_free=max((p.cells_free() if p.running else p.kv_cells for p in self.places if p.slots), default=0),
            ahead=self.line.n_before(job),
            parked=job.parked_why,
        )

    def eta_ms(self, job: Job, now_s: float, share: float = 0.8) -> tuple[float, float] | None:
        """Between which times from now `share` of such requests get their first token; None while nothing is known."""
        ticket = self.line.tickets.get(job)
        if ticket is None or ticket.forecast_ms is None:
            return None
        low_ms, high_ms = self.pace.first_token[ticket.at_once].around(ticket.forecast_ms, share)
        gone_ms = (now_s - (job.arrived_s if ticket.moved_s is None else ticket.moved_s)) * 1e3
        return max(0.0, low_ms - gone_ms), max(0.0, high_ms - gone_ms)

    def residual_ms(self, job: Job, ticket: Ticket, now_s: float) -> float:
        """How long a running job still holds its slot, as far as anybody can tell."""
        if job.first_token_s is None:
            spent_ms = 0.0 if job.started_s is None else (now_s - job.started_s) * 1e3
            prefill_ms = max(0.0, self.pace.slot_ms(ticket.prompt_tokens, 0) - spent_ms)
            return prefill_ms + self.pace.slot_ms(0, ticket.output_tokens)
        left = max(ticket.output_tokens - len(job.generated), 1)
        return self.pace.slot_ms(0, min(left, max(1, job.max_tokens - len(job.generated))))
