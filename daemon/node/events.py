"""The last events, for who asks later and for who watches: noted where they happen, read with a cursor."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING

from ..domain.event import Event, Kind
from .changes import Changes

if TYPE_CHECKING:
    from ..domain.event import Severity
    from ..domain.request import Job

KEPT = 4096
# What clients can make happen as often as they like: of one kind, tenant and model, one for each tick is told.
BURSTS = {
    Kind.PREEMPTED,
    Kind.RESUMED,
    Kind.REFUSED,
    Kind.CANCELLED,
    Kind.DEADLINE_MISSED,
    Kind.SLOW_CONSUMER,
    Kind.PRIORITY_CHANGED,
    Kind.PULL_FAILED,
    Kind.ALIAS,
    Kind.PINNED,
    Kind.UNPINNED,
    Kind.DRAINING,
    Kind.SERVING,
}
BACK = {Kind.UNPINNED: Kind.PINNED, Kind.SERVING: Kind.DRAINING}  # off and on are one burst: the last one is what holds
MAX_BURSTS = 64  # told apart; there may be any number of tenants

Key = tuple[Kind, str, str]  # tenant and model


@dataclass(slots=True)
class _Burst:
    """What came since one of its kind was told."""

    last: Event | None = None
    n_more: int = 0  # before the last


class Events:
    """On the event loop. Who reads too slowly misses the oldest."""

    def __init__(self, kept: int = KEPT) -> None:
        self._kept: deque[Event] = deque(maxlen=kept)
        self._sequence = time.time_ns() // 1000  # there is never more than one in a microsecond, so it grows for ever
        self._changes = Changes()
        self._bursts: dict[Key, _Burst] = {}

    def note(
        self,
        severity: Severity,
        kind: Kind,
        message: str,
        *,
        model: str = "",
        request_id: str = "",
        tenant: str = "",
        device: str = "",
    ) -> None:
        event = Event(0, time.time(), severity, kind, message, model, request_id, tenant, device)
        if kind not in BURSTS:
            return self._keep(event)
        of = BACK.get(kind, kind)
        key = (of, tenant, model)
        if key not in self._bursts and len(self._bursts) >= MAX_BURSTS:
            key = (of, "", "")
        if (burst := self._bursts.get(key)) is None:
            self._bursts[key] = _Burst()
            return self._keep(event)
        burst.n_more += burst.last is not None
        burst.last = event
        self._bursts[key] = self._bursts.pop(key)  # in the order of their last ones, as they will be told
        return None

    def about(self, job: Job, severity: Severity, kind: Kind, message: str) -> None:
        """Something happened to a request."""
        request = job.request
        self.note(severity, kind, message, model=request.model, request_id=job.id, tenant=request.tenant)

    def tick(self) -> None:
        """Once a second: the last of each burst is told, with how many came before it."""
        for key, burst in list(self._bursts.items()):
            if burst.last is None:
                del self._bursts[key]
            else:
                more = f", and {burst.n_more:,} more" if burst.n_more else ""
                self._keep(replace(burst.last, message=burst.last.message + more))
                self._bursts[key] = _Burst()

    def after(self, sequence: int) -> list[Event]:
        """Those that came later and are kept, the oldest first; all of them after a number that was never given."""
        if not self._kept:
            return []
        n_new = self._kept[-1].sequence - sequence  # nothing is left out between two sequences
        if n_new < 0:  # from another daemon, or from before the clock was set back
            return list(self._kept)
        return list(islice(self._kept, max(0, len(self._kept) - n_new), None)) if n_new else []

    async def later(self, sequence: int) -> list[Event]:
        """The same, as soon as there is one."""
        while not (found := self.after(sequence)):
            await self._changes.wait()
        return found

    def _keep(self, event: Event) -> None:
        self._sequence += 1
        self._kept.append(replace(event, sequence=self._sequence))
        self._changes.notify()
