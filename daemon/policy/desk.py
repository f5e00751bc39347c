"""Where tickets are taken: what waits in all, when a new request would be served, and whether it is let in."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ..domain.errors import Code, InferdError
from ..domain.request import Priority
from .admission import AdmitQuestion, Occupancy, Refusal, admit
from .forecast import wait_ms
from .line import RANK, Load, Ticket

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..domain.config import ClassOptions, Queue, TenantLimits
    from ..domain.request import Job
    from .lane import Lane

SURE = 0.9  # the share of forecasts that must hold before a class's limit
LEAST_LEFT = 0.05  # of the slots, to a class that has no floor share
SURE_END = 0.95  # and before a deadline: under overload most of those let in are at the margin


class Desk:
    """The books of all lanes together."""

    def __init__(
        self,
        limits: Queue,
        classes: dict[Priority, ClassOptions],
        *,
        max_parks: int,
        tenants: Mapping[str, TenantLimits] | None = None,
    ) -> None:
        self.limits = limits
        self.tenants = tenants or {}  # those with limits of their own
        self.classes = classes
        self.max_parks = max_parks  # of one request; 0: nobody makes way
        self.pressure = 0
        self.total = Load()
        self.by_tenant: dict[str, Load] = {}
        self.tensor_bytes = 0  # of all that wait or run: they are held until their request is over

    # tickets

    def ticket(self, lane: Lane, job: Job) -> Ticket:
        """What the request will take, as far as its bytes tell."""
        request, pace = job.request, lane.pace
        prompt_tokens = len(job.prompt or request.tokens or ()) or pace.expected_prompt(request.prompt_bytes)
        room = max(1, lane.context_tokens - prompt_tokens)
        deadline_ms = request.deadline_ms
        deadline_s = math.inf if deadline_ms is None else job.arrived_s + deadline_ms / 1e3
        ticket = Ticket(prompt_tokens, pace.expected_output(request.max_tokens, room), deadline_s)
        # What an earlier daemon got for it was charged there.
        ticket.charged_tokens, ticket.resumed = job.n_kept, job.n_kept > 0
        return ticket

    def enter(self, job: Job, ticket: Ticket) -> None:
        self.total.add(ticket)
        self.by_tenant.setdefault(job.request.tenant, Load()).add(ticket)

    def leave(self, job: Job, ticket: Ticket) -> None:
        tenant = job.request.tenant
        self.total.add(ticket, -1)
        self.by_tenant[tenant].add(ticket, -1)
        if not self.by_tenant[tenant].n:
            del self.by_tenant[tenant]

    def hold(self, job: Job) -> None:
        """It was let in, with its tensors."""
        self.tensor_bytes += job.request.tensor_bytes

    def drop(self, job: Job) -> None:
        """It is over, and no worker reads them any more."""
        self.tensor_bytes -= job.request.tensor_bytes

    # forecasts

    def forecast(self, lane: Lane, job: Job, ticket: Ticket, now_s: float) -> None:
        """Note on the ticket when a request that comes now would get its first token, and when it would finish."""
        if not lane.pace.known or not (lane.slots or lane.loading):
            return  # nobody knows when others make way
        ahead_ms, ahead_tokens = self._ahead(lane, job, ticket)
        at_once = ahead_ms <= 0.0 and lane.slots_free > 0
        waits_ms = 0.0 if at_once else wait_ms(self._residuals_ms(lane, job, now_s), ahead_ms)
        # Slots compute side by side, but their prompts one after another.
        prompts_ms = lane.pace.slot_ms(ahead_tokens + self._unread_tokens(lane, job), 0)
        waits_ms = max(waits_ms, prompts_ms)
        ticket.at_once = waits_ms <= 0.0
        waits_ms /= self._left_by_others(lane, job, now_s)
        ticket.forecast_ms = waits_ms + lane.pace.slot_ms(ticket.prompt_tokens, 1)
        ticket.forecast_end_ms = waits_ms + lane.pace.slot_ms(ticket.prompt_tokens, ticket.output_tokens)

    def _left_by_others(self, lane: Lane, job: Job, now_s: float) -> float:
        """The share of the slots that goes on with what waits now: higher classes that come later are served before it.

        A queue with priorities is longer by 1 / (1 - the load of higher classes) for those below (Cobham, Priority
        Assignment in Waiting Line Problems, 1954). The floor share of the class is left to it in any case.
        """
        priority, _ = lane.line.where(job)
        if lane.line.fifo:
            return 1.0
        floor = max(LEAST_LEFT, self.classes[priority].floor_share)
        return max(floor, 1.0 - lane.load_above(priority, now_s))

    def _residuals_ms(self, lane: Lane, job: Job, now_s: float) -> list[float]:
        if not lane.slots:
            load_ms = (lane.pace.load_s.value or 0.0) * 1e3
            return [load_ms] * lane.planned_slots
        busy = [
            0.0 if self._gives_way(job, other, ticket) else lane.residual_ms(other, ticket, now_s)
            for other, ticket in lane.in_slots().items()
        ]
        return busy + [0.0] * (lane.slots - len(busy))

    def _gives_way(self, job: Job, other: Job, ticket: Ticket) -> bool:
        """Whether a running job would be parked for this one; the rule itself is turns.preempt."""
        is_lower = job.request.priority is Priority.INTERACTIVE is not other.request.priority
        return bool(self.max_parks) and is_lower and ticket.parks < self.max_parks and not ticket.owed

    def _unread_tokens(self, lane: Lane, job: Job) -> int:
        """Prompts in slots whose first token has not come, and that do not make way."""
        return sum(
            ticket.prompt_tokens
            for other, ticket in lane.in_slots().items()
            if other.first_token_s is None and not self._gives_way(job, other, ticket)
        )

    def _ahead(self, lane: Lane, job: Job, ticket: Ticket) -> tuple[float, float]:
        """(slot time in ms, prompt tokens) of those who are served first: higher classes, and its fair neighbours."""
        line, pace = lane.line, lane.pace
        priority, tenant = line.where(job)
        own = self._own_load(lane, job, ticket)
        before = [load for other, load in line.totals.items() if RANK[other] < RANK[priority]]
        ahead_ms = sum(pace.slot_ms(load.prompt_tokens, load.output_tokens) for load in (*before, own))
        tokens: float = sum(load.prompt_tokens for load in (*before, own))
        most_tokens = own.prompt_tokens + ticket.prompt_tokens
        most_ms = pace.slot_ms(most_tokens, own.output_tokens + ticket.output_tokens)
        for name, load in line.loads[priority].items():
            if name != tenant:  # until it is this job's turn, each neighbour gets what this tenant gets
                theirs_ms = pace.slot_ms(load.prompt_tokens, load.output_tokens)
                share = 1.0 if theirs_ms <= most_ms else most_ms / theirs_ms
                ahead_ms += theirs_ms * share
                tokens += load.prompt_tokens * share
        return ahead_ms, tokens

    def _own_load(self, lane: Lane, job: Job, ticket: Ticket) -> Load:
        """What the job's own tenant has waiting before it."""
        line = lane.line
        priority, tenant = line.where(job)
        if line.fifo or ticket.deadline_s == math.inf:
            return line.loads[priority].get(tenant, Load())
        before = Load()
        for other, other_ticket in line.with_deadline.items():
            if line.where(other) == (priority, tenant) and other_ticket.deadline_s <= ticket.deadline_s:
                before.add(other_ticket)
        return before

    # admission

    def question(self, lane: Lane, job: Job, ticket: Ticket, now_s: float) -> AdmitQuestion:
        request, limits = job.request, self.limits
        self.forecast(lane, job, ticket, now_s)
        mine = self.by_tenant.get(request.tenant, Load())
        limit_s = self.classes[request.priority].first_token_limit_s
        first_ms, end_ms, pace = ticket.forecast_ms, ticket.forecast_end_ms, lane.pace
        most_requests, most_tokens = self._limits_of(request.tenant)
        slack_ms = None if request.deadline_ms is None else self._least_slack_ms(lane, job, ticket, now_s)
        return AdmitQuestion(
            request_id=job.id,
            rank=RANK[request.priority],
            tokens=ticket.tokens,
            requests=Occupancy(self.total.n, limits.max_requests),
            tenant_requests=Occupancy(mine.n, most_requests),
            queued_tokens=Occupancy(self.total.tokens, limits.max_tokens),
            tenant_tokens=Occupancy(mine.tokens, most_tokens),
            pressure=self.pressure,
            first_token_ms=None if first_ms is None else first_ms * pace.first_token[ticket.at_once].quantile(SURE),
            first_token_limit_ms=None if limit_s is None else limit_s * 1e3,
            finish_ms=None if end_ms is None else end_ms * pace.finish.quantile(SURE_END),
            deadline_ms=request.deadline_ms,
            least_slack_ms=slack_ms,
            delays_ms=lane.pace.slot_ms(ticket.prompt_tokens, ticket.output_tokens) / max(1, lane.n_slots),
            n_bytes=request.tensor_bytes,
            tensor_bytes=Occupancy(self.tensor_bytes, limits.max_tensor_bytes),
            tenant=request.tenant,
        )

    def _limits_of(self, tenant: str) -> tuple[int, int]:
        """(requests, tokens) that it may have waiting."""
        own = self.tenants.get(tenant)
        requests = own.max_requests if own is not None else None
        tokens = own.max_tokens if own is not None else None
        return requests or self.limits.max_requests_per_tenant, tokens or self.limits.max_tokens_per_tenant

    def _least_slack_ms(self, lane: Lane, job: Job, ticket: Ticket, now_s: float) -> float | None:
        """How much later the work could come that this job would be served before, without breaking a promise."""
        line, pace = lane.line, lane.pace
        if line.fifo or not pace.known or not line.with_deadline:
            return None
        where, sure = line.where(job), pace.finish.quantile(SURE_END)
        promised = [(t.deadline_s, t) for j, t in line.with_deadline.items() if line.where(j) == where]
        residuals_ms, work_ms = self._residuals_ms(lane, job, now_s), 0.0
        least: float | None = None
        for deadline_s, other in sorted(promised, key=lambda pair: pair[0]):
            turn_ms = pace.slot_ms(other.prompt_tokens, other.output_tokens)
            slack_ms = (deadline_s - now_s) * 1e3 - (wait_ms(residuals_ms, work_ms) + turn_ms) * sure
            work_ms += turn_ms
            if deadline_s > ticket.deadline_s and slack_ms >= 0 and (least is None or slack_ms < least):
                least = slack_ms
        return least

    def refusal(self, lane: Lane, question: AdmitQuestion) -> InferdError | None:
        """None: the request is let in."""
        reason = admit(question)
        return None if reason is None else _refused(reason, question, lane.name)


def _refused(reason: Refusal, q: AdmitQuestion, model: str) -> InferdError:
    full = {
        Refusal.REQUESTS: ("the queue", "requests", q.requests),
        Refusal.TENANT_REQUESTS: ("this tenant's queue", "requests", q.tenant_requests),
        Refusal.TOKENS: ("the queue", "tokens", q.queued_tokens),
        Refusal.TENANT_TOKENS: ("this tenant's queue", "tokens", q.tenant_tokens),
        Refusal.TENSOR_BYTES: ("the queue", "bytes of tensors", q.tensor_bytes),
    }
    if reason in full:
        whose, what, occupancy = full[reason]
        return InferdError(
            Code.QUEUE_FULL,
            f"{whose} is full: {occupancy.waiting:,} {what} wait and {occupancy.limit:,} may",
            retry_after_ms=_soon(q.first_token_ms),
            waiting=occupancy.waiting,
            limit=occupancy.limit,
            reason=reason.value,
        )
    message, retry_ms = _too_busy(reason, q, model)
    return InferdError(Code.OVERLOADED, message, retry_after_ms=retry_ms, reason=reason.value)


def _too_busy(reason: Refusal, q: AdmitQuestion, model: str) -> tuple[str, int]:
    """What to say, and after how many ms to try again."""
    if reason in (Refusal.PRESSURE, Refusal.SHED):
        what = "batch requests are" if reason is Refusal.SHED else "every request is"
        return f"the machine is short of memory: {what} refused until it has recovered", 10_000
    if reason is Refusal.WAIT:
        first_ms, limit_ms = q.first_token_ms or 0.0, q.first_token_limit_ms or 0.0
        expected = f"the first token is expected in {first_ms / 1e3:.1f} s"
        return f"{model} is busy: {expected}, and this class waits at most {limit_ms / 1e3:g} s", _soon(
            first_ms - limit_ms
        )
    finish_ms, deadline_ms = q.finish_ms or 0.0, q.deadline_ms or 0
    retry_ms = _soon(finish_ms - deadline_ms)
    if reason is Refusal.CROWDED:
        return f"{model} is busy: another request would miss the deadline it was promised", retry_ms
    return f"{model} is busy: it would finish in {finish_ms / 1e3:.1f} s, not within {deadline_ms / 1e3:g} s", retry_ms


def _soon(expected_ms: float | None) -> int:
    """When to try again: not at once, and not next week."""
    return round(min(60_000.0, max(1000.0, expected_ms or 0.0)))
