"""A worker in virtual time: what an engine would say, and when, without computing anything.

It speaks the words of backends/messages.py, so that the replay hears what the Node hears. Nothing here knows a clock:
the owner asks `next_s`, sets its own time to that, and takes the `events`.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from ...backends.messages import Delta, Finished, FinishReason, Stopped

if TYPE_CHECKING:
    from ...backends.messages import Event

CHUNK_TOKENS = 512  # prompt tokens of one step
ROUNDING = 1e-9  # of a token: a moment that is a whole number of intervals counts as one
_IDS = [0] * 4096


@dataclass(frozen=True, slots=True)
class Costs:
    """What computing takes. Rates of 0 are no time at all.

    Without `step_s` and `row_s` every stream flows at `decode_tokens_per_s` whatever runs beside it, as in the fake
    engine. With them a step gives one token to each of n streams and takes `step_s` + n x `row_s`, and prompts are
    computed in chunks inside the steps.
    """

    prefill_tokens_per_s: float = 0.0  # one prompt after another
    decode_tokens_per_s: float = 0.0  # of one stream
    step_s: float = 0.0
    row_s: float = 0.0

    @property
    def prompt_token_s(self) -> float:
        return 1 / self.prefill_tokens_per_s if self.prefill_tokens_per_s else 0.0

    @property
    def interval_s(self) -> float:
        return 1 / self.decode_tokens_per_s if self.decode_tokens_per_s else 0.0


class Worker(Protocol):
    """An engine as its owner sees it."""

    def submit(self, work: Work) -> None:
        """Compute this from now on; a slot is free for it."""

    def cancel(self, job: str, attempt: int, now_s: float) -> None:
        """Answered by a Stopped."""

    def next_s(self) -> float:
        """When something ends that must not be missed: a prompt, an answer; infinite when idle."""

    def events(self, now_s: float) -> list[Event]:
        """All that has come since the last call; `now_s` is never later than `next_s`."""


@dataclass(slots=True, eq=False)
class Work:
    """One attempt of one job."""

    job: str
    attempt: int
    joined_s: float
    prompt_tokens: int  # to compute: the prompt, and what earlier attempts have generated
    output_tokens: int  # to generate in this attempt, at least one
    n_before: int = 0  # generated in earlier attempts
    n_done: int = 0  # generated in this one and told
    n_computed: int = 0  # of the prompt
    started_s: float = math.inf  # the first prompt token
    first_s: float = math.inf  # the end of the prompt
    beat_s: float = math.inf

    @property
    def name(self) -> tuple[str, int]:
        return self.job, self.attempt

    def told(self, n: int) -> Delta:
        """The next `n` tokens."""
        index = self.n_before + self.n_done
        self.n_done += n
        ids = _IDS[:n] if n <= len(_IDS) else [0] * n
        return Delta(self.job, self.attempt, index, ids, "")

    def finished(self, now_s: float) -> Finished:
        n_tokens = self.n_before + self.n_done
        prefill_ms, decode_ms = (self.first_s - self.started_s) * 1e3, (now_s - self.first_s) * 1e3
        return Finished(self.job, self.attempt, FinishReason.LENGTH, "", n_tokens, prefill_ms, decode_ms)

    def stopped(self) -> Stopped:
        return Stopped(self.job, self.attempt, self.n_before + self.n_done)


def worker(costs: Costs) -> Worker:
    """The kind of worker that the costs describe."""
    return StepWorker(costs) if costs.step_s or costs.row_s else StreamWorker(costs)


class StreamWorker:
    """Prompts one after another, beside streams that keep their rate: the fake engine's twin."""

    def __init__(self, costs: Costs) -> None:
        self._token_s = costs.prompt_token_s
        self._interval_s = costs.interval_s
        self._prompts: deque[Work] = deque()  # the first one is being computed
        self._streams: list[Work] = []
        self._stopped: list[Event] = []
        self._stopped_s = math.inf

    def submit(self, work: Work) -> None:
        self._prompts.append(work)
        if len(self._prompts) == 1:
            self._start(work.joined_s)

    def cancel(self, job: str, attempt: int, now_s: float) -> None:
        for work in (*self._streams, *self._prompts):
            if work.name == (job, attempt):
                self._stopped += [*self._grown(work, now_s), work.stopped()]
                self._stopped_s = now_s
                self._forget(work, now_s)

    def next_s(self) -> float:
        prompt_s = self._prompts[0].first_s if self._prompts else math.inf
        return min(self._stopped_s, prompt_s, min((self._end_s(work) for work in self._streams), default=math.inf))

    def events(self, now_s: float) -> list[Event]:
        events, self._stopped, self._stopped_s = self._stopped, [], math.inf
        while self._prompts and self._prompts[0].first_s <= now_s:
            work = self._prompts[0]
            # All streams keep one beat, as in an engine that computes them in one step.
            work.beat_s = work.first_s - (work.first_s % self._interval_s if self._interval_s else 0.0)
            self._streams.append(work)
            self._forget(work, work.first_s)
        for work in list(self._streams):
            events += self._grown(work, now_s)
            if now_s >= self._end_s(work):
                events.append(work.finished(now_s))
                self._streams.remove(work)
        return events

    def _start(self, now_s: float) -> None:
        work = self._prompts[0]
        work.started_s = max(now_s, work.joined_s)
        work.first_s = work.started_s + work.prompt_tokens * self._token_s

    def _forget(self, work: Work, now_s: float) -> None:
        """It is no prompt any more, or not wanted any more."""
        if work not in self._prompts:
            return self._streams.remove(work)
        was_first = self._prompts[0] is work
        self._prompts.remove(work)
        if was_first and self._prompts:
            self._start(now_s)
        return None

    def _end_s(self, work: Work) -> float:
        return max(work.first_s, work.beat_s + (work.output_tokens - 1) * self._interval_s)

    def _grown(self, work: Work, now_s: float) -> list[Event]:
        """Its tokens since the last look."""
        if now_s >= self._end_s(work):
            n_tokens = work.output_tokens
        elif now_s < work.first_s:
            n_tokens = 0
        else:  # the last token is left to the end
            n_flown = int((now_s - work.beat_s) / self._interval_s + ROUNDING)
            n_tokens = min(1 + n_flown, work.output_tokens - 1)
        return [work.told(n_tokens - work.n_done)] if n_tokens > work.n_done else []


class StepWorker:
    """One step after another, each with a token of every stream and a chunk of the prompts: the llama engine's twin."""

    def __init__(self, costs: Costs) -> None:
        self._costs = costs
        self._running: list[Work] = []
        self._cancelled: set[tuple[str, int]] = set()
        self._chunks: dict[tuple[str, int], int] = {}  # prompt tokens of the present step, by name
        self._end_s = math.inf  # of the present step

    def submit(self, work: Work) -> None:
        self._running.append(work)
        if self._end_s == math.inf:
            self._step(work.joined_s)

    def cancel(self, job: str, attempt: int, now_s: float) -> None:
        """Heard when the present step ends."""
        if any(work.name == (job, attempt) for work in self._running):
            self._cancelled.add((job, attempt))

    def next_s(self) -> float:
        return self._end_s

    def events(self, now_s: float) -> list[Event]:
        events: list[Event] = []
        if now_s >= self._end_s:
            for work in list(self._running):
                events += self._stepped(work, now_s)
            self._step(now_s)
        return events

    def _step(self, now_s: float) -> None:
        """The next step begins; it has those who are here now."""
        self._chunks, n_left, n_streams = {}, CHUNK_TOKENS, 0
        for work in self._running:
            if work.first_s < math.inf:
                self._chunks[work.name] = 0
                n_streams += 1
            elif n_left:
                work.started_s = min(work.started_s, now_s)
                self._chunks[work.name] = n = min(n_left, work.prompt_tokens - work.n_computed)
                n_left -= n
        n_rows = CHUNK_TOKENS - n_left
        took_s = self._costs.step_s + n_streams * self._costs.row_s + n_rows * self._costs.prompt_token_s
        self._end_s = now_s + took_s if self._running else math.inf

    def _stepped(self, work: Work, now_s: float) -> list[Event]:
        """What the step that ends now has brought to one of them."""
        events: list[Event] = []
        if work.name in self._chunks:
            work.n_computed += self._chunks[work.name]
            if work.n_computed >= work.prompt_tokens:
                work.first_s = min(work.first_s, now_s)
                events.append(work.told(1))
        if work.n_done >= work.output_tokens:
            events.append(work.finished(now_s))
        elif work.name in self._cancelled:
            events.append(work.stopped())
        else:
            return events
        self._cancelled.discard(work.name)
        self._running.remove(work)
        return events
