"""The store of the jobs on a thread of its own, and whether the disk takes anything now."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

from ..domain.errors import Code, InferdError
from ..domain.event import Kind, Severity
from ..system.rows import DAMAGED, Damaged
from ..system.store import Store, StoreError
from .changes import Changes

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..domain.durable import DurableJob
    from .node import Node

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger(__name__)

CLOSE_S = 5.0


class Archive:
    """Without `use` there is none."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.trouble = ""  # why nothing can be written now; a sentence
        self._store: Store | None = None
        self._opened = False
        self._changes = Changes()

    @property
    def used_bytes(self) -> int:
        return 0 if self._store is None else self._store.used_bytes

    def use(self, store: Store) -> None:
        self._store = store
        self._thread = ThreadPoolExecutor(1, "store")

    async def ask(self, method: Callable[Concatenate[Store, P], T], *given: P.args, **named: P.kwargs) -> T:
        """Wait for the disk."""
        assert self._store is not None, "nobody said where jobs are kept"
        call = partial(method, self._store, *given, **named)
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    async def look(self, method: Callable[Concatenate[Store, P], T], *given: P.args, **named: P.kwargs) -> T:
        """The same for who asks from outside. Raises InferdError."""
        await self.ready()
        try:
            return await self.ask(method, *given, **named)
        except StoreError as error:
            raise InferdError(Code.NO_DISK, f"jobs cannot be read: {error}", retry_after_ms=5000) from None
        except Damaged as error:
            log.error("damaged on the disk: %s", error)
            raise InferdError(Code.INTERNAL, DAMAGED) from None

    async def ready(self) -> None:
        """What was there is known. Raises InferdError."""
        if self._store is None:
            raise InferdError(Code.UNSUPPORTED, "this daemon keeps no jobs")
        while not self._opened:
            self.node.refuse_when_closing()
            if self.trouble:
                raise self.refusal()
            await self._changes.wait()
        self.node.refuse_when_closing()

    async def until(self, changes: Changes, is_written: Callable[[], bool]) -> None:
        """Raises InferdError when that cannot be awaited."""
        while not is_written():
            await changes.wait()
            self.node.refuse_when_closing()
            if self.trouble:
                raise self.refusal()

    async def open(self) -> list[DurableJob] | None:
        """Jobs that have not ended; None when the disk will not."""
        try:
            sound = await self.ask(Store.open)
            jobs = await self.ask(Store.live)
        except Exception as error:
            if not isinstance(error, StoreError):
                log.exception("reading what was kept of jobs failed")
                error = RuntimeError("the log says why")
            self.refuse(error)
            return None
        if not sound:
            message = "the file of the jobs was damaged and is set aside: jobs that it held are lost"
            self.node.events.note(Severity.ERROR, Kind.DISK, message)
        self.relieve()
        self._opened = True
        self.notify()
        return jobs

    def refuse(self, error: Exception) -> None:
        """The disk will not: new jobs are sent away, and what runs goes on. Told once."""
        trouble = f"jobs cannot be kept: {error}"
        if trouble != self.trouble:
            self.trouble = trouble
            log.warning("%s (%s)", trouble, error.__cause__)
            self.node.events.note(Severity.WARNING, Kind.DISK, trouble)
        self.notify()

    def relieve(self) -> None:
        """It took something."""
        if self.trouble:
            self.trouble = ""
            log.info("jobs are kept on the disk again")
            self.node.events.note(Severity.INFO, Kind.DISK, "jobs are kept on the disk again")

    def refusal(self) -> InferdError:
        return InferdError(Code.NO_DISK, self.trouble, retry_after_ms=5000)

    def notify(self) -> None:
        """Those who wait look again."""
        self._changes.notify()

    async def close(self) -> None:
        if self._store is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.ask(Store.close), CLOSE_S)
            self._thread.shutdown(wait=False)
