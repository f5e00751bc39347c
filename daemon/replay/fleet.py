"""Which models are in memory, in virtual time: the lives that node/fleet.py gives them, without processes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ...backends.facts import HOST
from ..domain.model import NEXT, ModelState
from ..policy.ledger import Ledger, Reservation, Shortfall
from ..policy.rooms import no_room
from .engine import Costs, Worker, worker

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .replay import Replay


@dataclass(frozen=True, slots=True)
class Machine:
    """What the arrivals meet; every model is the same."""

    costs: Costs = field(default_factory=Costs)
    slots: int = 8
    kv_cells: int = 0  # 0: as many as the slots may need
    context_tokens: int = 0  # 0: what the longest request takes
    load_s: float = 0.0
    unload_s: float = 0.0
    keep_alive_s: float = -1.0  # negative: never unloaded for being idle
    models_in_memory: int = 0  # at a time; 0: all


@dataclass(slots=True, eq=False)
class Model:
    name: str
    state: ModelState = ModelState.COLD
    worker: Worker | None = None  # while it is ready or drains
    reservation: Reservation | None = None

    def move(self, to: ModelState) -> None:
        assert to in NEXT[self.state], f"{self.name}: {self.state.value} -> {to.value}"
        self.state = to


class Fleet:
    """Owner of the models of one replay."""

    def __init__(self, owner: Replay, names: Iterable[str], machine: Machine, context_tokens: int) -> None:
        self.owner = owner
        self.machine = machine
        self.context_tokens = context_tokens
        self.models = {name: Model(name) for name in names}
        self.evictions = 0
        self.ledger = Ledger()
        self.ledger.add_pool(HOST, machine.models_in_memory or len(self.models), 0)

    def workers(self) -> list[Worker]:
        return [model.worker for model in self.models.values() if model.worker is not None]

    def worker(self, name: str) -> Worker:
        found = self.models[name].worker
        assert found is not None, f"{name} is not ready"
        return found

    def introduce(self) -> None:
        """Tell the scheduler what there is; a model that is the only one is loaded."""
        for name in self.models:
            self.owner.scheduler.add_model(
                name, self.machine.keep_alive_s, slots=self.machine.slots, context_tokens=self.context_tokens
            )
            self.owner.scheduler.add_place(name, name, {HOST: 1})
        if len(self.models) == 1:
            (name,) = self.models
            self.owner.carry_out(self.owner.scheduler.on_load(name, self.owner.now_s))

    def load(self, name: str) -> None:
        model, scheduler, now_s = self.models[name], self.owner.scheduler, self.owner.now_s
        try:
            model.reservation = self.ledger.reserve(name, {HOST: 1})
        except Shortfall as short:
            scheduler.on_closed(name, now_s)
            return self.owner.carry_out(scheduler.on_load_failed(name, no_room(name, short), now_s))
        model.move(ModelState.LOADING)
        return self.owner.agenda.after(self.machine.load_s, lambda: self._on_ready(model))

    def drain(self, name: str) -> None:
        """Take nothing new; it ends with the last that runs in it."""
        self.models[name].move(ModelState.DRAINING)
        self.owner.scheduler.on_closed(name, math.inf)
        self.end_drained(name)

    def evict(self, name: str) -> None:
        """Make room: what runs is parked and waits again."""
        self.evictions += 1
        self.drain(name)
        for job in list(self.owner.scheduler.lanes[name].running):
            self.owner.park(job)

    def end_drained(self, name: str) -> None:
        """A draining worker ends with the last that runs in it."""
        model = self.models[name]
        idle = model.worker is not None and not self.owner.scheduler.lanes[name].running
        if idle and model.state is ModelState.DRAINING:
            model.worker = None
            self.owner.agenda.after(self.machine.unload_s, lambda: self._on_cold(model))

    def _on_ready(self, model: Model) -> None:
        machine = self.machine
        model.move(ModelState.READY)
        model.worker = worker(machine.costs)
        kv_cells = machine.kv_cells or machine.slots * self.context_tokens
        decisions = self.owner.scheduler.on_ready(model.name, machine.slots, kv_cells, machine.load_s, self.owner.now_s)
        self.owner.carry_out(decisions)

    def _on_cold(self, model: Model) -> None:
        assert model.reservation is not None
        self.ledger.release(model.reservation)
        model.reservation = None
        model.move(ModelState.COLD)
        self.owner.carry_out(self.owner.scheduler.on_cold(model.name, self.owner.now_s))
