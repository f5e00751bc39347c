"""One place where a model may be loaded: what a worker takes there, and while it is there, who has its slots."""

from __future__ import annotations

from bisect import bisect_left
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

    @property
    def slots_free(self) -> int:
        return 0 if self.leaving else max(0, self.slots - len(self.running))

    @property
    def up(self) -> bool:
        """Loaded, or about to be."""
        return self.slots > 0 or self.loading or bool(self.granted)

    def close(self, until_s: float) -> None:
        """It takes nothing new, and asks for no memory."""
        self.loading, self.slots, self.idle_since_s, self.leaving = False, 0, None, False
        self.closed_until_s = until_s
        self.granted.clear()

    def idle_too_long(self, now_s: float) -> bool:
        return self.idle_since_s is not None and 0 <= self.lane.keep_alive_s <= now_s - self.idle_since_s

    def cells_free(self) -> int:
        return self.kv_cells - self._cells(self.running)

    def takes(self, job: Job) -> bool:
        """Whether a prepared job finds its KV cells here; alone it always does, as its length was checked."""
        return not self.running or self._cells([*self.running, job]) <= self.kv_cells

    def _cells(self, jobs: Collection[Job]) -> int:
        n_apart = sum(cells(job) for job in jobs)
        return cells_together(jobs) if self.shares_prefixes and n_apart > self.kv_cells else n_apart


def cells(job: Job) -> int:
    """KV cells that a prepared job needs to get going."""
    return len(job.prompt or ()) + len(job.generated) + min(HEADROOM_TOKENS, job.max_tokens)


def cells_together(jobs: Collection[Job]) -> int:
    """KV cells of jobs that share what they begin with; in the order of their tokens neighbours have most in common."""
    rows = sorted((job.cache_salt, (job.prompt or []) + job.generated, cells(job)) for job in jobs)
    n_cells = sum(row[2] for row in rows)
    for (salt, tokens, _), (other_salt, others, _) in pairwise(rows):
        if salt == other_salt:
            n_cells -= _n_alike(tokens, others)
    return n_cells


def _n_alike(tokens: list[int], others: list[int]) -> int:
    """How many tokens both begin with."""
    longest = min(len(tokens), len(others))
    return bisect_left(range(1, longest + 1), True, key=lambda n: tokens[:n] != others[:n])
