"""Requests in the Snapshot: how far each has come, and of those who wait why."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..domain.request import Phase
from ..domain.snapshot import RequestRow
from .view_waiting import waiting

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..domain.request import Job
    from .machine import Machine
    from .node import Node
    from .view_waiting import Told


def request_rows(node: Node, machine: Machine, live: Iterable[Job], now_s: float) -> tuple[RequestRow, ...]:
    """In the order of their arrival."""
    told = waiting(node, machine, now_s)
    return tuple(_row(node, job, told.get(job), now_s) for job in live)


def _row(node: Node, job: Job, told: Told | None, now_s: float) -> RequestRow:
    """`told`: of one that waits."""
    request, waits = job.request, job.phase is Phase.QUEUED
    age_ms = (now_s - job.arrived_s) * 1e3
    decoding_s = now_s - job.first_token_s if job.first_token_s is not None else 0.0
    eta_ms = node.scheduler.eta_ms(job, now_s) if waits and job.first_token_s is None else None
    return RequestRow(
        id=job.id,
        model=request.model,
        priority=request.priority.value,
        tenant=request.tenant,
        state=job.phase.value,
        why=told.why if told else job.why,  # as of now, like its text; `job.why` is what its client was told last
        prompt_tokens=None if job.prompt is None else len(job.prompt),
        tokens=len(job.generated),
        tokens_per_s=max(0, len(job.generated) - job.n_kept - 1) / decoding_s if decoding_s > 0 else 0.0,
        age_ms=age_ms,
        ttft_ms=None if job.first_token_s is None else (job.first_token_s - job.arrived_s) * 1e3,
        position=told.position if told else None,
        eta_low_ms=eta_ms[0] if eta_ms else None,
        eta_high_ms=eta_ms[1] if eta_ms else None,
        why_text=told.text if told else "",
        max_tokens=job.max_tokens,
        cached_tokens=job.cached_tokens,
        devices=() if waits else _devices(node, job.place),
        moves=job.attempt if waits else job.attempt - 1,  # one that runs has its last slot still
        deadline_in_ms=None if request.deadline_ms is None else max(0.0, request.deadline_ms - age_ms),
        stalled_ms=node.jobs.stalled_s(job, now_s) * 1e3,
        task=request.task,
    )


def _devices(node: Node, place: str) -> tuple[str, ...]:
    resident = node.fleet.residents.get(place)
    return () if resident is None else resident.model.plan.devices or ("cpu",)
