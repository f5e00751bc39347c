"""What one client will read: events go in without waiting, and come out merged if the reader is slow.

Pushing is plain and never blocks the engine. The reader takes everything that is there at once, so a stream that falls
behind costs fewer, larger messages. Memory is bounded by the answer; a reader that stands still is cut by the Node.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..domain.tensors import Outputs
from ..domain.tools import join

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...backends.messages import FinishReason, TokenLogprob
    from ..domain.errors import InferdError
    from ..domain.request import Job
    from ..domain.tools import CallPiece


# Each stream has a timer of its own: one for all was tried, and 32 writes in a burst came later (p50 7.2 ms, not 5.3).
GAP_S = 0.005  # least time between two messages of tokens: a stream above 200 tokens/s gets several in each
BEAT_S = 0.001  # gaps end on a beat: some streams wake the loop together (9 % less work a token than 4 ms without one)
MAX_MERGED_TOKENS = 512  # of one message: with 20 alternatives each it stays well below a client's 4 MiB


@dataclass(frozen=True, slots=True)
class Queued:
    request_id: str
    position: int
    why: str
    eta_ms: tuple[float, float] | None = None  # from now to the first token: between these in 80 of 100 cases


@dataclass(frozen=True, slots=True)
class Started:
    request_id: str
    model: str
    prompt_tokens: int
    cached_tokens: int
    device: str
    seed: int


@dataclass(slots=True)
class Text:
    """New tokens; `index` is the position of the first in the completion. Grows until it is taken."""

    index: int
    text: str
    tokens: list[int]
    logprobs: list[TokenLogprob] | None
    calls: list[CallPiece] | None = None


@dataclass(frozen=True, slots=True)
class Vectors:
    """All that inputs have become: `n` vectors of 32-bit floats, one after the other."""

    n: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Resumed:
    why: str


@dataclass(frozen=True, slots=True)
class Finished:
    reason: FinishReason
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    queue_ms: float
    ttft_ms: float
    tpot_ms: float
    itl_max_ms: float
    e2e_ms: float
    prefill_ms: float
    decode_ms: float
    draft_n: int = 0
    draft_n_accepted: int = 0


StreamEvent = Queued | Started | Text | Vectors | Outputs | Resumed | Finished


class Stream:
    """One job's way to its reader. A single reader; the Node is the single writer."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self._events: list[StreamEvent] = []
        self.error: InferdError | None = None  # what ended it
        self._closed = False
        self._waiter: asyncio.Future[None] | None = None
        self._reader: asyncio.Task[Any] | None = None
        self._gap: asyncio.TimerHandle | None = None  # runs while tokens are held for the next message
        self._sent_s = 0.0  # when tokens were taken last
        self._busy_since_s: float | None = None  # when the reader took what it has not finished with

    def push(self, event: StreamEvent) -> None:
        """Hand over one event; ignored after the end."""
        if self._closed:
            return
        if isinstance(event, Queued) and self._events and isinstance(self._events[-1], Queued):
            self._events[-1] = event  # only the newest position is of interest
        else:
            self._events.append(event)
        self._end_gap()

    def push_text(
        self,
        index: int,
        text: str,
        tokens: Sequence[int],
        logprobs: list[TokenLogprob] | None,
        calls: list[CallPiece] | None = None,
    ) -> None:
        """Hand over tokens; they join those that still wait."""
        if self._closed:
            return
        last = self._events[-1] if self._events else None
        if isinstance(last, Text) and len(last.tokens) < MAX_MERGED_TOKENS:
            last.text += text
            last.tokens.extend(tokens)
            if logprobs is not None:
                last.logprobs = last.logprobs or []
                last.logprobs.extend(logprobs)
            if calls:
                last.calls = join(last.calls or [], calls)
        else:
            self._events.append(
                Text(index, text, list(tokens), None if logprobs is None else list(logprobs), calls or None)
            )
        if self._gap is None:
            self._wake_or_wait()

    def close(self, error: InferdError | None = None) -> None:
        """No event follows; the reader gets what waits, then the error if there is one."""
        if not self._closed:
            self._closed, self.error = True, error
            self._end_gap()

    def discard(self) -> None:
        """Nobody will take what waits."""
        for event in self._events:
            if isinstance(event, Outputs):
                event.blob.close()
        self._events.clear()

    def stalled_s(self, now_s: float) -> float:
        """How long the reader has been busy with what it took last: its client takes nothing."""
        return 0.0 if self._busy_since_s is None else now_s - self._busy_since_s

    def read_by(self, task: asyncio.Task[Any] | None) -> None:
        """Who writes to the client what `take` returns."""
        self._reader = task

    def cut(self, error: InferdError) -> None:
        """End the stream although its reader stands still in a write; that write would never end."""
        self.close(error)
        self._busy_since_s = None
        if self._reader is not None:
            self._reader.cancel()
            self._reader = None

    async def take(self) -> list[StreamEvent]:
        """Everything that waits, at least one event; [] at the end. Raises the InferdError that ended it."""
        self._busy_since_s = None
        while not self._events or self._gap is not None:
            if self._closed:
                if self.error is not None:
                    raise self.error
                return []
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        events, self._events = self._events, []
        self._busy_since_s = time.monotonic()
        if isinstance(events[-1], Text):
            self._sent_s = self._busy_since_s
        return events

    def _wake_or_wait(self) -> None:
        """Tokens came: they go at once, unless others have just gone."""
        end_s = self._sent_s + GAP_S
        if end_s <= time.monotonic():
            self._wake()
        else:  # the loop's clock is the monotonic one
            self._gap = asyncio.get_running_loop().call_at(-(-end_s // BEAT_S) * BEAT_S, self._end_gap)

    def _end_gap(self) -> None:
        """Time is up, or something came that does not wait."""
        if self._gap is not None:
            self._gap.cancel()
            self._gap = None
        if self._events or self._closed:
            self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
