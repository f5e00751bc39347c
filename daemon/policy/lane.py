"""One model as the scheduler sees it: who waits, who has a slot, and what stands between it and its memory."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .forecast import Flow, Pace
from .line import RANK

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..domain.request import Job, Priority
    from .line import Line, Ticket

HEADROOM_TOKENS = 32  # KV a job must find beyond its prompt, so that it is not parked at once
USE_MEMORY_S = 600.0  # after this long a use counts half for the chance of the next one


@dataclass(slots=True, eq=False)
class Lane:
    """`bytes_on`: what a load takes."""

    name: str
    bytes_on: Mapping[str, int]
    keep_alive_s: float
    line: Line
    planned_slots: int = 1
    context_tokens: int = 1 << 31
    pinned: bool = False
    helper_bytes: int = 0  # of host memory, for the process that reads its prompts
    slots: int = 0  # 0 while it is not ready
    kv_cells: int = 0
    loading: bool = False
    closed_until_s: float = 0.0  # back-off after a failure, or draining (infinity)
    running: dict[Job, Ticket] = field(default_factory=dict)
    parking: set[Job] = field(default_factory=set)  # of those, told to make way
    leases: dict[str, float] = field(default_factory=dict)  # id -> since when
    asked_s: float | None = None  # somebody wants it loaded, without a request
    granted: set[str] = field(default_factory=set)  # models that make way for it and are not gone yet
    ready_s: float = 0.0
    cold_s: float = 0.0  # since when it has not been loaded
    idle_since_s: float | None = None
    pace: Pace = field(default_factory=Pace)
    flows: dict[Priority, Flow] = field(default_factory=dict)  # work that each class brought lately
    owed_tokens: dict[Priority, float] = field(default_factory=dict)  # of a class's floor share
    started_s: dict[Priority, float] = field(default_factory=dict)  # when a class last got a slot
    uses: float = 0.0  # requests, old ones counting less
    used_s: float = 0.0

    @property
    def n_slots(self) -> int:
        return self.slots or self.planned_slots

    @property
    def slots_free(self) -> int:
        return max(0, self.slots - len(self.running))

    @property
    def waiting(self) -> list[Job]:
        """In the order in which they would be served."""
        return self.line.order()

    def wanted_since_s(self) -> float | None:
        """Since when somebody waits for it to be loaded; None when nobody does."""
        since = [s for s in (self.line.oldest_s(), self.asked_s, *self.leases.values()) if s is not None]
        return max(min(since), self.cold_s) if since else None

    def highest_rank(self) -> int | None:
        """Of those who wait or run; None when nobody does."""
        if self.leases or self.asked_s is not None:
            return 0
        ranks = [RANK[priority] for priority, load in self.line.totals.items() if load.n]
        ranks += [RANK[job.request.priority] for job in self.running]
        return min(ranks, default=None)

    def cells_free(self) -> int:
        return self.kv_cells - sum(cells(job) for job in self.running)

    def note_use(self, now_s: float) -> None:
        self.uses = self.uses * math.exp2((self.used_s - now_s) / USE_MEMORY_S) + 1.0
        self.used_s = now_s

    def uses_per_s(self, now_s: float) -> float:
        """The rate at which requests have come lately."""
        return self.uses * math.exp2((self.used_s - now_s) / USE_MEMORY_S) * math.log(2) / USE_MEMORY_S

    def note_work(self, priority: Priority, ticket: Ticket, now_s: float) -> None:
        """A request was let in."""
        work_ms = self.pace.slot_ms(ticket.prompt_tokens, ticket.output_tokens)
        self.flows.setdefault(priority, Flow(now_s)).add(work_ms, now_s)

    def load_above(self, priority: Priority, now_s: float) -> float:
        """The part of the slots' time that higher classes asked for lately; above 1 they ask for more than there is."""
        above_ms = sum(flow.rate(now_s) for other, flow in self.flows.items() if RANK[other] < RANK[priority])
        return above_ms / 1e3 / self.n_slots

    def eta_ms(self, ticket: Ticket, share: float = 0.8) -> tuple[float, float] | None:
        """Between which times after arrival `share` of such requests get their first token."""
        if ticket.forecast_ms is None:
            return None
        return self.pace.first_token[ticket.at_once].around(ticket.forecast_ms, share)

    def residual_ms(self, job: Job, ticket: Ticket, now_s: float) -> float:
        """How long a running job still holds its slot, as far as anybody can tell."""
        if job.first_token_s is None:
            spent_ms = 0.0 if job.started_s is None else (now_s - job.started_s) * 1e3
            prefill_ms = max(0.0, self.pace.slot_ms(ticket.prompt_tokens, 0) - spent_ms)
            return prefill_ms + self.pace.slot_ms(0, ticket.output_tokens)
        left = max(ticket.output_tokens - len(job.generated), 1)
        return self.pace.slot_ms(0, min(left, max(1, job.max_tokens - len(job.generated))))


def cells(job: Job) -> int:
    """KV cells that a prepared job needs to get going."""
    return len(job.prompt or ()) + len(job.generated) + min(HEADROOM_TOKENS, job.max_tokens)
