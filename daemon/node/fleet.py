"""All models and their workers: born when wanted, drained when not."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from ...backends.cage import files_of
from ..domain.errors import Code, InferdError
from ..domain.event import Kind, Severity
from ..domain.model import ModelState
from ..policy.corrections import Corrections, key
from ..policy.ledger import Shortfall
from ..policy.rooms import no_room
from ..system.catalog import valid_name
from ..system.digests import Digests, stamps_of
from ..system.imports import Imports
from ..system.workgroups import Groups
from .beside import Beside, beside
from .deployment import LOADED, Deployment, place_name, wheres
from .disk import Disk
from .lives import Lives
from .plans import Gpu, keep_alive_s, make_plans, options_for
from .prompter import PROCESS_BYTES
from .resident import Resident
from .sharing import Sharing
from .tiers import Tiers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from ...backends.facts import LoadPlan, ModelFacts
    from ..system.catalog import Entry
    from .node import Node

log = logging.getLogger(__name__)


class Fleet:
    """Owner of all that is deployed. It shares the Node's loop, scheduler and ledger; nobody else writes to it."""

    def __init__(self, node: Node, n_threads: int) -> None:
        self.node = node
        self.n_threads = n_threads
        self.gpus: dict[str, Gpu] = {}  # that the engine can use, by device id
        self.deployments: dict[str, Deployment] = {}
        self.residents: dict[str, Resident] = {}  # of all models, by place
        self.corrections = Corrections()
        self.tiers = Tiers(Disk(), Digests())
        self.imports = Imports(Digests())
        self.groups = Groups()  # in which workers are born
        self.lives = Lives(self)
        self.on_corrected: Callable[[], None] = lambda: None  # there is something to keep
        self.sharing = Sharing()
        self.pins: dict[str, bool] = {}  # by model: an operator's word, which wins over the config
        self.closed = False  # nothing is started any more

    def __iter__(self) -> Iterator[Resident]:
        return iter(list(self.residents.values()))

    def get(self, name: str) -> Deployment:
        """The model of that name or alias, as it is known.

        Raises NOT_FOUND, or MODEL_CORRUPT for a file nobody can read.
        """
        name = self.node.aliases.real(name)
        known = self.deployments.get(name)
        return known if known is not None and self._in_use(known) else self._look_up(name)

    def _in_use(self, deployment: Deployment) -> bool:
        lane = self.node.scheduler.lanes[deployment.name]
        if lane.line or lane.leases or lane.asked_s is not None:
            return True
        residents = deployment.residents.values()
        return any(r.model.state is not ModelState.COLD for r in residents) or any(p.up for p in lane.places)

    def _look_up(self, name: str) -> Deployment:
        """What the disk says now; a model whose file was replaced while it was cold starts afresh."""
        node = self.node
        entries = node.catalog.scan()
        entry = entries.get(name) if valid_name(name) else None
        if entry is None:
            raise InferdError(Code.NOT_FOUND, f"there is no model {name[:128]!r}; see: inferd models", field="model")
        if entry.facts is None:
            raise InferdError(Code.MODEL_CORRUPT, f"{name}: {entry.error}", field="model")
        plans = self._plans(name, entry.facts, beside(name, entry.facts, node.config, node.catalog, entries))
        known = self.deployments.get(name)
        same = known is not None and known.entry == entry and wheres(known.plans) == wheres(plans)
        if known is not None and same and not known.outdated:
            for resident in known.residents.values():
                self._price(resident)
            return known
        return self._deploy(name, entry, plans)

    def _plans(self, name: str, facts: ModelFacts, company: Beside) -> list[LoadPlan]:
        """As of now: GPUs are found only some seconds after the start, and may be lost."""
        return make_plans(name, facts, self.node.config, self.n_threads, self.gpus, *company)

    def _deploy(self, name: str, entry: Entry, plans: list[LoadPlan]) -> Deployment:
        """Nothing of an earlier one is alive."""
        node, options = self.node, options_for(name, self.node.config)
        if (known := self.deployments.get(name)) is not None:
            known.prompter.close()
            for place in known.residents:
                del self.residents[place]
        self.deployments[name] = deployment = Deployment(name, entry, plans[0], node.ledger, self.groups)
        deployment.prompter.on_released = lambda: self._on_prompter_released(deployment)
        node.scheduler.add_model(
            name,
            keep_alive_s(name, node.config),
            slots=plans[0].n_slots,
            context_tokens=plans[0].n_ctx,
            pinned=self.pins.get(name, bool(options.pinned)),
            helper_bytes=PROCESS_BYTES,
            replicas=options.replicas or 1,
            grows=plans[0].task == "generate",
        )
        for plan in plans:
            self._settle_in(deployment, place_name(name, plan, len(plans)), plan)
        return deployment

    def _settle_in(self, deployment: Deployment, place: str, plan: LoadPlan) -> None:
        """One more place for the model."""
        name, node = deployment.name, self.node
        resident = Resident(place, name, deployment.facts, plan, keep_alive_s(name, node.config), node.ledger)
        resident.price(self.corrections)
        deployment.residents[place] = self.residents[place] = resident
        node.scheduler.add_place(name, place, resident.bytes_on)

    def _price(self, resident: Resident) -> None:
        """What the next load takes may be known better by now."""
        resident.price(self.corrections)
        self.node.scheduler.places[resident.place].bytes_on = resident.bytes_on

    def lose(self, devices: Iterable[str]) -> None:
        """These are gone for good: what ran there goes on elsewhere, and nothing is loaded there any more."""
        gone = {device for device in devices if device in self.gpus}
        if not gone:
            return
        for device in gone:
            log.error("%s is lost; what ran there moves", device)
            message = f"{device} is lost; what ran there moves"
            self.node.events.note(Severity.ERROR, Kind.DEVICE_LOST, message, device=device)
            del self.gpus[device]
        for deployment in self.deployments.values():
            for resident in deployment.on(gone):
                deployment.lost = True
                self._lose(resident)
            if all(resident.lost for resident in deployment.residents.values()):
                was = deployment.speaker.plan
                for plan in self._plans(deployment.name, deployment.facts, Beside(was.draft, was.adapters)):
                    self._settle_in(deployment, place_name(deployment.name, plan, 0), plan)
            for resident in deployment.on(gone):
                if resident.model.state is ModelState.COLD:
                    self.lives.bury(resident)
        self.node.look_again()
        self.node.changes.notify()

    def _lose(self, resident: Resident) -> None:
        resident.lost = True
        self.node.scheduler.on_closed(resident.place, float("inf"))
        self.node.move_away(resident, "device_lost")
        if resident.model.state in LOADED:
            if resident.model.state is not ModelState.DRAINING:
                resident.model.move(ModelState.DRAINING)
            resident.kill()

    def begin(self, resident: Resident) -> None:
        """Reserve and spawn, as the scheduler decided."""
        place, now_s = resident.place, time.monotonic()
        self.deployments[resident.model.name].load_error = None
        self.tiers.on_loading(resident)
        try:
            resident.load(
                now_s,
                lambda message: self.lives.on_message(resident, message),
                lambda: self.lives.on_gone(resident),
                lambda how: self.lives.on_reaped(resident, how),
                self.groups,
                self.node.config.workers.memory_slack,
            )
        except Shortfall as short:
            self.tiers.on_gone(resident, lambda: None, crashed=True)
            self.node.scheduler.on_closed(place, now_s)
            error = no_room(resident.model.name, short)
            self.node.carry_out(self.node.scheduler.on_load_failed(place, error, now_s))
        else:
            model, device = resident.model, resident.where
            self._prove(resident)
            message = f"{place} is being loaded on {device}, with {model.booked_bytes / 2**20:,.0f} MiB"
            self.node.events.note(Severity.INFO, Kind.MODEL_LOADING, message, model=model.name, device=device)
        self.node.changes.notify()

    def _prove(self, resident: Resident) -> None:
        """Have its files looked at beside the load, where that has to be. Its worker has not opened them yet."""
        verify, paths = self.node.config.models.verify, files_of(resident.model.plan)
        promised = self.imports.promised(paths, verify)
        stamps, changed = stamps_of(promised), "the file was changed while it was loaded; ask again"
        resident.proof.bind(lambda: stamps_of(promised) == stamps, lambda: resident.refute(changed))
        if doubtful := self.imports.doubtful(paths, verify):
            resident.proof.begin(lambda: self.imports.changed(doubtful, verify), resident.refute)

    def drain(self, resident: Resident, force: bool) -> None:
        """Take nothing new; end the worker when its last request ended, or now."""
        model, node = resident.model, self.node
        if model.state is not ModelState.DRAINING:
            force = force or model.state is ModelState.LOADING
            model.move(ModelState.DRAINING)
            node.scheduler.on_closed(resident.place, float("inf"))
        running = node.scheduler.places[resident.place].running
        if force:
            error = InferdError(Code.CANCELLED, f"{model.name} was unloaded")
            for job in list(running):
                node.cancel(job.id, error)
        if force or not running:
            resident.stop()
        node.changes.notify()

    def evict(self, resident: Resident, wanted: str) -> None:
        """Make room for that model: what runs is parked, then the worker ends; the prompt helper goes, too."""
        model, deployment = resident.model, self.deployments[resident.model.name]
        log.info("%s makes way for %s", resident.place, wanted)
        message = f"{resident.place} makes way for {wanted}"
        self.node.events.note(Severity.INFO, Kind.MODEL_EVICTED, message, model=model.name)
        self.node.meter.total.evictions += 1
        if self.node.scheduler.rooms.keeps_helper(self.node.scheduler.places[resident.place]):
            deployment.prompter.retire()
        if model.state is ModelState.READY:
            self.tiers.hurry(resident.place)
            model.move(ModelState.DRAINING)
            self.node.scheduler.on_closed(resident.place, float("inf"))
            self.node.park(resident.place, "evicted")
            if not self.node.scheduler.places[resident.place].running:
                resident.stop()
        elif not deployment.prompter.open:  # nothing was left to wait for
            loop = asyncio.get_running_loop()
            loop.call_soon(self._on_prompter_released, deployment)
        self.node.changes.notify()

    def refuse(self, name: str, error: InferdError) -> None:
        """It cannot be loaded; whoever waits for that is told."""
        deployment = self.deployments[name]
        deployment.load_error = deployment.refused = error
        self.node.changes.notify()

    async def close(self) -> None:
        """End every process; returns when all are reaped."""
        self.closed = True
        for deployment in self.deployments.values():
            deployment.prompter.close()
        for resident in self:
            if resident.model.state in LOADED:
                self.drain(resident, force=True)
        while any(r.model.state is ModelState.DRAINING for r in self):
            await self.node.changes.wait()
        for deployment in self.deployments.values():
            await deployment.prompter.wait()
        await self.tiers.close()

    def observe(self, observed_on: Mapping[str, Mapping[str, int]]) -> None:
        """What a reading saw of each owner, by pool."""
        for resident in self:
            if resident.model.state is ModelState.READY and (seen := observed_on.get(resident.place)):
                resident.observe(seen, self.tiers.n_bytes(resident.place), self.corrections)

    def estimate_error(self, resident: Resident) -> float | None:
        """How far the arithmetic was off at the last load, where it was worst; None when nobody has seen one."""
        errors = self.corrections.error(key(resident.model.facts, resident.model.plan))
        return max(errors.values(), key=abs, default=None)

    def pids(self) -> dict[str, int]:
        """Owner of a reservation -> its process."""
        prompters = [deployment.prompter for deployment in self.deployments.values()]
        owners = [(r.place, r.model.pid) for r in self] + [(p.owner, p.pid) for p in prompters]
        return {owner: pid for owner, pid in owners if pid is not None} | self.node.ledger.held

    def tick(self, now_s: float) -> None:
        """Workers that do nothing are replaced; prompt helpers of cold models end after the keep-alive, too."""
        for resident in self:
            resident.look(now_s, self.node.config.server.step_limit_s)
        for deployment in self.deployments.values():
            model, prompter = deployment.model, deployment.prompter
            prompter.look()
            idle = model.state is ModelState.COLD and prompter.open and not prompter.busy and model.keep_alive_s >= 0
            if idle and now_s - prompter.used_s > model.keep_alive_s:
                prompter.close()

    def share_cores(self) -> None:
        self.sharing.share(self.residents.values(), self.node.scheduler.places, self.n_threads)

    def _on_prompter_released(self, deployment: Deployment) -> None:
        """Its helper's bytes are free; a worker's are told of in `Lives.on_reaped`."""
        for resident in list(deployment.residents.values()):
            if not self.closed and resident.model.state is not ModelState.DRAINING:  # else on_cold follows
                self.node.carry_out(self.node.scheduler.on_freed(resident.place, time.monotonic()))
