"""The Snapshot: the one source of what ps, the monitor and metrics show."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from ..domain.request import Phase
from ..domain.snapshot import RatesRow, Snapshot, TenantRow
from ..policy.meter import percentiles
from .view_machine import device_rows, host_row
from .view_models import model_rows
from .view_requests import request_rows
from .view_warnings import warnings

if TYPE_CHECKING:
    from ..domain.request import Job
    from .machine import Machine
    from .node import Node

STALLED_S = 1.0  # a client that has taken nothing for so long stands still


def snapshot(node: Node, machine: Machine, *, sequence: int, version: str, uptime_s: float, now_s: float) -> Snapshot:
    """The whole daemon at `now_s`."""
    live = [job for job in node.jobs if job.live]
    return Snapshot(
        sequence=sequence,
        version=version,
        uptime_s=uptime_s,
        models=tuple(row for it in node.fleet.deployments.values() for row in model_rows(node, machine, it, now_s)),
        requests=request_rows(node, machine, live, now_s),
        devices=device_rows(node, machine),
        rates=_rates(node, live),
        host=host_row(node, machine),
        warnings=warnings(node, machine),
        state="draining" if node.draining or node.closing else "serving",
        tenants=_tenants(node, live, now_s),
    )


def _rates(node: Node, live: list[Job]) -> RatesRow:
    meter, total = node.meter, node.meter.total
    prompt_rate, generation_rate = meter.rates_per_s()
    running = sum(job.phase is not Phase.QUEUED for job in live)
    ttft_p50_ms, ttft_p95_ms, ttft_p99_ms = percentiles(meter.ttft_ms, 0.50, 0.95, 0.99)
    queue_p50_ms, queue_p95_ms = percentiles(meter.queue_ms, 0.50, 0.95)
    tpot_p50_ms, tpot_p95_ms = percentiles(meter.tpot_ms, 0.50, 0.95)
    return RatesRow(
        prompt_tokens_per_s=prompt_rate,
        generation_tokens_per_s=generation_rate,
        num_requests_running=running,
        num_requests_waiting=len(live) - running,
        ttft_p50_ms=ttft_p50_ms,
        ttft_p95_ms=ttft_p95_ms,
        prompt_tokens_total=total.prompt_tokens,
        prompt_tokens_cached_total=total.prompt_tokens_cached,
        generation_tokens_total=total.generation_tokens,
        requests_finished_total=total.requests_finished,
        requests_failed_total=total.requests_failed,
        requests_cancelled_total=total.requests_cancelled,
        preemptions_total=total.preemptions,
        evictions_total=total.evictions,
        computed_tokens_total=total.computed_tokens,
        delivered_tokens_total=total.delivered_tokens,
        wasted_tokens_total=dict(total.wasted_tokens),
        ttft_p99_ms=ttft_p99_ms,
        queue_p50_ms=queue_p50_ms,
        queue_p95_ms=queue_p95_ms,
        tpot_p50_ms=tpot_p50_ms,
        tpot_p95_ms=tpot_p95_ms,
        requests_refused_total=total.requests_refused,
    )


def _tenants(node: Node, live: list[Job], now_s: float) -> tuple[TenantRow, ...]:
    """By name."""
    tenants, n_tokens = node.jobs.tenants, node.jobs.tokens_by_tenant()
    n_live = Counter(job.request.tenant for job in live)
    n_waiting = Counter(job.request.tenant for job in live if job.phase is Phase.QUEUED)
    n_stalled = Counter(stream.job.request.tenant for stream in node.jobs.stalled(now_s, STALLED_S))
    rows = []
    for tenant, account in tenants:
        prompt_rate, generation_rate = tenants.rates_per_s(tenant)
        rows.append(
            TenantRow(
                tenant=tenant,
                running=n_live[tenant] - n_waiting[tenant],
                waiting=n_waiting[tenant],
                prompt_tokens_per_s=prompt_rate,
                generation_tokens_per_s=generation_rate,
                prompt_tokens_total=account.prompt_tokens,
                generation_tokens_total=account.generation_tokens + n_tokens[tenant],
                requests_finished_total=account.finished,
                requests_failed_total=account.failed,
                requests_cancelled_total=account.cancelled,
                requests_refused_total=account.refused,
                stalled=n_stalled[tenant],
                stalls_total=account.stalls,
                idle_s=max(0.0, now_s - account.seen_s),
            )
        )
    return tuple(rows)
