"""The fake engine's other half: vectors without weights, for models with a pooling.

A vector depends on its tokens alone. With `fake_prefill_tokens_per_s` inputs cost time; they are computed one after
another, one of each request in turn. An input that says `fake:crash` ends the process in a request's first attempt.
"""

from __future__ import annotations

import os
import random
import struct
import time
import zlib
from typing import TYPE_CHECKING

from .messages import Embedded, Finished, FinishReason, Ready, Started, Stopped, WorkerStats

if TYPE_CHECKING:
    from collections.abc import Callable

    from .facts import LoadPlan
    from .messages import Embed, Event, Submit

N_VALUES = 64  # of a vector, where the order does not say
NAP_S = 0.002  # longest sleep in a step, so that a cancel is heard soon


def vector(tokens: list[int], n_values: int, *, normalize: bool) -> list[float]:
    """Like tokens, like values; every one of them between -1 and 1."""
    draw = random.Random(zlib.crc32(struct.pack(f"<{len(tokens)}I", *tokens)))
    values = [draw.uniform(-1.0, 1.0) for _ in range(n_values)]
    length = sum(value * value for value in values) ** 0.5 if normalize else 1.0
    return [value / length for value in values]


class _Run:
    """One order while it is computed."""

    def __init__(self, order: Embed) -> None:
        self.order = order
        self.n_told = 0
        self.started_s: float | None = None

    @property
    def n_computed(self) -> int:
        return sum(map(len, self.order.inputs[: self.n_told]))


class FakeEmbedder:
    """Keeps the promise of `Embedder` in engine.py at the plan's rate; 0 is as fast as it can."""

    wake_fd = -1

    def __init__(self, plan: LoadPlan, n_vocab: int) -> None:
        self.plan = plan
        self.token_s = 1 / plan.fake_prefill_tokens_per_s if plan.fake_prefill_tokens_per_s else 0.0
        self.running: list[_Run] = []  # whose turn it is comes first
        self.events: list[Event] = []
        self.due_s: float | None = None  # the end of the input that is computed
        self.prefill_tokens = self.steps = 0
        device = f"fake on {', '.join(plan.devices)}" if plan.devices else "fake"
        self.ready = Ready(plan.n_ctx, plan.n_slots, plan.kv_cells, n_vocab, device, 0.0, {})

    def submit(self, submit: Submit) -> None:
        raise AssertionError("a model with a pooling generates no text")

    def embed(self, order: Embed) -> None:
        run = _Run(order)
        if order.inputs:
            self.running.append(run)
        else:
            self._finish(run)

    def cancel(self, job: str, attempt: int) -> None:
        for run in self.running:
            if (run.order.job, run.order.attempt) == (job, attempt):
                self.running.remove(run)
                self.due_s = None
                self.events.append(Stopped(job, attempt, 0, n_computed=run.n_computed))
                return

    def use_threads(self, n_threads: int) -> None:
        """It computes nothing."""

    def step(self, listen: Callable[[], bool] | None = None) -> list[Event]:
        if self.running:
            self._advance(time.monotonic())
        events, self.events = self.events, []
        return events

    def busy(self) -> bool:
        return bool(self.running or self.events)

    def stats(self) -> WorkerStats:
        return WorkerStats(len(self.running), 0, 0, self.prefill_tokens, 0, self.steps, step_ms=0.0, rss_bytes=0)

    def close(self) -> None:
        self.running.clear()

    def _advance(self, now_s: float) -> None:
        """Begin with an input, wait for its end, or tell its vector."""
        run = self.running[0]
        tokens = run.order.inputs[run.n_told]
        self._start(run, now_s)
        if self.due_s is None:
            self.due_s = now_s + len(tokens) * self.token_s
        if self.due_s > now_s:
            return time.sleep(min(NAP_S, self.due_s - now_s))
        if run.order.attempt == 1 and b"fake:crash" in bytes(token & 0xFF for token in tokens):
            os.abort()
        self._tell(run, tokens)
        self.due_s = None
        self.steps += 1
        return None

    def _tell(self, run: _Run, tokens: list[int]) -> None:
        order = run.order
        ranks = self.plan.pooling == "rank"
        n_values = 1 if ranks else order.dimensions or N_VALUES
        values = vector(tokens, n_values, normalize=order.normalize and not ranks)
        self.events.append(Embedded(order.job, order.attempt, 1, struct.pack(f"={n_values}f", *values)))
        self.prefill_tokens += len(tokens)
        run.n_told += 1
        self.running.remove(run)
        if run.n_told == len(order.inputs):
            self._finish(run)
        else:
            self.running.append(run)

    def _start(self, run: _Run, now_s: float) -> None:
        if run.started_s is None:
            order, run.started_s = run.order, now_s
            n_tokens = sum(map(len, order.inputs)) + order.known_tokens
            self.events.append(Started(order.job, order.attempt, n_tokens, order.known_tokens))

    def _finish(self, run: _Run) -> None:
        now_s = time.monotonic()
        self._start(run, now_s)
        took_ms = (now_s - (run.started_s or now_s)) * 1e3
        name = run.order.job, run.order.attempt
        self.events.append(Finished(*name, FinishReason.STOP, "", 0, took_ms, 0.0, n_computed=run.n_computed))
