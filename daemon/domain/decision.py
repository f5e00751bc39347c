"""What the rules tell the Node to do. A place is where one worker of a model is, or may be."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .errors import InferdError
    from .request import Job


@dataclass(frozen=True, slots=True)
class Start:
    """Give the job to the worker in this place."""

    job: Job
    place: str


@dataclass(frozen=True, slots=True)
class Preempt:
    """Have the job make way at its next token; it is queued again with what it has so far."""

    job: Job
    asker: str = field(default="", compare=False)  # the request that it makes way for


@dataclass(frozen=True, slots=True)
class Cancel:
    """End a job that a newer one has superseded."""

    job: Job
    error: InferdError


@dataclass(frozen=True, slots=True)
class Load:
    """Reserve, then spawn a worker of its model in this place."""

    place: str


@dataclass(frozen=True, slots=True)
class Unload:
    """Nobody has used the worker in this place for its model's keep-alive."""

    place: str


@dataclass(frozen=True, slots=True)
class Evict:
    """End the worker in this place, to make room; what runs in it is parked first and waits again."""

    place: str
    model: str = field(default="", compare=False)  # that is to have the room


@dataclass(frozen=True, slots=True)
class Refuse:
    """The model cannot be loaded; whoever waits for it without a request is told so."""

    model: str
    error: InferdError


@dataclass(frozen=True, slots=True)
class Reject:
    """Tell the client no; the job was taken out of the queue."""

    job: Job
    error: InferdError


Decision = Start | Preempt | Cancel | Load | Unload | Evict | Refuse | Reject
