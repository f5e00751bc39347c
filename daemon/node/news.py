"""What those who wait are told: their place, why they wait, and until when."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..domain.request import Job
    from ..policy.scheduler import Scheduler
    from .jobs import Jobs

TOLD_EACH_TICK = 32  # of a line: so many at its head hear at every tick, the next ones at every second, and so on


class News:
    def __init__(self, scheduler: Scheduler, jobs: Jobs) -> None:
        self.scheduler = scheduler
        self.jobs = jobs
        self._n_ticks = 0

    def tell(self, job: Job, now_s: float, position: int | None = None) -> None:
        """Without a position it is the last of its class."""
        job.why = self.scheduler.why(job, now_s)
        if position is None:
            position = self.scheduler.lanes[job.request.model].line.n_before(job)
        self.jobs.tell_queued(job, position, self.scheduler.eta_ms(job, now_s))

    def tick(self, now_s: float) -> None:
        """Once a second. News of a long line is work: who stands far behind hears less often."""
        self._n_ticks += 1
        for lane in self.scheduler.lanes.values():
            for position, job in enumerate(lane.waiting):
                if (self._n_ticks + job.arrival) % (1 + position // TOLD_EACH_TICK) == 0:
                    self.tell(job, now_s, position)
