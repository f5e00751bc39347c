"""Continuous batching over llama.cpp: up to n_slots requests computed side by side."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ..engine import LoadError
from ..messages import Delta, Finished, FinishReason, Ready, Started, Stopped, WorkerStats
from .batch import BLOCK, anything_flows, chunk_rows, is_long, plan_exact, plan_fast
from .binding import Aborted, BindingError, Context, ContextShape, Model, log
from .cells import Cells, ExactCells
from .sampling import InvalidLogits, Sampler, logprob
from .sequence import Sequence

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..facts import LoadPlan
    from ..messages import Event, Submit
    from .batch import Call
    from .binding import Logits

LISTEN_S = 0.02  # how often a long call looks for cancels


class LlamaEngine:
    """One model, one context, one thread; keeps the promise of ../engine.py."""

    def __init__(self, plan: LoadPlan, model: Model, context: Context, load_ms: float) -> None:
        self._plan = plan
        self._model = model
        self._vocab = model.vocab
        self._context = context
        self._n_ctx = min(plan.n_ctx, context.n_ctx_seq)
        self._cells = ExactCells(context) if plan.numerics == "exact" else Cells(context)
        self._running: list[Sequence] = []  # in order of arrival
        self._waiting: list[Submit] = []
        self._free = list(range(plan.n_slots))
        self._scratch = plan.n_slots
        self._events: list[Event] = []
        self._row_ms: float | None = None  # of a prompt, measured
        self._late: list[tuple[str, int]] | None = None  # cancels that come while a call is computed
        self._prefill_tokens = self._decode_tokens = self._steps = 0
        self._step_ms = 0.0
        self.ready = Ready(
            n_ctx=self._n_ctx,
            n_slots=plan.n_slots,
            kv_cells=context.n_cells,
            n_vocab=self._vocab.n_tokens,
            device=", ".join(log.devices) if plan.n_gpu_layers and log.devices else "CPU",
            load_ms=load_ms,
            buffers=dict(log.buffers),
        )

    # the promise

    def submit(self, submit: Submit) -> None:
        fault = self._fault(submit)
        if fault:
            self._events.append(Finished(submit.job, submit.attempt, FinishReason.ERROR, "", 0, 0.0, 0.0, error=fault))
        else:
            self._waiting.append(submit)

    def cancel(self, job: str, attempt: int) -> None:
        if self._late is not None:
            self._late.append((job, attempt))
            return
        for s in self._running:
            if s.name == (job, attempt):
                self._stop(s, parked=False)
                return
        for submit in self._waiting:
            if (submit.job, submit.attempt) == (job, attempt):
                self._waiting.remove(submit)
                self._events.append(Stopped(job, attempt, len(submit.tokens) - submit.n_prompt))
                return

    def use_threads(self, n_threads: int) -> None:
        if self._plan.numerics == "fast":  # attention adds up what its threads found: their number is in the last bits
            self._context.use_threads(n_threads)

    def step(self, listen: Callable[[], bool] | None = None) -> list[Event]:
        start_s = time.perf_counter()
        self._admit()
        for call in self._next_calls():
            self._run(call, listen)
        if self._running or self._events:
            self._steps += 1
            self._step_ms = (time.perf_counter() - start_s) * 1e3
        events, self._events = self._events, []
        return events

    def busy(self) -> bool:
        return bool(self._running or self._waiting or self._events)

    def stats(self) -> WorkerStats:
        return WorkerStats(
            running=len(self._running),
            waiting=len(self._waiting),
            kv_cells_used=self._cells_used(),
            prefill_tokens=self._prefill_tokens,
            decode_tokens=self._decode_tokens,
            steps=self._steps,
            step_ms=self._step_ms,
            rss_bytes=0,  # the worker loop knows
        )

    def close(self) -> None:
        self._context.close()
        self._model.close()

    # in and out

    def _fault(self, submit: Submit) -> str:
        """Why this can never run, or ''."""
        n_vocab = self._vocab.n_tokens
        if not submit.n_prompt or len(submit.tokens) < submit.n_prompt:
            return "the prompt has no tokens"
        if submit.n_prompt >= self._n_ctx:
            return f"the prompt has {submit.n_prompt} tokens and leaves no room in the context of {self._n_ctx}"
        wrong = next((t for t in submit.tokens if not 0 <= t < n_vocab), None)
        return "" if wrong is None else f"token {wrong} is not one of the model's {n_vocab} tokens"

    def _admit(self) -> None:
        """Move what waits into free slots, unless it would only push out what runs."""
        while self._waiting and self._free:
            submit = self._waiting[0]
            if self._running and len(submit.tokens) > self._context.n_cells - self._cells_booked():
                return
            self._waiting.pop(0)
            sampler = Sampler(submit.params, self._vocab.eog, self._vocab.suppressed, self._vocab.n_tokens)
            s = Sequence(submit, self._free.pop(0), sampler)
            s.replay([self._vocab.piece(t) for t in submit.tokens[submit.n_prompt :]])
            self._running.append(s)
            if s.n_completion >= submit.params.max_tokens or len(s.tokens) >= self._n_ctx:
                self._finish(s, FinishReason.LENGTH)
            elif s.text.stopped:
                self._finish(s, FinishReason.STOP)

    def _cells_used(self) -> int:
        return sum(s.n_computed for s in self._running)

    def _cells_booked(self) -> int:
        return sum(len(s.tokens) for s in self._running)

    def _live(self) -> list[tuple[int, int]]:
        return [(s.seq, s.n_computed) for s in self._running]

    def _release(self, s: Sequence) -> None:
        """The request no longer runs. A later prefix tree takes the computed cells over here."""
        self._running.remove(s)
        self._cells.release(s.seq, s.n_computed, self._live())
        self._free.append(s.seq)

    def _stop(self, s: Sequence, *, parked: bool) -> None:
        self._release(s)
        self._events.append(Stopped(*s.name, s.n_completion, parked, s.n_computed))

    def _start(self, s: Sequence, now_s: float) -> None:
        if s.started_s is None:
            s.started_s = now_s
            self._events.append(Started(*s.name, s.n_prompt, cached_tokens=0))

    def _finish(self, s: Sequence, reason: FinishReason, error: str = "") -> None:
        self._start(s, time.perf_counter())
        self._release(s)
        tail = s.tail()
        times_ms = s.timings_ms(time.perf_counter())
        self._events.append(Finished(*s.name, reason, tail, s.n_completion, *times_ms, error, s.n_computed))

    # one step

    def _next_calls(self) -> list[Call]:
        chunk = chunk_rows(self._context.batch.n_rows_max, self._row_ms, beside=anything_flows(self._running))
        by_rank = sorted(self._running, key=lambda s: -s.submit.rank)  # of equals the oldest first
        if self._plan.numerics == "exact":
            return plan_exact(by_rank, chunk)
        return plan_fast(by_rank, chunk, self._context.batch.n_rows_max)

    def _run(self, call: Call, listen: Callable[[], bool] | None) -> None:
        """Compute one call and draw a token for each sequence that is complete."""
        tidied = False
        while self._fill(call):
            start_s = time.perf_counter()
            try:
                computed = self._cells.ready_for(call.n_rows) and self._compute(call, listen)
            except Aborted:
                self._undo(call)
                if not self._cancel_late():
                    return  # nobody was cancelled: the worker is to end
                continue
            if computed:
                if call.padded:
                    self._context.seq_rm(self._scratch)
                self._account(call, start_s)
                self._draw(call)
                self._cancel_late()
                return
            if self._cancel_late():
                continue  # that made room
            tidied = not tidied and self._cells.tidy(self._live())
            if not tidied:
                self._make_room()

    def _compute(self, call: Call, listen: Callable[[], bool] | None) -> bool:
        """False without room. A long call is broken off (Aborted) when one of its requests is cancelled meanwhile."""
        if listen is None or not is_long(call.n_rows, self._row_ms):
            return self._context.decode()
        late = self._late = []
        names = {piece.sequence.name for piece in call.pieces}
        listen_s = 0.0

        def unwanted() -> bool:
            nonlocal listen_s
            now_s = time.perf_counter()
            if now_s < listen_s:
                return False
            listen_s = now_s + LISTEN_S
            return listen() or not names.isdisjoint(late)

        return self._context.decode(unwanted)

    def _undo(self, call: Call) -> None:
        """Some rows of a call that was broken off may have cells, and none counts as computed."""
        for piece in call.pieces:
            self._context.seq_rm(piece.sequence.seq, piece.sequence.n_computed)

    def _cancel_late(self) -> bool:
        """What was cancelled while a call was computed; False when nothing was."""
        late, self._late = self._late, None
        for name in late or ():
            self.cancel(*name)
        return bool(late)

    def _fill(self, call: Call) -> bool:
        """Put the rows of those that still run into the batch; False when none is left."""
        batch = self._context.batch
        batch.clear()
        call.pieces = [piece for piece in call.pieces if piece.sequence in self._running]
        for piece in call.pieces:
            s, start = piece.sequence, piece.sequence.n_computed
            stop = start + piece.n_rows
            batch.add(s.seq, start, s.tokens[start:stop], want_last=stop == len(s.tokens))
        if self._plan.numerics == "exact":
            call.padded = call.n_rows - call.padded == 1
        if call.padded:
            batch.add(self._scratch, 0, [0], want_last=False)
        return bool(call.pieces)

    def _make_room(self) -> None:
        """KV is short: the lowest rank makes way, of equals the youngest; the last one has all there is."""
        if len(self._running) == 1:
            self._finish(self._running[0], FinishReason.LENGTH)
            return
        lowest = min(reversed(self._running), key=lambda s: s.submit.rank)
        self._stop(lowest, parked=True)

    def _account(self, call: Call, start_s: float) -> None:
        n_prompt_rows = 0
        for piece in call.pieces:
            s = piece.sequence
            self._start(s, start_s)
            n_prompt_rows += 0 if s.decoding else piece.n_rows
            s.n_computed += piece.n_rows
        self._cells.took(call.n_rows - call.padded)
        self._prefill_tokens += n_prompt_rows
        if n_prompt_rows >= BLOCK:
            row_ms = (time.perf_counter() - start_s) * 1e3 / call.n_rows
            self._row_ms = row_ms if self._row_ms is None else 0.7 * self._row_ms + 0.3 * row_ms

    def _draw(self, call: Call) -> None:
        complete = [piece.sequence for piece in call.pieces if not piece.sequence.n_left]
        if complete:
            rows = self._context.logits()
            for i, s in enumerate(complete):
                self._draw_one(s, rows[i])

    def _draw_one(self, s: Sequence, row: Logits) -> None:
        index, n_top = s.n_completion, s.submit.params.logprobs
        raw = None if n_top is None else row.copy()  # drawing changes the row
        try:
            token = s.sampler.sample(row, s.tokens, index)
            logprobs = None if raw is None else [logprob(raw, token, n_top or 0, self._vocab.piece)]
        except InvalidLogits:
            return self._finish(s, FinishReason.ERROR, "the model produced invalid numbers")
        if s.first_s is None:
            s.first_s = time.perf_counter()
        if token in self._vocab.eog:
            return self._finish(s, FinishReason.STOP)
        self._decode_tokens += 1
        text = s.add(token, self._vocab.piece(token))
        self._events.append(Delta(*s.name, index, [token], text, logprobs))
        if s.text.stopped:
            return self._finish(s, FinishReason.STOP)
        if s.n_completion >= s.submit.params.max_tokens or len(s.tokens) >= self._n_ctx:
            return self._finish(s, FinishReason.LENGTH)
        return None


def load(plan: LoadPlan, progress: Callable[[float], None]) -> LlamaEngine:
    """Raises LoadError."""
    start_s = time.perf_counter()
    exact = plan.numerics == "exact"
    if exact and (plan.kv_layout != "unified" or plan.flash_attention is False):
        raise LoadError("unsupported", "numerics = exact needs kv_layout = unified and flash attention")
    unified = plan.kv_layout == "unified"
    try:
        model = Model(
            plan.path,
            n_gpu_layers=plan.n_gpu_layers,
            devices=plan.device_names,
            tensor_split=plan.tensor_split,
            use_mmap=plan.use_mmap,
            plain_kernels=exact,
            progress=progress,
        )
        if not model.is_generative:
            raise LoadError("unsupported", "only models that generate text are served")
        if exact and not model.keeps_all_cells:
            raise LoadError("unsupported", "numerics = exact needs a model without sliding window or recurrent state")
        context = Context(
            model,
            ContextShape(
                n_cells=plan.kv_cells,
                n_seqs=plan.n_slots + unified,  # a split cache has no cells to spare for a scratch sequence
                n_ubatch=max(plan.n_ubatch, BLOCK, plan.n_slots),
                n_threads=max(1, plan.n_threads // 4),
                kv_type=plan.kv_type,
                unified=unified,
                flash_attention=True if exact else plan.flash_attention,
            ),
        )
    except BindingError as error:
        raise LoadError(error.fault, str(error)) from error
    except LookupError as error:
        raise LoadError("unsupported", str(error)) from error
    _warm_up(context)
    context.use_threads(plan.n_threads)
    return LlamaEngine(plan, model, context, (time.perf_counter() - start_s) * 1e3)


def _warm_up(context: Context) -> None:
    """Touch every weight once, so that the first request does not wait for the disk; others may want the cores now."""
    context.batch.clear()
    context.batch.add(0, 0, [0], want_last=True)
    context.decode()
    context.seq_rm(0)
