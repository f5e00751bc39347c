"""Embedding and ranking over llama.cpp: inputs of all requests are packed into calls, each in a sequence of its own."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..messages import Embedded, Finished, FinishReason, Ready, Started, Stopped, WorkerStats
from ..vectors import finish
from .binding import Aborted, Context, ContextShape, log
from .ear import Ear
from .footprint import POOLED_SEQS
from .pace import Pace

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..facts import LoadPlan
    from ..messages import Embed, Event, Submit
    from ..vectors import Floats
    from .binding import Model

PACK_TOKENS = 512  # of one call with several inputs; an encoder's attention grows with the square of it


@dataclass(slots=True, eq=False)
class _Run:
    """One order while it is computed."""

    order: Embed
    n_taken: int = 0  # of its inputs: told, or in the pack
    n_rows: int = 0  # computed for it
    started_s: float | None = None

    @property
    def name(self) -> tuple[str, int]:
        return self.order.job, self.order.attempt


@dataclass(slots=True)
class _Input:
    """One input in the pack."""

    run: _Run
    tokens: list[int]
    n_computed: int = 0
    pooled: Floats | None = None  # of the rows computed so far


class EmbeddingEngine:
    """One model, one context, one thread; keeps the promise of `Embedder` in ../engine.py."""

    wake_fd = -1

    def __init__(self, plan: LoadPlan, model: Model, context: Context, load_ms: float) -> None:
        self._plan = plan
        self._model = model
        self._context = context
        self._n_ctx = min(plan.n_ctx, model.n_ctx_train, context.n_ctx_seq)
        self._n_values = 1 if plan.pooling == "rank" else model.n_embd_out
        self._running: list[_Run] = []  # whose turn it is first comes first
        self._pack: list[_Input] = []  # in the sequences 0, 1, ..; kept over the calls that a long input takes
        self._events: list[Event] = []
        self._pace = Pace()
        self._ear = Ear()
        self._n_rows = self._steps = 0
        self._step_ms = 0.0
        device = ", ".join(log.devices) if plan.n_gpu_layers and log.devices else "CPU"
        shape = self._n_ctx, plan.n_slots, context.n_cells, model.vocab.n_tokens
        self.ready = Ready(*shape, device=device, load_ms=load_ms, buffers=dict(log.buffers))

    # the promise

    def submit(self, submit: Submit) -> None:
        raise AssertionError("a model with a pooling generates no text")

    def embed(self, order: Embed) -> None:
        if fault := self._fault(order):
            end = Finished(
                order.job, order.attempt, FinishReason.ERROR, "", 0, 0.0, 0.0, fault[1], error_field=fault[0]
            )
            self._events.append(end)
        elif order.inputs:
            self._running.append(_Run(order))
        else:
            self._finish(_Run(order))

    def cancel(self, job: str, attempt: int) -> None:
        if self._ear.takes(job, attempt):
            return
        for run in self._running:
            if run.name == (job, attempt):
                self._running.remove(run)
                self._events.append(Stopped(job, attempt, 0, n_computed=run.n_rows))
                return

    def use_threads(self, n_threads: int) -> None:
        if self._plan.numerics == "fast":  # the number of threads is in the last bits
            self._context.use_threads(n_threads)

    def step(self, listen: Callable[[], bool] | None = None) -> list[Event]:
        start_s = time.perf_counter()
        self._fill()
        if self._pack:
            self._compute(listen)
            self._steps += 1
            self._step_ms = (time.perf_counter() - start_s) * 1e3
        events, self._events = self._events, []
        return events

    def busy(self) -> bool:
        return bool(self._running or self._events)

    def stats(self) -> WorkerStats:
        counts = (len(self._running), 0, 0, self._n_rows, 0, self._steps)
        return WorkerStats(*counts, step_ms=self._step_ms, rss_bytes=0)  # the worker loop knows that one

    def close(self) -> None:
        self._context.close()
        self._model.close()

    # which inputs

    def _fault(self, order: Embed) -> tuple[str, str] | None:
        """(field, why) of what can never be computed."""
        n_vocab = self._model.vocab.n_tokens
        for i, tokens in enumerate(order.inputs):
            if not 0 < len(tokens) <= self._n_ctx:
                return f"inputs[{i}]", f"inputs[{i}] has {len(tokens)} tokens, but 1 to {self._n_ctx} are allowed"
            if not (min(tokens) >= 0 and max(tokens) < n_vocab):
                return f"inputs[{i}]", f"inputs[{i}] has tokens beyond the model's {n_vocab}"
        return None

    def _fill(self) -> None:
        """Choose the inputs of the next call: of the highest rank first, of equals one of each in turn."""
        self._pack = [one for one in self._pack if one.run in self._running]
        if self._pack or not self._running:
            return
        self._context.clear()
        n_left = min(PACK_TOKENS, self._context.batch.n_rows_max)
        waiting = sorted(self._running, key=lambda run: -run.order.rank)
        self._running.remove(waiting[0])
        self._running.append(waiting[0])
        # With exact numerics alone, so that its call has the same rows whoever else is here.
        n_seqs = 1 if self._plan.numerics == "exact" else POOLED_SEQS
        while waiting:
            rank = waiting[0].order.rank
            for run in [run for run in waiting if run.order.rank == rank]:
                tokens = run.order.inputs[run.n_taken]
                if (len(tokens) <= n_left and len(self._pack) < n_seqs) or not self._pack:
                    self._pack.append(_Input(run, tokens))
                    run.n_taken += 1
                    n_left -= len(tokens)
                    if run.n_taken < len(run.order.inputs):
                        continue
                waiting.remove(run)

    # one call

    def _compute(self, listen: Callable[[], bool] | None) -> None:
        """Compute the pack, or as much of its one long input as a call takes, and tell what is complete."""
        start_s, batch = time.perf_counter(), self._context.batch
        batch.clear()
        rows: list[int] = []
        for seq, one in enumerate(self._pack):
            tokens = one.tokens[one.n_computed : one.n_computed + batch.n_rows_max]
            batch.add(seq, one.n_computed, tokens, n_wanted=len(tokens))
            rows.append(len(tokens))
            self._start(one.run, start_s)
        try:
            computed = self._decode(listen, sum(rows))
        except Aborted:
            self._redo()
        else:
            assert computed, "a pack fits into the cells"
            for seq, (one, n_rows) in enumerate(zip(self._pack, rows, strict=True)):
                self._add(one, self._context.pooled(seq, self._n_values), n_rows)
            self._n_rows += sum(rows)
            self._pace.note(sum(rows), sum(rows), (time.perf_counter() - start_s) * 1e3)
            if all(one.n_computed == len(one.tokens) for one in self._pack):
                self._tell()
        for name in self._ear.close():
            self.cancel(*name)

    def _decode(self, listen: Callable[[], bool] | None, n_rows: int) -> bool:
        """A long call is broken off (Aborted) when one of its requests is cancelled meanwhile, or all is to end."""
        if listen is None or not self._pace.is_long(n_rows):
            return self._context.decode()
        return self._context.decode(self._ear.open(listen, [one.run.name for one in self._pack]))

    def _redo(self) -> None:
        """A call was broken off: its inputs go back to where they came from."""
        for one in self._pack:
            one.run.n_taken -= 1
        self._pack = []

    def _add(self, one: _Input, pooled: Floats, n_rows: int) -> None:
        """Rows of an input are computed. A long one's vector is put together from what its calls say."""
        before, one.n_computed = one.n_computed, one.n_computed + n_rows
        one.run.n_rows += n_rows
        if one.pooled is None or self._plan.pooling in ("last", "rank"):
            one.pooled = pooled
        elif self._plan.pooling == "mean":
            one.pooled = (one.pooled * before + pooled * n_rows) / np.float32(before + n_rows)

    def _tell(self) -> None:
        vectors: dict[_Run, list[Floats]] = {}
        for one in self._pack:
            assert one.pooled is not None
            vectors.setdefault(one.run, []).append(one.pooled)
        self._pack = []
        for run, its in vectors.items():
            order = run.order
            normalize = order.normalize and self._plan.pooling != "rank"
            data = finish(np.stack(its), normalize=normalize, dimensions=order.dimensions)
            self._events.append(Embedded(*run.name, len(its), data))
            if run.n_taken == len(order.inputs):
                self._running.remove(run)
                self._finish(run)

    def _start(self, run: _Run, now_s: float) -> None:
        if run.started_s is None:
            run.started_s = now_s
            n_tokens = sum(map(len, run.order.inputs)) + run.order.known_tokens
            self._events.append(Started(*run.name, n_tokens, run.order.known_tokens))

    def _finish(self, run: _Run) -> None:
        now_s = time.perf_counter()
        self._start(run, now_s)
        took_ms = (now_s - (run.started_s or now_s)) * 1e3
        self._events.append(Finished(*run.name, FinishReason.STOP, "", 0, took_ms, 0.0, n_computed=run.n_rows))


def open_context(plan: LoadPlan, model: Model) -> Context:
    """Raises what Context raises."""
    n_cells = max(plan.kv_cells, plan.n_ctx)
    shape = ContextShape(
        n_cells=n_cells,
        n_seqs=POOLED_SEQS,
        n_outputs=0,  # of every row
        n_ubatch=min(plan.n_ubatch, n_cells),
        n_threads=max(1, plan.n_threads // 4),
        kv_type=plan.kv_type,
        unified=True,  # sequences of unequal length in one call
        flash_attention=plan.flash_attention,
        pooling=plan.pooling,
    )
    return Context(model, shape)
