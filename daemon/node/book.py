"""A job that has not ended: as it is on the disk, and what is to be written of it next."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import msgspec

from ..domain.durable import CANCELLING, Progress, State
from ..domain.errors import Code, InferdError
from .changes import Changes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..domain.durable import DurableJob, Piece
    from ..domain.request import Priority, Request
    from .tape import Tape

Group = tuple[str, str, "Priority"]  # model, tenant and class: who takes whose turn


@dataclass(slots=True, eq=False)
class Book:
    row: DurableJob
    tape: Tape | None = None  # while the Node has it
    pending: list[Piece] = field(default_factory=list)
    end: dict[str, Any] | None = None  # the fields that it ends with
    has_prompt: bool = False  # on the disk
    prompt: Sequence[int] | None = None  # what is to be there, also when the Node has it no more
    priority: Priority | None = None  # likewise
    goes_on: bool = False  # with tokens from an earlier daemon, and that is not written yet
    written_s: float = 0.0
    changes: Changes = field(default_factory=Changes)

    @property
    def group(self) -> Group:
        return self.row.model, self.row.tenant, self.row.priority

    @property
    def waits(self) -> bool:
        """It has not ended, and the Node does not have it, or has sent it away."""
        return self.end is None and (self.tape is None or self.tape.over)

    def step(self) -> Progress | None:
        """All that is to be written now; None: nothing."""
        row, job = self.row, None if self.tape is None else self.tape.job
        if self.tape is not None and not self.tape.over:  # later it may be moved here
            self.priority = self.tape.job.request.priority
        if job is not None:
            self.prompt = job.prompt
        prompt = None if self.has_prompt or self.prompt is None else list(self.prompt)
        priority = self.priority or row.priority
        if not (self.pending or self.end) and prompt is None and priority is row.priority:
            return None
        new = msgspec.structs.replace(
            row,
            priority=priority,
            n_tokens=row.n_tokens + sum(len(piece.tokens) for piece in self.pending),
            resumed=row.resumed + self.goes_on,
            **(self.end or {}),
        )
        return Progress(new, row.n_tokens, tuple(self.pending), prompt)

    def written(self, step: Progress, now_s: float) -> None:
        """It is on the disk."""
        self.row, self.written_s, self.goes_on = step.job, now_s, False
        del self.pending[: len(step.pieces)]
        self.has_prompt |= step.prompt is not None
        if self.has_prompt:
            self.prompt = None
        self.changes.notify()

    def fail(self, error: InferdError, unix_s: float) -> None:
        """It ends with this, unless it has ended already."""
        if self.end is None:
            self.end = failed(error, unix_s)


def failed(error: InferdError, unix_s: float) -> dict[str, Any]:
    state = State.CANCELLED if error.code in CANCELLING else State.FAILED
    return {"state": state, "ended_s": unix_s, "code": error.code.value, "error": error.message}


def outcome(tape: Tape, unix_s: float) -> dict[str, Any]:
    """The fields that a job ends with whose stay in the Node was its last."""
    if tape.error is not None:
        return failed(tape.error, unix_s)
    finished = tape.finished
    assert finished is not None, "it ended well, and nobody said how"
    return {
        "state": State.DONE,
        "ended_s": unix_s,
        "finish_reason": finished.reason,
        "prompt_tokens": finished.prompt_tokens,
        "cached_tokens": finished.cached_tokens,
        "completion_tokens": finished.completion_tokens,
    }


def as_of_now(request: Request, row: DurableJob, prompt: list[int] | None, priority: Priority | None = None) -> Request:
    """With the time that is left of it, in the class that it was moved to, if it was; a prompt that was read is not
    rendered again. Raises InferdError.
    """
    if priority not in (None, request.priority):
        request = replace(request, priority=priority)
    if row.deadline_s is not None:
        left_ms = int((row.deadline_s - time.time()) * 1e3)
        if left_ms <= 0:
            raise late()
        request = replace(request, deadline_ms=left_ms)
    return request if prompt is None else replace(request, tokens=prompt, messages=None, prompt=None)


def late() -> InferdError:
    return InferdError(Code.DEADLINE, "its deadline passed while it waited", field="deadline_ms")
