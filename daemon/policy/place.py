"""One place where a model may be loaded: what a worker takes there, and while it is there, who has its slots."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from ..domain.request import Job
    from .lane import Lane
    from .line import Ticket

HEADROOM_TOKENS = 32  # KV a job must find beyond its prompt, so that it is not parked at once


@dataclass(slots=True, eq=False)
class Place:
    """`name` owns the worker's memory in the ledger; `bytes_on`: what a load takes here."""

    name: str
    lane: Lane
    bytes_on: Mapping[str, int]
    slots: int = 0  # 0 while it is not ready
    kv_cells: int = 0
    shares_prefixes: bool = False  # requests that begin alike need the cells of their beginning once
    loading: bool = False
    closed_until_s: float = 0.0  # back-off after a failure, or draining, or its device is lost (infinity)
    running: dict[Job, Ticket] = field(default_factory=dict)
    parking: set[Job] = field(default_factory=set)  # of those, told to make way
    granted: set[str] = field(default_factory=set)  # places that make way for it and are not gone yet
    leaving: bool = False  # it is to make way, and has not been closed yet
    failed: bool = False  # the last load here failed, and nobody has been told so yet
    ready_s: float = 0.0
    cold_s: float = 0.0  # since when it has not been loaded
    idle_since_s: float | None = None
    _shared_by: set[Job] = field(default_factory=set)
    _n_shared: int = 0  # cells that these need once and not each

    @property
    def slots_free(self) -> int:
        return 0 if self.leaving else max(0, self.slots - len(self.running))

    @property
    def up(self) -> bool:
        """Loaded, or about to be."""
        return self.slots > 0 or self.loading or bool(self.granted)

    def let_go(self, job: Job) -> Ticket:
        """Its slot is free."""
        if job in self.parking:
            self.parking.remove(job)
            self.running[job].parks += 1
        return self.running.pop(job)

    def close(self, until_s: float) -> None:
        """It takes nothing new, and asks for no memory."""
        self.loading, self.slots, self.idle_since_s, self.leaving = False, 0, None, False
        self.closed_until_s = until_s
        self.granted.clear()

    def idle_too_long(self, now_s: float) -> bool:
        left_s = self.unload_in_s(now_s)
        return left_s is not None and left_s <= 0

    def unload_in_s(self, now_s: float) -> float | None:
        """When it goes if it stays idle; None: it is in use, or not there, or stays for good."""
        if self.idle_since_s is None or self.lane.keep_alive_s < 0 or self.lane.pinned:
            return None
        return self.lane.keep_alive_s - (now_s - self.idle_since_s)

    def cells_free(self) -> int:
        return self.kv_cells - self._cells_taken()

    def takes(self, job: Job) -> bool:
        """Whether a prepared job finds its KV cells here; alone it always does, as its length was checked."""
        if not self.running:
            return True
        n_cells = cells(job)
        short = self._cells_taken(n_cells) + n_cells - self.kv_cells
        return short <= 0 or (self.shares_prefixes and short <= max(n_shared(job, other) for other in self.running))

    def _cells_taken(self, n_more: int = 0) -> int:
        """What is shared is looked for only where, with so many more, there would be too few otherwise."""
        n_apart = sum(cells(job) for job in self.running)
        if not self.shares_prefixes or n_apart + n_more <= self.kv_cells:
            return n_apart
        if self._shared_by != self.running.keys():  # what they share changes with them alone
            self._shared_by = set(self.running)
            self._n_shared = n_apart - cells_together(self.running)
        return n_apart - self._n_shared


def cells(job: Job) -> int:
    """KV cells that a prepared job needs to get going; what becomes vectors or tensors keeps none."""
    if not job.request.generates:
        return 0
    return len(job.prompt or ()) + len(job.generated) + min(HEADROOM_TOKENS, job.max_tokens)


def cells_together(jobs: Collection[Job]) -> int:
    """KV cells of jobs that share what their prompts begin with; in the order of their tokens neighbours share most."""
    ordered = sorted(jobs, key=lambda job: (job.cache_salt, job.prompt or []))
    return sum(cells(job) for job in jobs) - sum(n_shared(job, other) for job, other in pairwise(ordered))


def n_shared(job: Job, other: Job) -> int:
    """Tokens that both prompts begin with, if they may share them."""
    ours, theirs = job.prompt or [], other.prompt or []
    if (job.cache_salt, job.request.lora) != (other.cache_salt, other.request.lora):
        return 0
    low, high = 0, min(len(ours), len(theirs))
    if ours[:high] == theirs[:high]:
        return high
    while high - low > 1:  # alike below `low`, not so below `high`; slices are compared at the speed of C
        middle = (low + high) // 2
        if ours[low:middle] == theirs[low:middle]:
            low = middle
        else:
            high = middle
    return low
