"""What workers say of themselves, and what becomes of them: ready, gone, buried and forgiven."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from ...backends.messages import Dropped, Fetch, Kept, LoadFailed, Loading, Ready, Step, WorkerStats
from ..domain.errors import Code
from ..domain.event import Kind, Severity
from ..domain.model import ModelState

if TYPE_CHECKING:
    from ...backends.exit import Exit
    from ...backends.messages import FromWorker
    from .fleet import Fleet
    from .resident import Resident


log = logging.getLogger(__name__)


class Lives:
    """Shares the Node's loop and the Fleet's state; called by the processes of its residents."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet, self.node = fleet, fleet.node

    def on_message(self, resident: Resident, message: FromWorker) -> None:
        if resident.lost:
            return  # what it computed is computed again elsewhere
        match message:
            case Step(events=events):
                self.node.answers.on_events(resident, events)
            case WorkerStats():
                resident.model.stats = message
            case Loading(progress=progress):
                resident.model.load_progress = progress
                self.node.changes.notify()
            case Ready():
                resident.proof.when_proven(lambda: self._on_ready(resident, message))
            case Kept() | Dropped() | Fetch():
                self.fleet.tiers.on_message(resident, message)
            case LoadFailed():
                resident.note_load_failure(message)
            case other:
                raise AssertionError(f"not from a worker: {other}")

    def _on_ready(self, resident: Resident, ready: Ready) -> None:
        node, model, now_s = self.node, resident.model, time.monotonic()
        if resident.lost or model.state is not ModelState.LOADING:  # as its files were looked at
            return
        resident.worker_ready()
        model.move(ModelState.READY)
        model.ready, model.load_progress = ready, 1.0
        model.load_ms = (now_s - model.load_started_s) * 1e3
        load_s = now_s - model.load_started_s
        self.fleet.tiers.on_ready(resident, ready.fingerprint)
        log.info("%s is shut in: %s", resident.place, ready.cage)
        message = f"{resident.place} is ready on {ready.device} after {load_s:.1f} s"
        node.events.note(Severity.INFO, Kind.MODEL_READY, message, model=model.name, device=resident.where)
        node.carry_out(
            node.scheduler.on_ready(
                resident.place,
                ready.n_slots,
                ready.kv_cells,
                load_s,
                now_s,
                shares_prefixes=ready.shares_prefixes,
            )
        )
        node.changes.notify()

    def on_gone(self, resident: Resident) -> None:
        """The worker's channel ended: what ran in it ends now, before the process is reaped."""
        self.node.scheduler.on_closed(resident.place, float("inf"))
        self.node.answers.on_worker_gone(resident)

    def on_reaped(self, resident: Resident, how: Exit) -> None:
        """What it leaves for the disk is written first: until then its bytes are not free."""
        crashed = resident.model.state is not ModelState.DRAINING
        self.fleet.tiers.on_gone(resident, lambda: self._on_ended(resident, how), crashed=crashed)

    def _on_ended(self, resident: Resident, how: Exit) -> None:
        node, model, now_s = self.node, resident.model, time.monotonic()
        was_loading = model.state is ModelState.LOADING
        resident.learn_end(self.fleet.corrections)
        back_off_s = resident.reaped(how, now_s)
        if resident.lost:
            return self.bury(resident)
        self._tell_end(resident, was_loading=was_loading)
        node.scheduler.places[resident.place].bytes_on = resident.bytes_on
        self.fleet.on_corrected()
        if model.state is ModelState.FAILED:
            if was_loading and resident.load_error is not None:
                node.carry_out(node.scheduler.on_load_failed(resident.place, resident.load_error, now_s))
            if not back_off_s:  # at once: no request may meet a failed model in between
                return self._on_back_off_over(resident)
            asyncio.get_running_loop().call_later(back_off_s, self._on_back_off_over, resident)
        else:
            node.carry_out(node.scheduler.on_cold(resident.place, now_s))
        return node.changes.notify()

    def _tell_end(self, resident: Resident, *, was_loading: bool) -> None:
        model, error = resident.model, resident.load_error
        if model.state is not ModelState.FAILED:
            end = Severity.INFO, Kind.MODEL_UNLOADED, f"{resident.place} is unloaded"
        elif error is None:
            kind = Kind.OUT_OF_MEMORY if "memory" in resident.retried else Kind.WORKER_CRASHED
            end = Severity.WARNING, kind, f"{resident.place} {resident.retried}"
        else:
            kind = Kind.MODEL_FAILED if was_loading else Kind.WORKER_CRASHED
            end = Severity.ERROR, Kind.OUT_OF_MEMORY if error.code is Code.WORKER_OOM else kind, error.message
        self.node.events.note(*end, model=model.name, device=resident.where)

    def _on_back_off_over(self, resident: Resident) -> None:
        if resident.lost:
            return self.bury(resident)
        resident.model.move(ModelState.COLD)
        if not self.fleet.closed:
            self.node.carry_out(self.node.scheduler.on_cold(resident.place, time.monotonic()))
        return self.node.changes.notify()

    def bury(self, resident: Resident) -> None:
        """Nothing of it is left, and its place is none any more."""
        fleet, node, place = self.fleet, self.node, resident.place
        node.carry_out(node.scheduler.on_freed(place, time.monotonic()))
        node.scheduler.remove_place(place)
        del fleet.residents[place], fleet.deployments[resident.model.name].residents[place]
        node.changes.notify()
