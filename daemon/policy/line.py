"""Who waits for one model, and in which order they are to be served.

Classes come first, tenants of a class by their virtual counters, and requests of a tenant by deadline, then by arrival.
A request whose prompt is not read yet, or that waits for the one it supersedes, is here but cannot be picked.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING

from ..domain.request import Priority
from .fair import Counters, service

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ..domain.request import Job

RANK = {priority: rank for rank, priority in enumerate(Priority)}
Entry = tuple[float, int, "Job"]  # (deadline or infinity, arrival, job): the order inside a tenant


@dataclass(slots=True)
class Ticket:
    """A request's place in the books, taken at arrival and corrected when its prompt is read."""

    prompt_tokens: int
    output_tokens: int  # expected
    deadline_s: float = math.inf
    pickable: bool = False
    charged_tokens: int = 0  # generated tokens that its tenant has been charged for
    prompt_class: Priority | None = None  # whose account its prompt is on; None: not charged yet
    parks: int = 0  # how often it made way
    start_tokens: int = 0  # that it had to have computed when it last got a slot
    resumed: bool = False  # it lost its slot before, for whatever reason
    owed: bool = False  # it got its slot as its class's floor share
    forecast_ms: float | None = None  # from arrival to its first token
    forecast_end_ms: float | None = None
    at_once: bool = False  # the forecast saw a free slot
    noted: tuple[Priority, float, float] | None = None  # the flow that its work counts in, how many ms, and since when
    moved_s: float | None = None  # into another class: its forecasts count from then, and nothing is learnt from them

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.output_tokens


@dataclass(slots=True)
class Load:
    """What waits, in sum."""

    n: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.output_tokens

    def add(self, ticket: Ticket, sign: int = 1) -> None:
        self.n += sign
        self.prompt_tokens += sign * ticket.prompt_tokens
        self.output_tokens += sign * ticket.output_tokens


class Line:
    """The waiting jobs of one model. With `fifo` there is one class and one tenant."""

    def __init__(self, counters: Mapping[Priority, Counters], *, fifo: bool = False) -> None:
        self.fifo = fifo
        self.tickets: dict[Job, Ticket] = {}
        self.with_deadline: dict[Job, Ticket] = {}
        self.unread: set[Job] = set()  # whose text is not read yet
        self.loads: dict[Priority, dict[str, Load]] = {priority: {} for priority in Priority}  # by tenant
        self.totals = {priority: Load() for priority in Priority}
        self.pickable = dict.fromkeys(Priority, 0)
        self._counters = counters
        self._arrivals: list[tuple[float, int, Job]] = []  # those who left are dropped when they come up
        self._heaps: dict[Priority, dict[str, list[Entry]]] = {priority: {} for priority in Priority}
        self._turns: dict[Priority, list[tuple[float, Entry, str]]] = {priority: [] for priority in Priority}

    def __len__(self) -> int:
        return len(self.tickets)

    def __iter__(self) -> Iterator[Job]:
        return iter(self.tickets)

    def __contains__(self, job: object) -> bool:
        return job in self.tickets

    @property
    def n_pickable(self) -> int:
        return sum(self.pickable.values())

    def where(self, job: Job) -> tuple[Priority, str]:
        """The class and tenant that a job counts for."""
        return (Priority.INTERACTIVE, "") if self.fifo else (job.request.priority, job.request.tenant)

    def served(self, priority: Priority, tenant: str) -> float:
        """Weighted tokens that a tenant has had in a class."""
        return self._counters[priority].served(tenant)

    def add(self, job: Job, ticket: Ticket) -> None:
        priority, tenant = self.where(job)
        self.tickets[job] = ticket
        if ticket.deadline_s < math.inf:
            self.with_deadline[job] = ticket
        self.loads[priority].setdefault(tenant, Load()).add(ticket)
        self.totals[priority].add(ticket)
        self._counters[priority].join(tenant)
        heappush(self._arrivals, (job.arrived_s, job.arrival, job))
        if job.prompt is None and job.request.tokens is None:
            self.unread.add(job)
        if ticket.pickable:
            self._push(job, ticket)

    def remove(self, job: Job) -> Ticket:
        priority, tenant = self.where(job)
        ticket = self.tickets.pop(job)
        self.with_deadline.pop(job, None)
        load = self.loads[priority][tenant]
        load.add(ticket, -1)
        self.totals[priority].add(ticket, -1)
        self.unread.discard(job)
        if len(self._arrivals) > 2 * len(self.tickets) + 64:  # nobody may ever ask for the oldest
            self._arrivals = [(j.arrived_s, j.arrival, j) for j in self.tickets]
            heapify(self._arrivals)
        if not load.n:
            del self.loads[priority][tenant]
        self._counters[priority].leave(tenant)
        self.pickable[priority] -= ticket.pickable
        return ticket

    def correct(self, job: Job, prompt_tokens: int, output_tokens: int) -> None:
        """The prompt has been read: its length is known."""
        self.unread.discard(job)
        priority, tenant = self.where(job)
        ticket, loads = self.tickets[job], (self.loads[priority][tenant], self.totals[priority])
        for load in loads:
            load.add(ticket, -1)
        ticket.prompt_tokens, ticket.output_tokens = prompt_tokens, output_tokens
        for load in loads:
            load.add(ticket)

    def make_pickable(self, job: Job) -> None:
        ticket = self.tickets[job]
        if not ticket.pickable:
            ticket.pickable = True
            self._push(job, ticket)

    def heads(self, priority: Priority, most: int = 1 << 30) -> list[tuple[float, Entry]]:
        """(counter, entry) of the first pickable job of each tenant of the class, in the order of their turns.

        A tenant's turn only moves back while nobody joins it, so one that comes up too early is put where it belongs.
        """
        turns = self._turns[priority]
        found: list[tuple[float, Entry]] = []
        seen: set[str] = set()
        while turns and len(found) < most:
            counter, entry, tenant = heappop(turns)
            if tenant in seen or (head := self._head(priority, tenant)) is None:
                continue
            now = self._counter(priority, tenant)
            if head is entry and now == counter:
                seen.add(tenant)
                found.append((counter, entry))
            else:
                heappush(turns, (now, head, tenant))
        for counter, entry in found:
            heappush(turns, (counter, entry, self.where(entry[2])[1]))
        return found

    def _head(self, priority: Priority, tenant: str) -> Entry | None:
        """The first pickable job of a tenant; those that have left, or are in another class, go when they come up."""
        heap = self._heaps[priority].get(tenant)
        while heap:
            if self._stands(priority, heap[0][2]):
                return heap[0]
            heappop(heap)
        self._heaps[priority].pop(tenant, None)
        return None

    def _stands(self, priority: Priority, job: Job) -> bool:
        """Whether it can be picked, and is in this class."""
        ticket = self.tickets.get(job)
        return ticket is not None and ticket.pickable and (self.fifo or job.request.priority is priority)

    def oldest_s(self) -> float | None:
        """When the one who waits longest arrived."""
        while self._arrivals and self._arrivals[0][2] not in self.tickets:
            heappop(self._arrivals)
        return self._arrivals[0][0] if self._arrivals else None

    def n_before(self, job: Job) -> int:
        """At most so many, without looking at each: all others of its class and those above."""
        mine, _ = self.where(job)
        return sum(load.n for priority, load in self.totals.items() if RANK[priority] <= RANK[mine]) - 1

    def order(self) -> list[Job]:
        """All who wait, as they would be served if nobody else came and every class waited for the one above it."""
        ordered: list[Job] = []
        queues: dict[Priority, dict[str, list[Entry]]] = {priority: {} for priority in Priority}
        for job, ticket in self.tickets.items():
            priority, tenant = self.where(job)
            deadline_s = math.inf if self.fifo else ticket.deadline_s
            queues[priority].setdefault(tenant, []).append((deadline_s, job.arrival, job))
        for priority in Priority:
            ordered += self._merge(priority, queues[priority])
        return ordered

    def _merge(self, priority: Priority, queues: dict[str, list[Entry]]) -> list[Job]:
        for queue in queues.values():
            heapify(queue)
        served = self._counters[priority].served
        turns = [(served(tenant), queue[0], tenant) for tenant, queue in queues.items()]
        heapify(turns)
        ordered = []
        while turns:
            counter, entry, tenant = heappop(turns)
            ordered.append(entry[2])
            heappop(queues[tenant])
            if queue := queues[tenant]:
                ticket = self.tickets[entry[2]]
                counter += service(ticket.prompt_tokens, ticket.output_tokens)
                heappush(turns, (counter, queue[0], tenant))
        return ordered

    def _push(self, job: Job, ticket: Ticket) -> None:
        priority, tenant = self.where(job)
        self.pickable[priority] += 1
        entry = math.inf if self.fifo else ticket.deadline_s, job.arrival, job
        heap = self._heaps[priority].setdefault(tenant, [])
        heappush(heap, entry)
        if len(heap) > 2 * self.loads[priority][tenant].n + 64:  # one that leaves and comes back is there twice
            heap[:] = {one[2]: one for one in heap if self._stands(priority, one[2])}.values()
            heapify(heap)
        if heap[0][2] is job:
            heappush(self._turns[priority], (self._counter(priority, tenant), heap[0], tenant))
        if len(self._turns[priority]) > 2 * self.totals[priority].n + 64:
            heads = [(self._head(priority, name), name) for name in list(self._heaps[priority])]
            self._turns[priority] = [(self._counter(priority, name), head, name) for head, name in heads if head]
            heapify(self._turns[priority])

    def _counter(self, priority: Priority, tenant: str) -> float:
        return 0.0 if self.fifo else self._counters[priority].served(tenant)
