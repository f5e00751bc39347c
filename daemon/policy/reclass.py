"""A request goes over to another class while it waits or runs: which books that changes, and which it leaves alone.

One that waits leaves the line and enters it again, with its ticket: its arrival, its deadline and whom it supersedes
stay as they were, and so do the books of the desk, which knows no classes. One that runs keeps its slot. What it was
charged stays on the account of its old class, so a later refund goes there, too.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from .journal import Record
from .line import RANK
from .turns import ClassQuestion, reclass

if TYPE_CHECKING:
    from ..domain.request import Job, Priority
    from .desk import Desk
    from .lane import Lane
    from .slots import Slots


def move(job: Job, priority: Priority, lane: Lane, desk: Desk, slots: Slots, now_s: float) -> None:
    """Nothing is decided here: who is next now, or makes way, is asked again afterwards."""
    waits = job in lane.line
    question = ClassQuestion(job.id, RANK[job.request.priority], RANK[priority], runs=not waits)
    slots.journal.note(Record(now_s, "priority", (job.id,), lane.name, question, reclass(question)))
    slots.charge(lane)  # what it has got so far its old class has had
    ticket = lane.line.remove(job) if waits else lane.running[job]
    # The only thing of a job that is written by a rule: every book asks for its class here.
    job.request = replace(job.request, priority=priority)
    ticket.moved_s, ticket.forecast_ms, ticket.forecast_end_ms = now_s, None, None
    ticket.owed = False  # it was a share of the class that it has left
    if waits:
        desk.forecast(lane, job, ticket, now_s)
        lane.line.add(job, ticket)
        lane.note_work(priority, ticket, now_s)
