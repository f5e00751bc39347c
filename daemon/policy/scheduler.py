"""Whose turn it is: three classes over each model's slots, first come first served inside a class.

Events and the time come in, decisions go out. Jobs are moved by the Node; this rule only orders them.
One lane per model holds the jobs that wait for it and those that occupy its slots.
"""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..domain.decision import Load, Reject, Start, Unload
from ..domain.errors import Code, InferdError
from ..domain.request import Priority

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..domain.decision import Decision
    from ..domain.request import Job
    from .ledger import Ledger

CLASS = {priority: rank for rank, priority in enumerate(Priority)}
HEADROOM_TOKENS = 32  # KV a job must find beyond its prompt, so that it is not parked at once


@dataclass(slots=True, eq=False)
class Lane:
    """One model as the scheduler sees it."""

    bytes_on: Mapping[str, int]  # what a load takes
    keep_alive_s: float
    slots: int = 0  # 0 while it is not ready
    kv_cells: int = 0
    loading: bool = False
    closed_until_s: float = 0.0  # back-off after a failure, or draining (infinity)
    waiting: list[Job] = field(default_factory=list)
    running: set[Job] = field(default_factory=set)
    idle_since_s: float | None = None

    def cells_used(self) -> int:
        return sum(cells(job) for job in self.running)


def cells(job: Job) -> int:
    """KV cells that a prepared job needs to get going."""
    return len(job.prompt or ()) + len(job.generated) + min(HEADROOM_TOKENS, job.max_tokens)


def order(job: Job) -> tuple[int, int]:
    return CLASS[job.request.priority], job.arrival


class Scheduler:
    def __init__(self, ledger: Ledger, max_requests: int, max_requests_per_tenant: int) -> None:
        self.ledger = ledger
        self.max_requests = max_requests
        self.max_requests_per_tenant = max_requests_per_tenant
        self.lanes: dict[str, Lane] = {}

    def add_model(self, name: str, bytes_on: Mapping[str, int], keep_alive_s: float) -> None:
        """A model that was not known, or whose file is another one now; nothing waits for it or runs."""
        lane = self.lanes.get(name)
        assert lane is None or not (lane.waiting or lane.running or lane.slots or lane.loading)
        self.lanes[name] = Lane(bytes_on, keep_alive_s)

    # events

    def on_request(self, job: Job, now_s: float) -> list[Decision]:
        """The ticket is taken at arrival; the job can start once it is prepared."""
        waiting = [other for lane in self.lanes.values() for other in lane.waiting]
        if len(waiting) >= self.max_requests:
            return [Reject(job, _full("the queue", len(waiting), self.max_requests))]
        n_tenant = sum(other.request.tenant == job.request.tenant for other in waiting)
        if n_tenant >= self.max_requests_per_tenant:
            return [Reject(job, _full("this tenant's queue", n_tenant, self.max_requests_per_tenant))]
        lane = self.lanes[job.request.model]
        insort(lane.waiting, job, key=order)
        lane.idle_since_s = None
        return self._settle(job.request.model, now_s)

    def on_prepared(self, job: Job, now_s: float) -> list[Decision]:
        return self._settle(job.request.model, now_s)

    def on_withdrawn(self, job: Job, now_s: float) -> list[Decision]:
        """A queued job was cancelled or failed."""
        lane = self.lanes[job.request.model]
        lane.waiting.remove(job)
        return self._settle(job.request.model, now_s)

    def on_released(self, job: Job, now_s: float) -> list[Decision]:
        """The worker has let go of the job's slot."""
        lane = self.lanes[job.request.model]
        lane.running.discard(job)
        return self._settle(job.request.model, now_s)

    def on_parked(self, job: Job, now_s: float) -> list[Decision]:
        """Its slot is free and it waits again, at its old place in its class."""
        lane = self.lanes[job.request.model]
        lane.running.discard(job)
        insort(lane.waiting, job, key=order)
        return self._settle(job.request.model, now_s)

    def on_load(self, name: str, now_s: float) -> list[Decision]:
        """Somebody asks for the model without a request."""
        lane = self.lanes[name]
        return [] if lane.slots or lane.loading else self._load(name, lane, now_s)

    def on_ready(self, name: str, slots: int, kv_cells: int, now_s: float) -> list[Decision]:
        lane = self.lanes[name]
        lane.loading, lane.slots, lane.kv_cells = False, slots, kv_cells
        return self._settle(name, now_s)

    def on_closed(self, name: str, until_s: float) -> None:
        """The model takes nothing new until then: it drains, or is in back-off."""
        lane = self.lanes[name]
        lane.loading, lane.slots, lane.idle_since_s = False, 0, None
        lane.closed_until_s = until_s

    def on_cold(self, name: str, now_s: float) -> list[Decision]:
        """Its process is gone and its bytes are free; whoever waits for it may have it loaded again."""
        lane = self.lanes[name]
        lane.closed_until_s = now_s
        return self._settle(name, now_s)

    def on_load_failed(self, name: str, error: InferdError) -> list[Decision]:
        """Nobody who waits for the model can be served."""
        lane = self.lanes[name]
        rejected, lane.waiting = lane.waiting, []
        return [Reject(job, error) for job in rejected]

    def on_tick(self, now_s: float) -> list[Decision]:
        """Models idle beyond their keep-alive are to be unloaded."""
        return [
            Unload(name)
            for name, lane in self.lanes.items()
            if lane.idle_since_s is not None and 0 <= lane.keep_alive_s <= now_s - lane.idle_since_s
        ]

    # questions

    def position(self, job: Job) -> int:
        """Jobs of the same model that are before this one."""
        return self.lanes[job.request.model].waiting.index(job)

    def why(self, job: Job) -> str:
        """What a waiting job waits for."""
        lane = self.lanes[job.request.model]
        if job.prompt is None:
            return "prompt"
        if not lane.slots:
            return "load"
        return "slot" if len(lane.running) >= lane.slots else "memory"

    def check_integrity(self) -> None:
        """Audit: no job twice, no lane over its slots, every lane in order."""
        seen: set[Job] = set()
        for name, lane in self.lanes.items():
            jobs = [*lane.waiting, *lane.running]
            assert len(set(jobs)) == len(jobs), f"{name}: a job twice"
            assert not seen & set(jobs), f"{name}: a job in two lanes"
            assert not lane.slots or len(lane.running) <= lane.slots, f"{name}: more jobs than slots"
            assert lane.waiting == sorted(lane.waiting, key=order), f"{name}: out of order"
            seen |= set(jobs)

    # rules

    def _settle(self, name: str, now_s: float) -> list[Decision]:
        """Start what can start; load what is wanted and cold; note idleness."""
        lane = self.lanes[name]
        if lane.slots:
            started = self._fill(lane)
            idle = not lane.running and not lane.waiting
            if not idle:
                lane.idle_since_s = None
            elif lane.idle_since_s is None:
                lane.idle_since_s = now_s
            return started
        if lane.waiting and not lane.loading and lane.closed_until_s <= now_s:
            return self._load(name, lane, now_s)
        return []

    def _fill(self, lane: Lane) -> list[Decision]:
        """Prepared jobs in order, while slots and KV cells last; one that waits for cells holds back its juniors."""
        starts: list[Decision] = []
        used = lane.cells_used()
        for job in [job for job in lane.waiting if job.prompt is not None]:
            if len(lane.running) >= lane.slots or (lane.running and used + cells(job) > lane.kv_cells):
                break
            used += cells(job)
            lane.waiting.remove(job)
            lane.running.add(job)
            starts.append(Start(job))
        return starts

    def _load(self, name: str, lane: Lane, now_s: float) -> list[Decision]:
        if (short := self.ledger.shortfall(lane.bytes_on)) is None:
            lane.loading = True
            return [Load(name)]
        return self.on_load_failed(name, no_room(name, short.pool, short.needed_bytes, short.free_bytes))


def no_room(model: str, pool: str, needed_bytes: int, free_bytes: int) -> InferdError:
    """The refusal that names both numbers."""
    where = "memory" if pool == "host" else f"memory on {pool}"
    message = (
        f"{model} needs {needed_bytes / 2**20:,.0f} MiB of {where}, but only {free_bytes / 2**20:,.0f} MiB are free"
    )
    return InferdError(
        Code.NO_ROOM,
        message,
        pool=pool,
        needed_bytes=needed_bytes,
        free_bytes=free_bytes,
        retry_after_ms=5000,
    )


def _full(what: str, n: int, limit: int) -> InferdError:
    message = f"{what} is full: {n} requests wait and {limit} may"
    return InferdError(Code.QUEUE_FULL, message, retry_after_ms=1000, waiting=n, limit=limit)
