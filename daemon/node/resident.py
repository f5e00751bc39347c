"""One model in one place: its life there, its worker and its bytes."""

from __future__ import annotations

import asyncio
import logging
import signal
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from ...backends import kinds, process
from ...backends.exit import Exit
from ...backends.facts import HOST
from ...backends.messages import Cores, Infer
from ..domain.errors import Code, InferdError
from ..domain.model import Model, ModelState
from ..policy import corrections
from ..policy.vigil import Vigil
from ..system.processes import activity
from ..system.workgroups import SPARE_PIDS, UNDIVIDED, Group, Groups
from .plans import CELL_STEP
from .proof import Proof

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ...backends.blob import Blob
    from ...backends.facts import LoadPlan, ModelFacts
    from ...backends.messages import Embed, FromWorker, Inferred, LoadFailed, Run, Submit, ToWorker
    from ...backends.process import Process
    from ..domain.tensors import Tensors
    from ..policy.corrections import Corrections
    from ..policy.ledger import Ledger, Reservation

log = logging.getLogger(__name__)

BACK_OFF_S = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0)  # after the n-th failure in a row
LOAD_CODES = {"corrupt": Code.MODEL_CORRUPT, "unsupported": Code.UNSUPPORTED, "sandbox": Code.NO_SANDBOX}
SPARE_BYTES = 512 * 2**20  # of host RAM, beyond what a load was estimated to take: a worker that has that is broken


class Resident:
    """Plain methods on the event loop; what has to wait is a task that ends in one of the `on_...` callbacks."""

    def __init__(
        self, place: str, name: str, facts: ModelFacts, plan: LoadPlan, keep_alive_s: float, ledger: Ledger
    ) -> None:
        self.place = place  # whose name its reservation bears
        self.lost = False  # its device is gone for good
        self.model = Model(name, facts, plan, keep_alive_s)
        self.plan = plan  # as the config has it; the model's own may be smaller after a load without memory
        self.footprint = kinds.footprint(facts, plan)
        self.bytes_on: Mapping[str, int] = self.footprint.bytes_on  # what a load reserves
        self.widest_prompt = 0  # tokens; one as wide as a batch has made every buffer resident
        self.n_threads = plan.n_threads  # of those of its plan, while others compute, too
        self._vigil = Vigil()
        self.ended_why = ""  # its worker was there and did nothing
        self.retried = ""  # what became of the load before this one, if this is its second try
        self._starved = False  # the load that failed found no memory
        self.load_error: InferdError | None = None
        self._ledger = ledger
        self._worker: Process | None = None
        self._reservation: Reservation | None = None
        self._starting: asyncio.Task[None] | None = None
        self._group = Group()
        self.proof = Proof()

    @property
    def on_cpu(self) -> bool:
        """Some of its layers are computed by the processor (llama.cpp counts the output as one more)."""
        return 0 <= self.model.plan.n_gpu_layers <= self.model.facts.n_layers

    @property
    def where(self) -> str:
        """Its devices, for people."""
        return ", ".join(self.model.plan.devices) or "cpu"

    def load(
        self,
        now_s: float,
        on_message: Callable[[FromWorker], None],
        on_gone: Callable[[], None],
        on_reaped: Callable[[Exit], None],
        groups: Groups = UNDIVIDED,
        slack: float = 1.0,
    ) -> None:
        """Reserve, then spawn. Raises Shortfall; every other failure comes through `on_reaped`."""
        model = self.model
        self.widest_prompt, self._starved, self.n_threads = 0, False, model.plan.n_threads
        self._reservation = self._ledger.reserve(self.place, self.bytes_on)
        model.booked_bytes = self._reservation.total_bytes
        model.move(ModelState.LOADING)
        model.load_started_s, model.load_progress, model.produced = now_s, 0.0, False
        model.error, self.load_error = "", None
        self._vigil, self.ended_why = Vigil(), ""
        self.proof = Proof()
        limit_bytes = int(self.bytes_on.get(HOST, 0) * slack) + SPARE_BYTES
        self._group = groups.begin(self.place, limit_bytes, SPARE_PIDS + model.plan.n_threads)
        self._worker = process.worker(on_message, on_gone, on_reaped, self._group.add)
        self._starting = asyncio.create_task(self._start(on_gone, on_reaped), name=f"start {self.place}")

    async def _start(self, on_gone: Callable[[], None], on_reaped: Callable[[Exit], None]) -> None:
        assert self._worker is not None
        try:
            await self._worker.start(self._plan_to_send())
        except OSError as error:
            message = f"no process for {self.model.name}: {error.strerror}"
            self.load_error = InferdError(Code.MODEL_FAILED, message)
            on_gone()
            return on_reaped(Exit(1, False, ()))
        self.model.pid = self._worker.pid
        if self.model.state is ModelState.DRAINING:  # told to unload meanwhile
            self._worker.stop()
        return None

    def price(self, known: Corrections) -> None:
        """Take what past loads teach into what the next one reserves; it is tried as the config has it."""
        if self.model.plan is not self.plan:
            self.model.plan, self.footprint = self.plan, kinds.footprint(self.model.facts, self.plan)
        self.retried = ""
        self.bytes_on = known.apply(corrections.key(self.model.facts, self.model.plan), self.footprint.bytes_on)

    def observe(self, observed_on: Mapping[str, int], held_bytes: int, known: Corrections) -> None:
        """What a reading saw of the worker, by pool; on the host its private bytes, and `held_bytes` that it keeps."""
        model, expected = self.model, self.footprint.bytes_on
        key = corrections.key(model.facts, model.plan)
        # What is kept is booked apart: it fills as it likes. Whole states are the worker's own, and in no file.
        cache_bytes = held_bytes or (model.stats.cache_bytes if model.stats else 0)
        # A graph's largest call is one of many requests, in every lane: a quiet one does not teach that less is needed.
        graph = model.plan.backend == "onnx"
        full = self.widest_prompt >= model.plan.n_ubatch and not graph
        cells_used = model.plan.kv_cells if graph else self.widest_prompt
        for pool, n_bytes in observed_on.items():
            if pool == HOST:
                n_bytes -= cache_bytes
            if pool == HOST and self.footprint.host_anon_bytes:
                n_bytes = corrections.host_bytes(self.footprint, model.plan, n_bytes, cells_used)
            elif pool == HOST:
                continue  # nobody has said what should be seen
            if pool in expected:
                known.observe(key, pool, expected[pool], n_bytes, str(model.pid), full=full or pool != HOST)

    def shrink(self) -> None:
        """After a load that ran out of memory: the next one gets by with fewer KV cells, or reserves more."""
        plan = self.model.plan
        n_cells = max(plan.n_ctx, plan.kv_cells // 2 // CELL_STEP * CELL_STEP)
        if n_cells < plan.kv_cells:
            self.model.plan = msgspec.structs.replace(plan, kv_cells=n_cells, cache_bytes=0)
            self.footprint = kinds.footprint(self.model.facts, self.model.plan)
            self.bytes_on = self.footprint.bytes_on
        else:
            self.bytes_on = {pool: n_bytes * 5 // 4 for pool, n_bytes in self.bytes_on.items()}

    def order(self, asked: Submit | Embed | Infer, tensors: Tensors | None) -> None:
        """Have the worker do this; tensors that are in a file go before."""
        assert self._worker is not None
        if tensors is not None and isinstance(asked, Infer) and not self._worker.send_blob(tensors.blob):
            asked = msgspec.structs.replace(asked, data=tensors.blob.read())  # it takes no more files now
        self._worker.send(asked)

    def take_blob(self, event: Inferred) -> Blob:
        """The values of outputs, from the frame or from the file that was sent before it."""
        assert self._worker is not None
        return self._worker.take_blob(sum(tensor.n_bytes for tensor in event.outputs), event.data)

    def send(self, message: ToWorker) -> None:
        assert self._worker is not None
        self._worker.send(message)

    def give(self, runs: Sequence[tuple[Run, int]], missing: Sequence[bytes] = ()) -> bool:
        assert self._worker is not None
        return self._worker.give(runs, missing)

    def take(self, run: Run) -> int | None:
        assert self._worker is not None
        return self._worker.take(run)

    def use_threads(self, n_threads: int) -> None:
        """Compute with so many from now on."""
        if n_threads != self.n_threads:
            self.n_threads = n_threads
            self.send(Cores(n_threads))

    def worker_ready(self) -> None:
        assert self._worker is not None
        self.retried = ""
        self._worker.ready()

    def _plan_to_send(self) -> LoadPlan:
        """With what is reserved on its device, which may be more than was estimated once."""
        plan = self.model.plan
        reserved = self.bytes_on.get(plan.devices[0], 0) if plan.devices else 0
        return msgspec.structs.replace(plan, device_bytes=reserved)

    def stop(self) -> None:
        """Ask the worker to end; `on_reaped` tells when it did."""
        if self._worker is not None and self._worker.pid is not None:
            self._worker.stop()

    def kill(self) -> None:
        """End the worker without asking."""
        if self._worker is not None and self._worker.pid is not None:
            self._worker.kill()

    def look(self, now_s: float, step_limit_s: float) -> None:
        """End a worker that is there and does nothing; its requests go on in the next one."""
        signs = self._worker.signs() if self._worker is not None else None
        if self._worker is None or self._worker.pid is None or signs is None or self.ended_why:
            return
        seen = activity(self._worker.pid)
        if seen.state == "t":
            return  # whoever looks into it has all the time that he wants
        age_s = now_s - signs.step_s if signs.step_s else 0.0
        self.ended_why = self._vigil.look(
            stopped=seen.state == "T",
            beats=signs.beats,
            step_age_s=age_s,
            longest_s=signs.longest_s,
            step_limit_s=step_limit_s,
        )
        if not (self.ended_why or signs.beats):  # it loads: its heart beats from when that is over
            far = self.model.load_progress, seen.major_faults
            self.ended_why = self._vigil.look_at_load(
                far, seen.resident_pages, seen.cpu_ticks, asleep=seen.state == "S", step_limit_s=step_limit_s
            )
        if self.ended_why:
            log.error("the worker of %s is ended: %s", self.place, self.ended_why)
            self._worker.kill()

    def refute(self, why: str = "the file is another one than was imported; pull it again, or copy it") -> None:
        """What was loaded is of no use: it is not of the files that it should be of."""
        self.load_error = InferdError(Code.MODEL_CORRUPT, f"{self.model.name}: {why}")
        self.kill()

    def ran_out(self) -> bool:
        """The kernel has ended the worker for taking more memory than it may have."""
        return self._group.ran_out()

    def learn_end(self, known: Corrections) -> None:
        """The next load gets more, if this one ran out of memory."""
        self._group.end()
        if self._group.ran_out():
            self._starved = True
            key, expected = corrections.key(self.model.facts, self.model.plan), self.footprint.bytes_on
            known.starved(key, HOST, expected[HOST], self._group.limit_bytes)
            self.bytes_on = known.apply(key, expected)

    def note_load_failure(self, failure: LoadFailed) -> None:
        """What the worker itself says; it ends by itself after that."""
        self._starved = failure.code == "memory"
        code = LOAD_CODES.get(failure.code, Code.MODEL_FAILED)
        self.load_error = InferdError(code, f"{self.model.name}: {failure.message}")

    def reaped(self, how: Exit, now_s: float) -> float:
        """Give back the bytes and take the step that the end calls for; returns the back-off in seconds."""
        model = self.model
        self._give_back(how)
        self.proof.drop()
        model.pid, model.ready, model.stats, model.booked_bytes = None, None, None, 0
        if model.state is ModelState.DRAINING:
            model.move(ModelState.COLD)
            return 0.0
        died = how.code < 0 and self.load_error is None
        if model.state is ModelState.LOADING and not self.retried and (self._starved or died):
            self._try_again(how)
            model.move(ModelState.FAILED)
            return 0.0
        for line in how.tail:
            log.warning("%s: %s", self.place, line)
        if self.load_error is None:
            doing = "while loading" if model.state is ModelState.LOADING else "while running"
            why = self.ended_why or how.reason
            self.load_error = InferdError(Code.MODEL_FAILED, f"the worker of {model.name} ended {doing} ({why})")
            if self._group.starved:
                may_mib = self._group.limit_bytes >> 20
                message = f"the worker of {model.name} ran out of memory {doing}: it may have {may_mib:,} MiB"
                self.load_error = InferdError(Code.WORKER_OOM, message, retry_after_ms=1000)
        log.error("%s", self.load_error.message)
        model.error = self.load_error.message
        model.failures = 0 if model.produced else model.failures + 1
        model.move(ModelState.FAILED)
        back_off_s = 0.0 if model.failures == 0 else BACK_OFF_S[min(model.failures, len(BACK_OFF_S)) - 1]
        model.retry_at_s = now_s + back_off_s
        return back_off_s

    def _give_back(self, how: Exit) -> None:
        """The bytes are free, or taken until the kernel lets the process go."""
        assert self._reservation is not None
        assert self._worker is not None
        if how.held and not self._worker.freed:  # what it left for the disk was written first
            self.ended_why = f"{self.ended_why or 'it was to end'}, and the kernel holds it"
            held = self._ledger.hold(self._reservation, self.model.pid or 0)
            self._worker.on_freed = partial(self._ledger.release, held)
        else:
            self._ledger.release(self._reservation)
        self._reservation = self._worker = None

    def _try_again(self, how: Exit) -> None:
        """One death by a signal costs nobody who waits anything. SIGKILL: the kernel's, as memory ran out."""
        if self._group.starved:  # there was memory, and it is given more of it
            self.retried = "ran out of memory while loading; it is tried once more with more of it"
        elif self._starved or (how.code == -signal.SIGKILL and not self.ended_why):
            self.retried = "ran out of memory while loading; it is tried once more with less"
            self.shrink()
        else:
            self.retried = f"died while loading ({self.ended_why or how.reason}); it is tried once more"
        log.warning("%s %s", self.place, self.retried)
        self.load_error = None

    def refusal(self, now_s: float) -> InferdError:
        """Why a model in back-off takes no request."""
        error = self.load_error
        wait_ms = max(1, int((self.model.retry_at_s - now_s) * 1e3))
        code = error.code if error is not None else Code.MODEL_FAILED
        return InferdError(code, self.model.error, retry_after_ms=wait_ms)
