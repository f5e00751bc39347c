"""Text from a graph with a past: prompts one after another in pieces, answers together, a token of each in a call."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Protocol

from ..messages import FinishReason, Ready, WorkerStats
from ..sampling import Sampler
from .footprint import CHUNK
from .refusal import InputRefused
from .reply import Reply

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import numpy as np
    import numpy.typing as npt

    from ..facts import LoadPlan
    from ..messages import Event, Submit
    from .past import Past


class Writes(Protocol):
    """Computes the next tokens of texts: those of `past`, a row for each; with `alone` there is only one."""

    alone: bool
    n_vocab: int

    def begin(self) -> Any: ...

    def piece(self, past: Any, tokens: Sequence[int], usual: int) -> Sequence[int]:
        """So many of these fit the next call, of a single row."""

    def compute(self, past: Any, tokens: Sequence[Sequence[int]]) -> npt.NDArray[np.float32]:
        """Logits after the last token of each row. Raises InputRefused."""


class CausalEngine:
    """One graph, one thread; keeps the promise of `Engine` in ../engine.py.

    `pieces` makes what turns one answer's tokens into bytes, `name_of` does it for any token by itself; `eog`: tokens
    that end an answer.
    """

    wake_fd = -1

    def __init__(
        self,
        plan: LoadPlan,
        decoder: Writes,
        eog: Iterable[int],
        pieces: Callable[[], Callable[[int], bytes]],
        name_of: Callable[[int], bytes],
        device: str,
        load_ms: float,
    ) -> None:
        self._plan, self._decoder, self._pieces, self._name_of = plan, decoder, pieces, name_of
        self._eog = frozenset(eog)
        self._waiting: list[Submit] = []
        self._reading: list[Reply] = []  # their prompts are not computed yet; the first one's is
        self._writing: list[list[Reply]] = []  # those of one list are rows of one past
        self._pasts: list[Past] = []
        self._events: list[Event] = []
        self._n_prompt = self._n_decoded = self._steps = 0
        self._step_ms = 0.0
        self.ready = Ready(plan.n_ctx, plan.n_slots, plan.kv_cells, decoder.n_vocab, device, load_ms, {})

    # the promise

    def submit(self, submit: Submit) -> None:
        self._waiting.append(submit)
        self._admit()

    def cancel(self, job: str, attempt: int) -> None:
        for submit in self._waiting:
            if (submit.job, submit.attempt) == (job, attempt):
                self._waiting.remove(submit)
                return self._reply(submit).stop(self._events)
        for reply in self._replies():
            if reply.name == (job, attempt):
                self._remove(reply)
                return reply.stop(self._events)
        return None

    def use_threads(self, n_threads: int) -> None:
        """A session keeps the threads that it was made with."""

    def step(self, listen: Callable[[], bool] | None = None) -> list[Event]:
        start_s = time.perf_counter()
        self._admit()
        if self._reading or self._writing:
            self._make_room()
            for group, past in list(zip(self._writing, self._pasts, strict=True)):
                self._write(group, past)
            if self._reading:
                self._read(self._reading[0])
            self._steps += 1
            self._step_ms = (time.perf_counter() - start_s) * 1e3
        events, self._events = self._events, []
        return events

    def busy(self) -> bool:
        return bool(self._waiting or self._reading or self._writing or self._events)

    def stats(self) -> WorkerStats:
        n_cells = sum(reply.n_computed for reply in self._replies())
        counts = (len(self._replies()), len(self._waiting), n_cells, self._n_prompt, self._n_decoded, self._steps)
        return WorkerStats(*counts, step_ms=self._step_ms, rss_bytes=0)  # the worker loop knows that one

    def close(self) -> None:
        self._pasts.clear()

    # who is where

    def _replies(self) -> list[Reply]:
        return [*self._reading, *(reply for group in self._writing for reply in group)]

    def _admit(self) -> None:
        while self._waiting and len(self._replies()) < self._plan.n_slots:
            reply = self._reply(self._waiting.pop(0))
            if (end := reply.over(self._plan.n_ctx)) is not None:  # of a replay that was all but over
                reply.finish(*end, self._events)
            else:
                self._reading.append(reply)

    def _reply(self, submit: Submit) -> Reply:
        sampler = Sampler(submit.params, self._eog, (), self._decoder.n_vocab)
        return Reply(submit, sampler, self._pieces(), self._name_of)

    def _remove(self, reply: Reply) -> None:
        if reply in self._reading:
            self._reading.remove(reply)
            return
        for group, past in list(zip(self._writing, self._pasts, strict=True)):
            if reply in group:
                self._keep(group, past, [other for other in group if other is not reply])

    def _keep(self, group: list[Reply], past: Past, left: list[Reply]) -> None:
        """Only these of a group go on."""
        if not left:
            i = self._writing.index(group)
            del self._writing[i], self._pasts[i]
        elif len(left) < len(group):
            past.keep([group.index(reply) for reply in left])
            group[:] = left

    def _make_room(self) -> None:
        """Where cells are short the lowest rank waits again, of equals the youngest; one always has enough."""
        replies = sorted(self._replies(), key=lambda reply: -reply.submit.rank)
        while len(replies) > 1 and sum(len(reply.tokens) + 1 for reply in replies) > self._plan.kv_cells:
            reply = replies.pop()
            self._remove(reply)
            reply.stop(self._events, parked=True)

    # one call

    def _read(self, reply: Reply) -> None:
        """One more piece of a prompt; after the last one it joins those who write."""
        reply.start(self._events)
        past = reply.past = reply.past or self._decoder.begin()
        piece = self._decoder.piece(past, reply.left, CHUNK)
        try:
            logits = self._decoder.compute(past, [piece])
        except InputRefused as error:
            return self._fail([reply], str(error))
        reply.n_computed += len(piece)
        self._n_prompt += len(piece)
        if reply.n_computed < len(reply.tokens):
            return None
        self._reading.remove(reply)
        if (end := reply.draw(logits[0], self._eog, self._plan.n_ctx, self._events)) is not None:
            return reply.finish(*end, self._events)
        return self._join(reply, past)

    def _join(self, reply: Reply, past: Past) -> None:
        reply.past = None
        for group, theirs in zip(self._writing, self._pasts, strict=True):
            if not self._decoder.alone and theirs.suits(past):
                theirs.join(past)
                group.append(reply)
                return
        self._writing.append([reply])
        self._pasts.append(past)

    def _write(self, group: list[Reply], past: Past) -> None:
        """The token that is due to each."""
        past.trim()
        try:
            logits = self._decoder.compute(past, [reply.tokens[-1:] for reply in group])
        except InputRefused as error:
            return self._fail(list(group), str(error))
        self._n_decoded += len(group)
        left = []
        for reply, row in zip(group, logits, strict=True):
            reply.n_computed += 1
            end = reply.draw(row, self._eog, self._plan.n_ctx, self._events)
            if end is None:
                left.append(reply)
            else:
                reply.finish(*end, self._events)
        return self._keep(group, past, left)

    def _fail(self, replies: list[Reply], error: str) -> None:
        for reply in replies:
            self._remove(reply)
            reply.finish(FinishReason.ERROR, error, self._events)
