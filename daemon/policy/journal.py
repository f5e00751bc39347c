"""The last decisions with what they were made from, so that anybody can ask why, and make them again."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import msgspec

from .admission import AdmitQuestion, admit
from .placing import PlaceQuestion, RouteQuestion, place, route
from .residency import EvictQuestion, evict
from .turns import (
    ClassQuestion,
    EndQuestion,
    PreemptQuestion,
    TurnQuestion,
    WaitQuestion,
    end,
    preempt,
    reclass,
    turn,
    wait,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..domain.errors import InferdError
    from ..domain.request import Job

CAPACITY = 8192  # records

Question = (
    AdmitQuestion
    | TurnQuestion
    | RouteQuestion
    | WaitQuestion
    | PreemptQuestion
    | PlaceQuestion
    | EvictQuestion
    | EndQuestion
    | ClassQuestion
)

# kind of record -> (its question, the pure rule that answered it)
RULES: dict[str, tuple[type, Callable[[Any], Any]]] = {
    "admit": (AdmitQuestion, admit),
    "queue": (WaitQuestion, wait),
    "start": (TurnQuestion, turn),
    "route": (RouteQuestion, route),
    "preempt": (PreemptQuestion, preempt),
    "place": (PlaceQuestion, place),
    "evict": (EvictQuestion, evict),
    "refuse": (EndQuestion, end),
    "priority": (ClassQuestion, reclass),
}


class Record(msgspec.Struct, frozen=True):
    """One decision. `requests`: whom it concerns; the candidates that lost are in the question."""

    at_s: float
    kind: str
    requests: tuple[str, ...]
    model: str
    question: Question
    answer: Any


class Journal:
    """A ring of records; `sink`, when given, sees each as it is made."""

    def __init__(self, sink: Callable[[Record], None] | None = None) -> None:
        self._records: deque[Record] = deque(maxlen=CAPACITY)
        self.sink = sink

    def note(self, record: Record) -> None:
        self._records.append(record)
        if self.sink is not None:
            self.sink(record)

    def note_end(self, job: Job, error: InferdError, now_s: float) -> None:
        """A request that had been taken in is sent away."""
        question = EndQuestion(job.id, error.code.value, error.message, dict(error.details))
        self.note(Record(now_s, "refuse", (job.id,), job.request.model, question, end(question)))

    def about(self, request_id: str, tenant: str | None = None) -> list[Record]:
        """Oldest first: the decisions on this request, and the turns in which it was passed over.

        `tenant`: only while the id was that of a request of this tenant, as ids are used again.
        """
        found = [record for record in self._records if request_id in record.requests or _lost(record, request_id)]
        if tenant is None:
            return found
        own, whose = [], None
        for record in found:
            if isinstance(record.question, AdmitQuestion):
                whose = record.question.tenant
            if whose == tenant:
                own.append(record)
        return own

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Any:
        return iter(self._records)


def recompute(kind: str, question: Any) -> Any:
    """The answer that the rule gives to a question as it was recorded, or as JSON made of it."""
    question_type, rule = RULES[kind]
    if not isinstance(question, question_type):
        question = msgspec.convert(question, question_type, strict=False)
    return rule(question)


def _lost(record: Record, request_id: str) -> bool:
    question = record.question
    return isinstance(question, TurnQuestion) and any(c.request_id == request_id for c in question.candidates)
