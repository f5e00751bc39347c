"""When requests are to be over: each has a timer from its arrival to its end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ..domain.errors import Code, InferdError
from ..domain.event import Kind, Severity

if TYPE_CHECKING:
    from ..domain.request import Job
    from .node import Node


class Deadlines:
    """Shares the Node's loop."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self._timers: dict[str, asyncio.TimerHandle] = {}  # by the request's id

    def begin(self, job: Job) -> None:
        """Count from now, if it has one."""
        if (deadline_ms := job.request.deadline_ms) is not None:
            loop = asyncio.get_running_loop()
            self._timers[job.id] = loop.call_later(deadline_ms / 1e3, self._on_deadline, job)

    def drop(self, job: Job) -> None:
        """Nobody waits for it any more."""
        if (timer := self._timers.pop(job.id, None)) is not None:
            timer.cancel()

    def _on_deadline(self, job: Job) -> None:
        if job.live:
            message = f"not finished {job.request.deadline_ms} ms after arrival"
            self.node.events.about(job, Severity.WARNING, Kind.DEADLINE_MISSED, f"{job.id}: {message}")
            error = InferdError(Code.DEADLINE, message, field="deadline_ms")
            self.node.cancel(job.id, error, job.request.tenant)
