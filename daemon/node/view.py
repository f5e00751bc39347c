"""The Snapshot: the one source of what ps, the monitor and metrics show."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..domain.device import DeviceKind, DeviceState
from ..domain.errors import Code
from ..domain.model import ModelState
from ..domain.request import Phase
from ..domain.snapshot import (
    DeviceRow,
    HostRow,
    ModelRow,
    RatesRow,
    RequestRow,
    Snapshot,
    WarningRow,
)
from .machine import HOST

if TYPE_CHECKING:
    from ..domain.request import Job
    from .deployment import Deployment
    from .machine import Machine
    from .node import Node
    from .resident import Resident


def snapshot(node: Node, machine: Machine, *, sequence: int, version: str, uptime_s: float, now_s: float) -> Snapshot:
    """The whole daemon at `now_s`."""
    live = [job for job in node.jobs if job.live]
    return Snapshot(
        sequence=sequence,
        version=version,
        uptime_s=uptime_s,
        models=tuple(row for it in node.fleet.deployments.values() for row in _models(node, machine, it, now_s)),
        requests=tuple(_request(node, job, now_s) for job in live),
        devices=_devices(node, machine),
        rates=_rates(node, live),
        host=_host(node, machine),
        warnings=_warnings(node, machine),
    )


def _models(node: Node, machine: Machine, deployment: Deployment, now_s: float) -> list[ModelRow]:
    """A row for each worker; a model without one has one, too. Those who wait are counted in the first."""
    speaker = deployment.speaker
    others = [r for r in deployment.residents.values() if r is not speaker and r.model.state is not ModelState.COLD]
    first = _model(node, machine, speaker, now_s, len(node.scheduler.lanes[deployment.name].line))
    return [first, *(_model(node, machine, resident, now_s, 0) for resident in others)]


def _model(node: Node, machine: Machine, resident: Resident, now_s: float, n_waiting: int) -> ModelRow:
    model = resident.model
    place = node.scheduler.places[resident.place]
    ready, stats = model.ready, model.stats
    return ModelRow(
        name=model.name,
        state=model.state.value,
        backend=model.plan.backend,
        pid=model.pid,
        devices=model.plan.devices or ("cpu",),
        bytes=model.booked_bytes,
        slots=model.plan.n_slots,
        running=len(place.running),
        waiting=n_waiting,
        pinned=place.lane.pinned,
        load_progress=model.load_progress,
        idle_s=None if place.idle_since_s is None else now_s - place.idle_since_s,
        rss_bytes=machine.worker_bytes.get(resident.place) or (stats.rss_bytes if stats else None),
        context_tokens=ready.n_ctx if ready else model.plan.n_ctx,
        kv_cells=ready.kv_cells if ready else model.plan.kv_cells,
        kv_cells_used=stats.kv_cells_used if stats else 0,
        kv_cells_kept=stats.kv_cells_kept if stats else 0,
        cache_bytes=stats.cache_bytes if stats else 0,
        tokens_per_s=node.meter.place_rate_per_s(resident.place),
        error=model.error,
        estimate_error=node.fleet.estimate_error(resident),
    )


def _request(node: Node, job: Job, now_s: float) -> RequestRow:
    waits = job.phase is Phase.QUEUED
    decoding_s = now_s - job.first_token_s if job.first_token_s is not None else 0.0
    return RequestRow(
        id=job.id,
        model=job.request.model,
        priority=job.request.priority.value,
        tenant=job.request.tenant,
        state=job.phase.value,
        why=job.why if waits else "",
        prompt_tokens=None if job.prompt is None else len(job.prompt),
        tokens=len(job.generated),
        tokens_per_s=max(0, len(job.generated) - 1) / decoding_s if decoding_s > 0 else 0.0,
        age_ms=(now_s - job.arrived_s) * 1e3,
        ttft_ms=None if job.first_token_s is None else (job.first_token_s - job.arrived_s) * 1e3,
    )


def _devices(node: Node, machine: Machine) -> tuple[DeviceRow, ...]:
    rows = []
    for device in machine.hardware.devices:
        reading = machine.readings.get(device.id)
        pool = HOST if device.kind is DeviceKind.CPU else device.id
        rows.append(
            DeviceRow(
                id=device.id,
                kind=device.kind.value,
                name=device.name,
                memory_total_bytes=device.memory_total_bytes,
                memory_used_bytes=reading.used_bytes if reading else None,
                booked_bytes=node.ledger.booked_bytes(pool),
                utilization=reading.utilization if reading else None,
                temperature_celsius=reading.temperature_celsius if reading else None,
                power_watts=reading.power_watts if reading else None,
                state=(reading.state if reading else device.state).value,
            )
        )
    return tuple(rows)


def _rates(node: Node, live: list[Job]) -> RatesRow:
    meter, total = node.meter, node.meter.total
    prompt_rate, generation_rate = meter.rates_per_s()
    running = sum(job.phase is not Phase.QUEUED for job in live)
    return RatesRow(
        prompt_tokens_per_s=prompt_rate,
        generation_tokens_per_s=generation_rate,
        num_requests_running=running,
        num_requests_waiting=len(live) - running,
        ttft_p50_ms=meter.ttft_percentile_ms(0.50),
        ttft_p95_ms=meter.ttft_percentile_ms(0.95),
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
    )


def _host(node: Node, machine: Machine) -> HostRow:
    memory = machine.memory
    return HostRow(
        memory_total_bytes=memory.total_bytes or 0,
        memory_available_bytes=memory.available_bytes or 0,
        booked_bytes=node.ledger.booked_bytes(HOST),
        margin_bytes=node.ledger.pools[HOST].margin,
        psi_memory_some_avg10=memory.psi_some_avg10,
    )


def _warnings(node: Node, machine: Machine) -> tuple[WarningRow, ...]:
    """What an operator should look at; each with the way out."""
    rows = []
    for resident in node.fleet:
        if resident.model.error:
            remedy = "see the daemon's log; the next request tries again after a pause"
            rows.append(WarningRow(Code.MODEL_FAILED.value, "error", resident.model.error, remedy))
    for device in machine.hardware.devices:
        reading = machine.readings.get(device.id)
        state = reading.state if reading else device.state
        if state is not DeviceState.OK:
            message = f"{device.id} ({device.name}): {device.detail or state.value}"
            rows.append(WarningRow(f"device_{state.value}", "warning", message, "run: inferd doctor"))
    if node.ledger.headroom_bytes(HOST) < 0:
        message = "less memory is free than the configured margin"
        rows.append(WarningRow("low_memory", "warning", message, "unload a model or end other programs"))
    return tuple(rows)
