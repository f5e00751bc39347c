"""Whether the files of a load are what they should be: looked at beside the load, and before its model serves."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)


class Proof:
    """Of one load, on the event loop. Without `bind` and `begin` there is nothing to prove."""

    def __init__(self) -> None:
        self._looking: asyncio.Task[None] | None = None
        self._refuted = self._dropped = False
        self._then: Callable[[], None] | None = None
        self._on_refuted: Callable[[], None] = lambda: None
        self._same: Callable[[], bool] = lambda: True
        self._on_changed: Callable[[], None] = lambda: None

    def bind(self, same: Callable[[], bool], on_changed: Callable[[], None]) -> None:
        """What was looked at is what the worker has opened only if the files are still the `same` when it is ready."""
        self._same, self._on_changed = same, on_changed

    def begin(self, look: Callable[[], str | None], on_refuted: Callable[[], None]) -> None:
        """`look` runs in a thread and says which file is another one."""
        self._on_refuted = on_refuted
        self._looking = asyncio.create_task(self._look(look), name="proof")

    def when_proven(self, then: Callable[[], None]) -> None:
        """At once, later, or never."""
        if self._looking is not None and not self._looking.done():
            self._then = then
        elif not self._dropped:
            self._end(then)

    def drop(self) -> None:
        """The load is over: nobody waits for it any more."""
        self._dropped, self._then = True, None

    def _end(self, then: Callable[[], None]) -> None:
        if self._refuted:
            self._on_refuted()  # again: there may have been no process to end
        elif not self._same():
            log.error("a model's files were changed while they were loaded")
            self._on_changed()
        else:
            then()

    async def _look(self, look: Callable[[], str | None]) -> None:
        try:
            changed = await asyncio.to_thread(look)
        except Exception:
            log.exception("a model's files cannot be looked at")
            changed = "?"
        self._refuted = changed is not None
        if self._dropped:
            return
        if changed is not None:
            log.error("%s is another file than was imported", changed)
            self._on_refuted()
        elif self._then is not None:
            self._end(self._then)
