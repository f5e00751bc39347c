"""Models in the Snapshot: what each worker holds, and for how long."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..domain.model import ModelState
from ..domain.snapshot import ModelRow

if TYPE_CHECKING:
    from .deployment import Deployment
    from .machine import Machine
    from .node import Node
    from .resident import Resident


def model_rows(node: Node, machine: Machine, deployment: Deployment, now_s: float) -> list[ModelRow]:
    """One for each worker; a model without one has one, too. Who waits, and leases, are counted in the first."""
    speaker, lane = deployment.speaker, node.scheduler.lanes[deployment.name]
    others = [r for r in deployment.residents.values() if r is not speaker and r.model.state is not ModelState.COLD]
    first = _row(node, machine, speaker, now_s, len(lane.line), len(lane.leases))
    return [first, *(_row(node, machine, resident, now_s) for resident in others)]


def _row(
    node: Node, machine: Machine, resident: Resident, now_s: float, n_waiting: int = 0, n_leases: int = 0
) -> ModelRow:
    model = resident.model
    place = node.scheduler.places[resident.place]
    ready, stats = model.ready, model.stats
    unload_in_s = place.unload_in_s(now_s)
    booked = model.booked_bytes > 0  # what a cold one would take is no part of anything
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
        weights_bytes=resident.footprint.weights_bytes if booked else 0,
        kv_bytes=resident.footprint.kv_bytes if booked else 0,
        unload_in_s=None if unload_in_s is None else max(0.0, unload_in_s),
        leases=n_leases,
        task=model.plan.task,
    )
