"""What the rules tell the Node to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .errors import InferdError
    from .request import Job


@dataclass(frozen=True, slots=True)
class Start:
    """Give the job to its model's worker."""

    job: Job


@dataclass(frozen=True, slots=True)
class Preempt:
    """Have the job make way at its next token; it is queued again with what it has so far."""

    job: Job


@dataclass(frozen=True, slots=True)
class Cancel:
    """End a job that a newer one has superseded."""

    job: Job
    error: InferdError


@dataclass(frozen=True, slots=True)
class Load:
    """Reserve, then spawn a worker for the model."""

    model: str


@dataclass(frozen=True, slots=True)
class Unload:
    """Nobody has used the model for its keep-alive."""

    model: str


@dataclass(frozen=True, slots=True)
class Evict:
    """End the model's worker, to make room; what runs in it is parked first and waits again."""

    model: str


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
