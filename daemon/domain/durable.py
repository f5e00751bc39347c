"""Jobs that outlive their client and the daemon, in the words of what is kept of them."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

import msgspec

from ...backends.messages import FinishReason, TokenLogprob
from .errors import Code, InferdError
from .request import Priority
from .tools import CallPiece

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_KEY_BYTES = 128
MAX_LISTED, LISTED = 1000, 100  # jobs in one answer: the most, and unless said otherwise


class State(Enum):
    QUEUED = "queued"  # on the disk this also stands for one that runs: it waits when the daemon starts again
    RUNNING = "running"
    DONE = "done"
    CANCELLED = "cancelled"
    FAILED = "failed"


ENDED = {State.DONE, State.CANCELLED, State.FAILED}
CANCELLING = {Code.CANCELLED, Code.SUPERSEDED}  # somebody did not want it any more; every other error is a failure


class DurableJob(msgspec.Struct, frozen=True, kw_only=True):
    """One job as the disk has it; times are seconds since 1970."""

    id: str
    tenant: str
    model: str
    priority: Priority
    created_s: float
    digest: bytes = b""  # of the request as the client sent it
    key: str = ""  # idempotency: one job of a tenant has it
    deadline_s: float | None = None
    state: State = State.QUEUED
    n_tokens: int = 0  # of its answer
    resumed: int = 0
    ended_s: float | None = None
    finish_reason: FinishReason | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    code: str = ""
    error: str = ""

    @property
    def over(self) -> bool:
        return self.state in ENDED


class Piece(msgspec.Struct, frozen=True):
    """Some of an answer; `index` is the position of its first token.

    `lengths`: the characters of `text` that each token brought. What `text` has beyond them came with the end.
    """

    index: int
    tokens: list[int]
    lengths: list[int]
    text: str
    calls: list[tuple[int, CallPiece]] = []  # each with the place of its token in this piece
    logprobs: list[TokenLogprob] | None = None

    @property
    def end(self) -> int:
        """Tokens of the answer up to here."""
        return self.index + len(self.tokens)

    def since(self, offset: int) -> Piece | None:
        """What of it a reader lacks that has so many tokens of the answer; None: nothing."""
        n = offset - self.index
        if n <= 0:
            return self
        text = self.text[sum(self.lengths[:n]) :]
        calls = [(at - n, call) for at, call in self.calls if at >= n]
        if n > len(self.tokens) or not (self.tokens[n:] or text or calls):
            return None
        logprobs = None if self.logprobs is None else self.logprobs[n:]
        return Piece(offset, self.tokens[n:], self.lengths[n:], text, calls, logprobs)


class Entry(msgspec.Struct, frozen=True):
    """A job that is to be taken in, with its request as bytes."""

    job: DurableJob
    request: bytes


class Progress(msgspec.Struct, frozen=True):
    """How a job is from now on, when it had `at` tokens; its prompt's tokens once they are known."""

    job: DurableJob
    at: int
    pieces: tuple[Piece, ...] = ()
    prompt: list[int] | None = None


class Kept(msgspec.Struct, frozen=True):
    """What is on the disk of an answer, and where it therefore goes on."""

    tokens: list[int] = []
    n_chars: int = 0  # of its text
    call_chars: dict[int, int] = {}  # of the arguments of each call that was told of, by its index


class Loaded(msgspec.Struct, frozen=True):
    """All that is needed to go on with a job. `damaged`: it is not what was written."""

    job_id: str
    request: bytes
    prompt: list[int] | None = None
    kept: Kept = Kept()
    damaged: bool = False


def kept_of(pieces: Iterable[Piece]) -> Kept:
    tokens: list[int] = []
    call_chars: dict[int, int] = {}
    n_chars = 0
    for piece in pieces:
        tokens += piece.tokens
        n_chars += len(piece.text)
        for _, call in piece.calls:
            call_chars[call.index] = call_chars.get(call.index, 0) + len(call.arguments)
    return Kept(tokens, n_chars, call_chars)


def check_key(key: str) -> str:
    """Raises INVALID."""
    if len(key.encode()) > MAX_KEY_BYTES or not key.isprintable():
        message = f"idempotency_key must have at most {MAX_KEY_BYTES} printable bytes"
        raise InferdError(Code.INVALID, message, field="idempotency_key", highest=MAX_KEY_BYTES)
    return key


def check_listed(state: str, limit: int | None) -> tuple[State | None, int]:
    """What of a list is wanted. Raises INVALID."""
    if state and state not in {it.value for it in State}:
        names = ", ".join(it.value for it in State)
        raise InferdError(Code.INVALID, f"state must be one of {names}, not {state[:32]!r}", field="state")
    if limit is not None and not 1 <= limit <= MAX_LISTED:
        message = f"limit must be in [1, {MAX_LISTED}], not {limit}"
        raise InferdError(Code.INVALID, message, field="limit", lowest=1, highest=MAX_LISTED)
    return State(state) if state else None, LISTED if limit is None else limit
