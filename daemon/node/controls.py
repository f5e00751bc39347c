"""What operators ask for: another class for a request, a model that stays, no new requests, the end of one."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from ..domain.errors import Code, InferdError
from ..domain.event import Kind, Severity

if TYPE_CHECKING:
    from ..domain.request import Priority
    from .node import Node

log = logging.getLogger(__name__)


class Controls:
    """Shares the Node's loop and state; each returns how it was before, or whether there was something to do it to."""

    def __init__(self, node: Node) -> None:
        self.node = node

    def cancel(self, request_id: str, tenant: str | None = None) -> bool:
        """End a request with all its choices; False when nothing of it is live. `tenant`: only one of this tenant."""
        _check(request_id)
        job = next((job for job in self.node.jobs.called(request_id, tenant) if job.live), None)
        if job is None:
            return False
        self.node.events.about(job, Severity.INFO, Kind.CANCELLED, f"{request_id} was cancelled by its id")
        return self.node.cancel(request_id, tenant=tenant)

    def tenant_of(self, request_id: str) -> str | None:
        """Whose request it is; None when nothing of it is live, and no job of this id waits."""
        live = next((job.request.tenant for job in self.node.jobs.called(request_id) if job.live), None)
        waits = self.node.durable.waiting(request_id, None) if live is None else None
        return live if waits is None else waits.row.tenant

    def set_priority(self, request_id: str, priority: Priority, tenant: str | None = None) -> bool:
        """All choices of a call move together; False when nothing of it is live. `tenant`: only one of this tenant."""
        _check(request_id)
        node = self.node
        roots = {job.request.root_id for job in node.jobs.called(request_id, tenant)}
        jobs = [job for job in node.jobs if job.live and job.request.root_id in roots]
        jobs = [job for job in jobs if tenant in (None, job.request.tenant)]
        if moved := [job for job in jobs if job.request.priority is not priority]:
            was = moved[0].request.priority.value
            message = f"{request_id} was moved from {was} to {priority.value}"
            node.events.about(moved[0], Severity.INFO, Kind.PRIORITY_CHANGED, message)
            node.carry_out(node.scheduler.on_priority(moved, priority, time.monotonic()))
            node.changes.notify()
        return bool(jobs)

    def pin(self, name: str, pinned: bool) -> bool:
        """Until the daemon ends the model stays once it is loaded, whatever the config says, or makes way again."""
        node = self.node
        name = node.fleet.get(name).name
        lane = node.scheduler.lanes[name]
        was_pinned, lane.pinned, node.fleet.pins[name] = lane.pinned, pinned, pinned
        if pinned is not was_pinned:
            kind, what = (Kind.PINNED, "pinned") if pinned else (Kind.UNPINNED, "not pinned any more")
            node.events.note(Severity.INFO, kind, f"{name} is {what}", model=name)
            node.look_again()  # somebody may have waited for its memory, or waits in vain now
            node.changes.notify()
        return was_pinned

    def drain(self, draining: bool) -> bool:
        """From now on nothing new is taken in, or everything again; what is here goes on either way."""
        node = self.node
        node.refuse_when_closing()
        was_draining, node.draining = node.draining, draining
        if draining is not was_draining:
            kind = Kind.DRAINING if draining else Kind.SERVING
            message = "no new request is taken in" if draining else "requests are taken in again"
            log.info(message)
            node.events.note(Severity.INFO, kind, message)
            node.health.on_change()
            node.changes.notify()
        return was_draining


def _check(request_id: str) -> None:
    """What is the choice of no other one has an empty parent: without an id it would be meant. Raises InferdError."""
    if not request_id:
        raise InferdError(Code.INVALID, "request_id is missing", field="request_id")
