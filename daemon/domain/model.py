"""One model of the catalog and where it is in its life (owned by the Node)."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ...backends.facts import LoadPlan, ModelFacts
    from ...backends.messages import Ready, WorkerStats


class ModelState(Enum):
    COLD = "cold"
    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"  # finishes what runs, takes nothing new, then goes cold
    FAILED = "failed"  # in back-off


NEXT: dict[ModelState, set[ModelState]] = {
    ModelState.COLD: {ModelState.LOADING},
    ModelState.LOADING: {ModelState.READY, ModelState.FAILED, ModelState.DRAINING},
    ModelState.READY: {ModelState.DRAINING, ModelState.FAILED},
    ModelState.DRAINING: {ModelState.COLD},
    ModelState.FAILED: {ModelState.COLD},
}


@dataclass(slots=True, eq=False)
class Model:
    name: str
    facts: ModelFacts
    plan: LoadPlan
    keep_alive_s: float  # idle time after which it is unloaded; negative is never
    state: ModelState = ModelState.COLD
    ready: Ready | None = None
    stats: WorkerStats | None = None
    pid: int | None = None
    load_progress: float = 0.0
    load_started_s: float = 0.0
    load_ms: float = 0.0
    failures: int = 0  # in a row, without a token produced in between
    retry_at_s: float = 0.0  # end of the back-off while FAILED
    error: str = ""
    booked_bytes: int = 0
    produced: bool = field(default=False)  # a token came since this load

    def move(self, to: ModelState) -> None:
        """Take one step of NEXT; anything else is our bug."""
        if to not in NEXT[self.state]:
            raise AssertionError(f"{self.name}: {self.state.value} -> {to.value}")
        self.state = to
