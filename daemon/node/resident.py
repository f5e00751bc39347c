"""One model as the Node holds it: its life, its worker, its prompt helper and its bytes."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from ...backends import kinds, process
from ..domain.errors import Code, InferdError
from ..domain.model import Model, ModelState
from .prompter import Prompter

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...backends.facts import LoadPlan
    from ...backends.messages import FromWorker, LoadFailed, ToWorker
    from ...backends.process import Exit, Process
    from ..policy.ledger import Ledger, Reservation
    from ..system.catalog import Entry

log = logging.getLogger(__name__)

BACK_OFF_S = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0)  # after the n-th failure in a row
LOAD_CODES = {"corrupt": Code.MODEL_CORRUPT, "unsupported": Code.UNSUPPORTED}


class Resident:
    """Plain methods on the event loop; what has to wait is a task that ends in one of the `on_...` callbacks."""

    def __init__(self, name: str, entry: Entry, plan: LoadPlan, keep_alive_s: float, ledger: Ledger) -> None:
        assert entry.facts is not None
        self.entry = entry
        self.model = Model(name, entry.facts, plan, keep_alive_s)
        self.footprint = kinds.footprint(entry.facts, plan)
        self.prompter = Prompter(name, plan, ledger)
        self.load_error: InferdError | None = None
        self.refused: InferdError | None = None  # what the last one who wanted it loaded was told
        self._ledger = ledger
        self._worker: Process | None = None
        self._reservation: Reservation | None = None
        self._starting: asyncio.Task[None] | None = None

    def load(
        self,
        now_s: float,
        on_message: Callable[[FromWorker], None],
        on_gone: Callable[[], None],
        on_reaped: Callable[[Exit], None],
    ) -> None:
        """Reserve, then spawn. Raises Shortfall; every other failure comes through `on_reaped`."""
        model = self.model
        self._reservation = self._ledger.reserve(model.name, self.footprint.bytes_on)
        model.booked_bytes = self._reservation.total_bytes
        model.move(ModelState.LOADING)
        model.load_started_s, model.load_progress, model.produced = now_s, 0.0, False
        model.error, self.load_error = "", None
        self._worker = process.worker(on_message, on_gone, on_reaped)
        self._starting = asyncio.create_task(self._start(on_gone, on_reaped), name=f"start {model.name}")

    async def _start(self, on_gone: Callable[[], None], on_reaped: Callable[[Exit], None]) -> None:
        assert self._worker is not None
        try:
            await self._worker.start(self.model.plan)
        except OSError as error:
            message = f"no process for {self.model.name}: {error.strerror}"
            self.load_error = InferdError(Code.MODEL_FAILED, message)
            on_gone()
            return on_reaped(process.Exit(1, False, ()))
        self.model.pid = self._worker.pid
        if self.model.state is ModelState.DRAINING:  # told to unload meanwhile
            self._worker.stop()
        return None

    def send(self, message: ToWorker) -> None:
        assert self._worker is not None
        self._worker.send(message)

    def worker_ready(self) -> None:
        assert self._worker is not None
        self._worker.ready()

    def stop(self) -> None:
        """Ask the worker to end; `on_reaped` tells when it did."""
        if self._worker is not None and self._worker.pid is not None:
            self._worker.stop()

    def note_load_failure(self, failure: LoadFailed) -> None:
        """What the worker itself says; it ends by itself after that."""
        code = LOAD_CODES.get(failure.code, Code.MODEL_FAILED)
        self.load_error = InferdError(code, f"{self.model.name}: {failure.message}")

    def reaped(self, how: Exit, now_s: float) -> float:
        """Give back the bytes and take the step that the end calls for; returns the back-off in seconds."""
        model = self.model
        assert self._reservation is not None
        self._ledger.release(self._reservation)
        self._reservation = self._worker = None
        model.pid, model.ready, model.stats, model.booked_bytes = None, None, None, 0
        if model.state is ModelState.DRAINING:
            model.move(ModelState.COLD)
            return 0.0
        for line in how.tail:
            log.warning("%s: %s", model.name, line)
        if self.load_error is None:
            doing = "while loading" if model.state is ModelState.LOADING else "while running"
            self.load_error = InferdError(Code.MODEL_FAILED, f"the worker of {model.name} ended {doing} ({how.reason})")
        log.error("%s", self.load_error.message)
        model.error = self.load_error.message
        model.failures = 0 if model.produced else model.failures + 1
        model.move(ModelState.FAILED)
        back_off_s = 0.0 if model.failures == 0 else BACK_OFF_S[min(model.failures, len(BACK_OFF_S)) - 1]
        model.retry_at_s = now_s + back_off_s
        return back_off_s

    def refusal(self, now_s: float) -> InferdError:
        """Why a model in back-off takes no request."""
        error = self.load_error
        wait_ms = max(1, int((self.model.retry_at_s - now_s) * 1e3))
        code = error.code if error is not None else Code.MODEL_FAILED
        return InferdError(code, self.model.error, retry_after_ms=wait_ms)
