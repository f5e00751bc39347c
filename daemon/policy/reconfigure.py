"""Another config for a scheduler that is at work: what waits and runs stays, and goes on by the new figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..domain.request import Priority

if TYPE_CHECKING:
    from ..domain.config import Config
    from .scheduler import Scheduler


def reconfigure(scheduler: Scheduler, config: Config) -> None:
    """All but `policy`, by which every line has been ordered."""
    options = config.scheduler
    classes = {priority: getattr(options, priority.value) for priority in Priority}
    max_parks = options.max_parks if options.preempt and not scheduler.fifo else 0
    desk, slots, rooms = scheduler.desk, scheduler.slots, scheduler.rooms
    desk.limits, desk.classes, desk.max_parks = config.queue, classes, max_parks
    desk.tenants = config.tenants
    slots.classes, slots.max_parks = classes, max_parks
    rooms.take_options(options)
    scheduler.pressure.thresholds = config.memory.pressure
