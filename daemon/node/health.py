"""Whether requests should come here, and what else an operator should look at."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ..domain.event import Kind, Severity
from ..domain.model import ModelState
from ..domain.request import Phase
from ..policy.vitals import Vitals

if TYPE_CHECKING:
    from collections.abc import Callable

    from .node import Node


class Health:
    """Shares the Node's loop; it looks, and changes nothing."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.on_change: Callable[[], None] = lambda: None  # `serving` may be another
        self.stalled: tuple[str, ...] = ()  # models before which requests stand still, for no reason
        self.lost: tuple[str, ...] = ()  # models that have no device left which could hold them
        self.config_error = ""  # why the last config that was read was not taken over
        self.needs_restart: tuple[str, ...] = ()  # settings that are others in the file
        self._vitals = Vitals()

    @property
    def serving(self) -> bool:
        """A client that balances loads would be right to come here."""
        node = self.node
        return not (node.draining or node.closing or self.stalled or self.lost)

    @property
    def progressing(self) -> bool:
        """Else the process is of no use to anybody, and had better be started again."""
        return not self.stalled

    def look(self, now_s: float) -> None:
        """Once a second."""
        served = self.serving
        stalled = tuple(self._vitals.look(self.node.scheduler.lanes.values(), now_s))
        if stalled and not self.stalled:
            message = f"requests for {', '.join(stalled)} could run, and are not started"
            self.node.events.note(Severity.ERROR, Kind.SCHEDULER_STALLED, message)
        elif self.stalled and not stalled:
            self.node.events.note(Severity.INFO, Kind.SCHEDULER_RECOVERED, "requests are started again")
        self.stalled = stalled
        self.lost = tuple(name for name, it in self.node.fleet.deployments.items() if self._is_lost(name, it.lost))
        if self.serving is not served:
            self.on_change()

    def _is_lost(self, name: str, lost: bool) -> bool:
        """It was on a device that is gone, and fits nowhere else."""
        if not lost:
            return False
        pools = self.node.ledger.pools
        places = [place for place in self.node.scheduler.lanes[name].places if place.closed_until_s != math.inf]
        return not any(
            all(pool in pools and pools[pool].usable_bytes >= n for pool, n in place.bytes_on.items())
            for place in places
        )

    def line(self) -> str:
        """In short, for `systemctl status`."""
        node = self.node
        live = [job.phase for job in node.jobs if job.live]
        n_waiting = live.count(Phase.QUEUED)
        n_ready = sum(resident.model.state is ModelState.READY for resident in node.fleet)
        told = [f"{n_ready} models loaded, {len(live) - n_waiting} requests running, {n_waiting} waiting"]
        told += ["draining"] if node.draining or node.closing else []
        told += [f"stalled: {', '.join(self.stalled)}"] if self.stalled else []
        told += ["the last config was refused"] if self.config_error else []
        return "; ".join(told)
