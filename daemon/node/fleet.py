"""All models and their workers: born when wanted, drained when not, buried and forgiven."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from typing import TYPE_CHECKING

from ...backends.messages import LoadFailed, Loading, Ready, Step, WorkerStats
from ..domain.errors import Code, InferdError
from ..domain.model import ModelState
from ..policy import cores
from ..policy.corrections import Corrections, key
from ..policy.ledger import Shortfall
from ..policy.rooms import no_room
from ..system.catalog import valid_name
from .plans import keep_alive_s, make_plan, options_for
from .prompter import PROCESS_BYTES
from .resident import Resident

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping

    from ...backends.messages import FromWorker
    from ...backends.process import Exit
    from ..domain.model import Model
    from ..domain.request import Job
    from .node import Node

log = logging.getLogger(__name__)

LOADED = (ModelState.LOADING, ModelState.READY, ModelState.DRAINING)


class Fleet:
    """Owner of every Resident. It shares the Node's loop, scheduler and ledger, and is written to by nobody else."""

    def __init__(self, node: Node, n_threads: int) -> None:
        self.node = node
        self.n_threads = n_threads
        self.gpus: tuple[str, ...] = ()  # device ids that llama.cpp can use
        self.residents: dict[str, Resident] = {}
        self.corrections = Corrections()
        self.on_corrected: Callable[[], None] = lambda: None  # there is something to keep
        self.closed = False  # nothing is started any more
        self._lease_ids = itertools.count(1)

    def __iter__(self) -> Iterator[Resident]:
        return iter(list(self.residents.values()))

    def get(self, name: str) -> Resident:
        """The model of that name, as it is known. Raises NOT_FOUND, or MODEL_CORRUPT for a file nobody can read."""
        resident = self.residents.get(name)
        return resident if resident is not None and self._in_use(resident) else self._look_up(name)

    def _in_use(self, resident: Resident) -> bool:
        lane = self.node.scheduler.lanes[resident.model.name]
        wanted = lane.line or lane.running or lane.loading or lane.leases or lane.asked_s is not None
        return bool(resident.model.state is not ModelState.COLD or wanted)

    def _look_up(self, name: str) -> Resident:
        """What the disk says now; a model whose file was replaced while it was cold starts afresh."""
        node = self.node
        entry = node.catalog.scan().get(name) if valid_name(name) else None
        if entry is None:
            raise InferdError(Code.NOT_FOUND, f"there is no model {name[:128]!r}; see: inferd models", field="model")
        if entry.facts is None:
            raise InferdError(Code.MODEL_CORRUPT, f"{name}: {entry.error}", field="model")
        known = self.residents.get(name)
        if known is not None and known.entry == entry and known.model.plan.devices == self._devices(known):
            self._price(known)
            return known
        if known is not None:
            known.prompter.close()
        plan = make_plan(name, entry.facts, node.config, self.n_threads, self.gpus)
        resident = Resident(name, entry, plan, keep_alive_s(name, node.config), node.ledger)
        resident.prompter.on_released = lambda: self._on_prompter_released(name)
        self.residents[name] = resident
        resident.price(self.corrections)
        node.scheduler.add_model(
            name,
            resident.bytes_on,
            resident.model.keep_alive_s,
            slots=plan.n_slots,
            context_tokens=plan.n_ctx,
            pinned=bool(options_for(name, node.config).pinned),
            helper_bytes=PROCESS_BYTES,
        )
        return resident

    def _price(self, resident: Resident) -> None:
        """What the next load takes may be known better by now."""
        resident.price(self.corrections)
        self.node.scheduler.lanes[resident.model.name].bytes_on = resident.bytes_on

    def _devices(self, resident: Resident) -> tuple[str, ...]:
        """What a plan made now would use: GPUs are found only some seconds after the start."""
        model = resident.model
        return make_plan(model.name, model.facts, self.node.config, self.n_threads, self.gpus).devices

    async def read(self, job: Job, resident: Resident) -> list[int]:
        """Its text as tokens; who waits for a cold model's memory waits for its helper's, too. Raises InferdError."""
        request, node = job.request, self.node
        while True:
            change = node.changes.next()
            try:
                return await resident.prompter.prepare(messages=request.messages, prompt=request.prompt)
            except InferdError as error:
                waits = job.live and not node.scheduler.lanes[request.model].slots
                if error.code is not Code.NO_ROOM or not waits:
                    raise
            await change

    async def load(self, name: str) -> AsyncGenerator[Model, None]:
        """Have a model loaded; yields it at each change until it is ready. Raises InferdError when it fails."""
        resident = self.get(name)
        resident.askers += 1
        try:
            async for model in self._load(resident):
                yield model
        finally:
            resident.askers -= 1
            if not resident.askers:
                self.node.carry_out(self.node.scheduler.on_load_withdrawn(name, time.monotonic()))

    async def _load(self, resident: Resident) -> AsyncIterator[Model]:
        name, model = resident.model.name, resident.model
        self._ask(resident)
        while model.state is not ModelState.READY:
            if resident.load_error is not None and model.state not in LOADED:
                raise resident.load_error
            change = self.node.changes.next()  # taken first: the reader of what we yield may be slow
            yield model
            await change
            resident = self.residents[name]  # another one, if its file was replaced meanwhile
            model = resident.model
            if model.state is ModelState.COLD and resident.load_error is None:
                self._ask(resident)  # it was still draining when we asked first
        yield model

    async def lease(self, name: str) -> AsyncGenerator[Model, None]:
        """Have a model loaded, and keep it so until the iterator is closed; yields it with each new worker."""
        node, lease = self.node, f"lease-{next(self._lease_ids)}"
        resident = self.get(name)
        node.refuse_when_closing()
        if resident.model.state is ModelState.FAILED:
            raise resident.refusal(time.monotonic())
        resident.refused = None
        held_pid: int | None = None
        node.carry_out(node.scheduler.on_lease(name, lease, time.monotonic()))
        try:
            while not node.closing:
                change = node.changes.next()
                resident = self.residents[name]
                if resident.model.state is ModelState.READY:
                    if resident.model.pid != held_pid:
                        held_pid = resident.model.pid
                        yield resident.model
                elif resident.refused is not None:
                    raise resident.refused
                await change
            node.refuse_when_closing()
        finally:
            node.carry_out(node.scheduler.on_lease_ended(name, lease, time.monotonic()))

    async def unload(self, name: str, force: bool) -> bool:
        """Unload a model and end its leases; False when it was not loaded. What runs ends first, unless `force`."""
        resident = self.get(name)
        if not resident.prompter.busy:
            resident.prompter.close()
        if resident.model.state not in LOADED:
            return False
        resident.refused = InferdError(Code.CANCELLED, f"{name} was unloaded")
        self.drain(resident, force)
        while resident.model.state is ModelState.DRAINING:
            await self.node.changes.wait()
        return True

    def begin(self, resident: Resident) -> None:
        """Reserve and spawn, as the scheduler decided."""
        name, now_s = resident.model.name, time.monotonic()
        try:
            resident.load(
                now_s,
                lambda message: self._on_message(resident, message),
                lambda: self._on_gone(resident),
                lambda how: self._on_reaped(resident, how),
            )
        except Shortfall as short:
            self.node.scheduler.on_closed(name, now_s)
            self.node.carry_out(self.node.scheduler.on_load_failed(name, no_room(name, short), now_s))
        self.node.changes.notify()

    def drain(self, resident: Resident, force: bool) -> None:
        """Take nothing new; end the worker when its last request ended, or now."""
        model, node = resident.model, self.node
        if model.state is not ModelState.DRAINING:
            force = force or model.state is ModelState.LOADING
            model.move(ModelState.DRAINING)
            node.scheduler.on_closed(model.name, float("inf"))
        running = node.scheduler.lanes[model.name].running
        if force:
            error = InferdError(Code.CANCELLED, f"{model.name} was unloaded")
            for job in list(running):
                node.cancel(job.id, error)
        if force or not running:
            resident.stop()
        node.changes.notify()

    def evict(self, resident: Resident) -> None:
        """Make room: what runs is parked and waits again, then the worker ends; the prompt helper goes, too."""
        model = resident.model
        log.info("%s makes way for another model", model.name)
        self.node.meter.total.evictions += 1
        resident.prompter.retire()
        if model.state is ModelState.READY:
            model.move(ModelState.DRAINING)
            self.node.scheduler.on_closed(model.name, float("inf"))
            self.node.park(model.name, "evicted")
            if not self.node.scheduler.lanes[model.name].running:
                resident.stop()
        elif not resident.prompter.open:  # nothing was left to wait for
            loop = asyncio.get_running_loop()
            loop.call_soon(self._on_prompter_released, model.name)
        self.node.changes.notify()

    def refuse(self, resident: Resident, error: InferdError) -> None:
        """It cannot be loaded; whoever waits for that is told."""
        resident.load_error = resident.refused = error
        self.node.changes.notify()

    async def close(self) -> None:
        """End every process; returns when all are reaped."""
        self.closed = True
        for resident in self:
            resident.prompter.close()
            if resident.model.state in LOADED:
                self.drain(resident, force=True)
        while any(r.model.state is ModelState.DRAINING for r in self):
            await self.node.changes.wait()
        for resident in self:
            await resident.prompter.wait()

    def observe(self, observed_on: Mapping[str, Mapping[str, int]]) -> None:
        """What a reading saw of each owner, by pool."""
        for resident in self:
            if resident.model.state is ModelState.READY and (seen := observed_on.get(resident.model.name)):
                resident.observe(seen, self.corrections)

    def estimate_error(self, resident: Resident) -> float | None:
        """How far the arithmetic was off at the last load, where it was worst; None when nobody has seen one."""
        errors = self.corrections.error(key(resident.model.facts, resident.model.plan))
        return max(errors.values(), key=abs, default=None)

    def pids(self) -> dict[str, int]:
        """Owner of a reservation -> its process."""
        owners = [(r.model.name, r.model.pid) for r in self] + [(r.prompter.owner, r.prompter.pid) for r in self]
        return {owner: pid for owner, pid in owners if pid is not None}

    def tick(self, now_s: float) -> None:
        """Prompt helpers of cold models end after the keep-alive, too."""
        for resident in self:
            model, prompter = resident.model, resident.prompter
            idle = model.state is ModelState.COLD and prompter.open and not prompter.busy and model.keep_alive_s >= 0
            if idle and now_s - prompter.used_s > model.keep_alive_s:
                prompter.close()

    def share_cores(self) -> None:
        """Those that compute on the processor divide it; one that is alone has all it wants."""
        lanes = self.node.scheduler.lanes
        busy = {r.model.name: r for r in self.residents.values() if r.on_cpu and lanes[r.model.name].running}
        wanted = {name: r.model.plan.n_threads for name, r in busy.items()}
        n_fixed = sum(wanted.pop(name) for name, r in busy.items() if r.model.plan.numerics == "exact")
        given = cores.share(wanted, self.n_threads, n_fixed)
        for name, n_threads in given.items():
            busy[name].use_threads(n_threads)

    def _ask(self, resident: Resident) -> None:
        node, model = self.node, resident.model
        now_s = time.monotonic()
        node.refuse_when_closing()
        if model.state is ModelState.FAILED:
            raise resident.refusal(now_s)
        if model.state is ModelState.COLD:
            resident.load_error = None
            node.carry_out(node.scheduler.on_load(model.name, now_s))

    # what workers say

    def _on_message(self, resident: Resident, message: FromWorker) -> None:
        match message:
            case Step(events=events):
                self.node.on_events(resident, events)
            case WorkerStats():
                resident.model.stats = message
            case Loading(progress=progress):
                resident.model.load_progress = progress
                self.node.changes.notify()
            case Ready():
                self._on_ready(resident, message)
            case LoadFailed():
                resident.note_load_failure(message)
            case other:
                raise AssertionError(f"not from a worker: {other}")

    def _on_ready(self, resident: Resident, ready: Ready) -> None:
        node, model, now_s = self.node, resident.model, time.monotonic()
        resident.worker_ready()
        model.move(ModelState.READY)
        model.ready, model.load_progress = ready, 1.0
        model.load_ms = (now_s - model.load_started_s) * 1e3
        load_s = now_s - model.load_started_s
        node.carry_out(node.scheduler.on_ready(model.name, ready.n_slots, ready.kv_cells, load_s, now_s))
        node.changes.notify()

    def _on_gone(self, resident: Resident) -> None:
        """The worker's channel ended: what ran in it ends now, before the process is reaped."""
        self.node.scheduler.on_closed(resident.model.name, float("inf"))
        self.node.on_worker_gone(resident)

    def _on_reaped(self, resident: Resident, how: Exit) -> None:
        node, model, now_s = self.node, resident.model, time.monotonic()
        was_loading = model.state is ModelState.LOADING
        back_off_s = resident.reaped(how, now_s)
        node.scheduler.lanes[model.name].bytes_on = resident.bytes_on
        self.on_corrected()
        if model.state is ModelState.FAILED:
            if was_loading and resident.load_error is not None:
                node.carry_out(node.scheduler.on_load_failed(model.name, resident.load_error, now_s))
            if not back_off_s:  # at once: no request may meet a failed model in between
                return self._on_back_off_over(resident)
            asyncio.get_running_loop().call_later(back_off_s, self._on_back_off_over, resident)
        else:
            node.carry_out(node.scheduler.on_cold(model.name, now_s))
        return node.changes.notify()

    def _on_prompter_released(self, name: str) -> None:
        """Its helper's bytes are free; the worker's are told of in `_on_reaped`."""
        if not self.closed and self.residents[name].model.state is not ModelState.DRAINING:  # else on_cold follows
            self.node.carry_out(self.node.scheduler.on_freed(name, time.monotonic()))

    def _on_back_off_over(self, resident: Resident) -> None:
        resident.model.move(ModelState.COLD)
        if not self.closed:
            self.node.carry_out(self.node.scheduler.on_cold(resident.model.name, time.monotonic()))
        self.node.changes.notify()
