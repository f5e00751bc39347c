"""Whether a request is taken in: the queue's caps, the machine's pressure, and whether it can be served in time."""

from __future__ import annotations

from enum import Enum

import msgspec


class Refusal(Enum):
    """Why not; the value is what records show."""

    PRESSURE = "pressure"
    SHED = "shed"  # batch, under pressure
    REQUESTS = "requests"
    TENANT_REQUESTS = "tenant_requests"
    TOKENS = "tokens"
    TENANT_TOKENS = "tenant_tokens"
    TENSOR_BYTES = "tensor_bytes"
    WAIT = "wait"  # the first token would come later than its class allows
    DEADLINE = "deadline"
    CROWDED = "crowded"  # it would make a request miss the deadline that was promised


class Occupancy(msgspec.Struct, frozen=True):
    """What waits and what may, of one kind."""

    waiting: int
    limit: int


class AdmitQuestion(msgspec.Struct, frozen=True):
    """Times from now; None where nothing is known or nothing is asked."""

    request_id: str
    rank: int
    tokens: int  # its prompt and the answer it may get, estimated
    requests: Occupancy
    tenant_requests: Occupancy
    queued_tokens: Occupancy
    tenant_tokens: Occupancy
    pressure: int = 0  # Grade
    first_token_ms: float | None = None  # the upper end of the forecast
    first_token_limit_ms: float | None = None
    finish_ms: float | None = None  # the upper end of the forecast
    deadline_ms: float | None = None
    least_slack_ms: float | None = None  # of those with a deadline that it would come before
    delays_ms: float = 0.0  # by how much it would delay them
    n_bytes: int = 0  # of its tensors
    tensor_bytes: Occupancy = Occupancy(0, 0)  # of all that wait or run
    tenant: str = ""


BATCH_RANK = 2
SHED_GRADE, REFUSE_GRADE = 3, 4


def admit(question: AdmitQuestion) -> Refusal | None:
    """None: it is taken in."""
    q = question
    if q.pressure >= REFUSE_GRADE:
        return Refusal.PRESSURE
    if q.pressure >= SHED_GRADE and q.rank == BATCH_RANK:
        return Refusal.SHED
    for refusal, occupancy, more in (
        (Refusal.REQUESTS, q.requests, 1),
        (Refusal.TENANT_REQUESTS, q.tenant_requests, 1),
        (Refusal.TOKENS, q.queued_tokens, q.tokens),
        (Refusal.TENANT_TOKENS, q.tenant_tokens, q.tokens),
    ):
        # A request larger than all that may wait is still served when nothing waits.
        if occupancy.waiting and occupancy.waiting + more > occupancy.limit:
            return refusal
    if q.n_bytes and q.tensor_bytes.waiting and q.tensor_bytes.waiting + q.n_bytes > q.tensor_bytes.limit:
        return Refusal.TENSOR_BYTES
    if _over(q.first_token_ms, q.first_token_limit_ms):
        return Refusal.WAIT
    if _over(q.finish_ms, q.deadline_ms):
        return Refusal.DEADLINE
    return Refusal.CROWDED if _over(q.delays_ms, q.least_slack_ms) else None


def _over(value: float | None, limit: float | None) -> bool:
    return value is not None and limit is not None and value > limit
