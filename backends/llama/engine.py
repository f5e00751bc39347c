"""Continuous batching over llama.cpp: up to n_slots requests computed side by side."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ..engine import GrammarError
from ..messages import Finished, FinishReason, Ready, Started, Stopped, WorkerStats
from ..sampling import Sampler
from .batch import budget_ms, in_turn, plan_exact, plan_fast
from .binding import Aborted, log
from .draw import draw, over
from .ear import Ear
from .grammar import Grammars
from .guess import Guesser
from .lookup import Lookup
from .pace import BLOCK
from .sequence import Sequence

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..facts import LoadPlan
    from ..messages import Event, Submit
    from .adapters import Adapters
    from .batch import Call
    from .binding import Context, Model
    from .drafter import Drafter
    from .memory import Memory
    from .pace import Pace

GRAMMAR_S = 0.02  # how long an idle engine waits for a grammar before it listens again
PARK_S = 1.0  # for putting what is idle into host RAM at the end; the daemon waits two seconds


class LlamaEngine:
    """One model, one context, one thread; keeps the promise of ../engine.py."""

    wake_fd = -1

    def __init__(
        self,
        plan: LoadPlan,
        model: Model,
        context: Context,
        memory: Memory,
        pace: Pace,
        adapters: Adapters,
        load_ms: float,
        drafter: Drafter | None = None,
    ) -> None:
        self._plan = plan
        self._model = model
        self._vocab = model.vocab
        self._context = context
        self._n_ctx = min(plan.n_ctx, context.n_ctx_seq)
        self._memory = memory
        self._adapters = adapters
        self._running: list[Sequence] = []  # in order of arrival
        self._waiting: list[Submit] = []
        self._free = list(range(plan.n_slots))
        self._scratch = plan.n_slots
        self._events: list[Event] = []
        self._pace = pace
        self._n_awaiting = self._n_given = 0  # requests that wait for the daemon, as of so many of its answers
        self._guesser = Guesser(plan, self._n_ctx, pace, drafter)
        self._grammars = Grammars(model.vocab)
        self._ear = Ear()
        self._can_undo = not model.is_recurrent  # a state that was overwritten half is lost
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
            shares_prefixes=memory.shares,
        )

    # the promise

    def submit(self, submit: Submit) -> None:
        fault = self._fault(submit)
        if fault:
            self._events.append(Finished(submit.job, submit.attempt, FinishReason.ERROR, "", 0, 0.0, 0.0, error=fault))
        else:
            self._waiting.append(self._adapters.own(submit))

    def cancel(self, job: str, attempt: int) -> None:
        if self._ear.takes(job, attempt):
            return
        for s in self._running:
            if s.name == (job, attempt):
                self._stop(s, parked=False)
                return
        for submit in self._waiting:
            if (submit.job, submit.attempt) == (job, attempt):
                self._waiting.remove(submit)
                self._memory.admit(submit)
                self._events.append(Stopped(job, attempt, len(submit.tokens) - submit.n_prompt))
                return

    def use_threads(self, n_threads: int) -> None:
        if self._plan.numerics == "fast":  # attention adds up what its threads found: their number is in the last bits
            self._context.use_threads(n_threads)
            self._guesser.use_threads(n_threads)

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
        idle = len(self._waiting) == self._n_awaiting and self._n_given == self._memory.store.n_given
        return bool(self._running or self._events or (self._waiting and not idle))

    def stats(self) -> WorkerStats:
        return WorkerStats(
            running=len(self._running),
            waiting=len(self._waiting),
            kv_cells_used=self._memory.n_used(self._running),
            prefill_tokens=self._prefill_tokens,
            decode_tokens=self._decode_tokens,
            steps=self._steps,
            step_ms=self._step_ms,
            rss_bytes=0,  # the worker loop knows
            kv_cells_kept=self._memory.n_idle,
            cache_bytes=self._memory.cache_bytes,
        )

    def close(self) -> None:
        self._memory.park(PARK_S)
        self._grammars.close()
        self._guesser.close()
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
        if wrong is not None:
            return f"token {wrong} is not one of the model's {n_vocab} tokens"
        return self._adapters.fault(submit)

    def _admit(self) -> None:
        """Move what waits into free slots, unless it would only push out what runs, or its blocks are on their way."""
        self._n_awaiting, self._n_given = 0, self._memory.store.n_given
        for submit in list(self._waiting):
            if not self._free or not self._memory.room_for(submit, self._running):
                return
            if self._memory.awaits(submit):
                self._n_awaiting += 1
                continue
            grammar, idle = submit.params.grammar, not self._running
            if not grammar or self._grammars.ready(grammar, GRAMMAR_S if idle else 0.0):
                self._waiting.remove(submit)
                self._memory.admit(submit)
                self._begin(submit)

    def _begin(self, submit: Submit) -> None:
        sampler = Sampler(submit.params, self._vocab.eog, self._vocab.suppressed, self._vocab.n_tokens)
        piece = self._vocab.spelling(submit.params.calls)
        s = Sequence(submit, self._free.pop(0), sampler, piece, Lookup() if self._plan.n_draft else None)
        s.replay()
        self._memory.join(s, self._running)
        self._running.append(s)
        try:
            if submit.params.grammar or submit.params.calls:
                s.grammar = self._grammars.begin(submit.params)
                s.grammar.accept(*submit.tokens[submit.n_prompt :])
        except GrammarError as error:
            return self._finish(s, FinishReason.ERROR, f"the grammar: {error}", s.form_field)
        if (end := over(s, self._n_ctx)) is not None:
            self._finish(s, *end)
        return None

    def _release(self, s: Sequence) -> None:
        self._running.remove(s)
        self._memory.end(s, self._running)
        self._free.append(s.seq)

    def _stop(self, s: Sequence, *, parked: bool) -> None:
        self._release(s)
        self._events.append(Stopped(*s.name, s.n_completion, parked, s.n_own, s.n_drafted, s.n_accepted))

    def _start(self, s: Sequence, now_s: float) -> None:
        if s.started_s is None:
            s.started_s = now_s
            self._events.append(Started(*s.name, s.n_prompt, s.n_cached))

    def _finish(self, s: Sequence, reason: FinishReason, error: str = "", field: str = "") -> None:
        self._start(s, time.perf_counter())
        self._release(s)
        tail = s.tail()
        times_ms = s.timings_ms(time.perf_counter())
        told = Finished(
            *s.name, reason, tail, s.n_completion, *times_ms, error, s.n_own, s.n_drafted, s.n_accepted, field
        )
        self._events.append(told)

    # one step

    def _next_calls(self) -> list[Call]:
        chunk = n_rows_max = self._context.batch.n_rows_max
        no_prompts = all([s.decoding for s in self._running])
        if no_prompts:
            by_rank = in_turn(self._running)
            if self._plan.n_draft:
                self._guesser.guess(by_rank)
        else:
            for i, s in enumerate(self._running):
                if s.leader is not None and (s.leader.n_computed >= s.n_shared or s.leader not in self._running):
                    self._memory.join(s, self._running[:i])
            by_rank = in_turn(self._running)
            chunk = self._pace.chunk(n_rows_max, budget_ms(self._running, self._pace))
        if self._plan.numerics == "exact":
            return self._adapters.plan(by_rank, lambda group: plan_exact(group, chunk))
        calls = self._adapters.plan(by_rank, lambda group: plan_fast(group, chunk, n_rows_max))
        return calls if no_prompts else [self._pad(call) for call in calls]

    def _pad(self, call: Call) -> Call:
        """The end of a long prompt is a call of few rows, which take longer than 64 where they look at many cells."""
        unified = self._context.n_seqs > self._plan.n_slots
        prompts = any(not piece.sequence.decoding for piece in call.pieces)
        if unified and prompts and self._pace.pads(call.n_rows, call.n_attended):
            call.n_padding = BLOCK - call.n_rows
        return call

    def _run(self, call: Call, listen: Callable[[], bool] | None) -> None:
        """Compute one call and draw a token for each sequence that is complete."""
        tidied = False
        while self._fill(call):
            start_s = time.perf_counter()
            try:
                computed = self._memory.ready_for(call.n_rows) and self._compute(call, listen)
            except Aborted:
                self._undo(call)
                if not self._cancel_late():
                    return  # nobody was cancelled: the worker is to end
                continue
            if computed:
                if call.n_padding:
                    self._context.seq_rm(self._scratch)
                self._account(call, start_s)
                self._draw(call)
                self._cancel_late()
                return
            if self._cancel_late() or call.shed() or self._memory.make_room(call.n_rows):
                continue
            tidied = not tidied and self._memory.tidy(self._running)
            if not tidied:
                self._make_room()

    def _compute(self, call: Call, listen: Callable[[], bool] | None) -> bool:
        """False without room. A long call is broken off (Aborted) when one of its requests is cancelled meanwhile."""
        self._adapters.use(call)
        if listen is None or not self._can_undo or not self._pace.is_long(call.n_rows):
            return self._context.decode()
        return self._context.decode(self._ear.open(listen, [piece.sequence.name for piece in call.pieces]))

    def _undo(self, call: Call) -> None:
        """Some rows of a call that was broken off may have cells, and none counts as computed."""
        for piece in call.pieces:
            self._context.seq_rm(piece.sequence.seq, piece.sequence.n_computed)

    def _cancel_late(self) -> bool:
        """What was cancelled while a call was computed; False when nothing was."""
        late = self._ear.close()
        for name in late:
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
            n_wanted = len(s.draft) + 1 if stop >= len(s.tokens) else 0
            batch.add(s.seq, start, s.tokens[start:stop] + s.draft, n_wanted=n_wanted)
        if self._plan.numerics == "exact":
            call.n_padding = int(call.n_rows - call.n_padding == 1)
        if call.n_padding:
            batch.add(self._scratch, 0, [0] * call.n_padding, n_wanted=0)
        return bool(call.pieces)

    def _make_room(self) -> None:
        """KV is short: the lowest rank makes way, of equals the youngest; the last one has all there is."""
        if len(self._running) == 1:
            self._finish(self._running[0], FinishReason.LENGTH)
            return
        able = [s for s in self._running if self._memory.has_cells(s)] or self._running
        lowest = min(reversed(able), key=lambda s: s.submit.rank)
        self._stop(lowest, parked=True)

    def _account(self, call: Call, start_s: float) -> None:
        n_prompt_rows = n_attended = 0
        for piece in call.pieces:
            s = piece.sequence
            n_attended += piece.n_rows * s.n_computed
            if s.started_s is None:
                self._start(s, start_s)
            decoding = s.decoding
            s.n_computed += piece.n_rows
            s.n_guessed = len(s.draft)
            if not decoding:
                n_prompt_rows += piece.n_rows
                self._memory.keep(s)
        n_rows = call.n_rows
        self._memory.took(n_rows - call.n_padding)
        self._prefill_tokens += n_prompt_rows
        took_ms = (time.perf_counter() - start_s) * 1e3
        self._pace.note(n_rows, n_prompt_rows, took_ms)
        if n_prompt_rows and n_rows < BLOCK:
            self._pace.note_short(n_rows, n_attended, took_ms)

    def _draw(self, call: Call) -> None:
        complete = [piece.sequence for piece in call.pieces if not piece.sequence.n_left]
        if not complete:
            return
        rows, at = self._context.logits(), 0
        for s in complete:
            n_rows, n_before = len(s.draft) + 1, len(s.tokens)
            end = draw(s, rows[at : at + n_rows], self._vocab, self._n_ctx, self._events)
            at += n_rows
            self._decode_tokens += len(s.tokens) - n_before
            if end is not None:
                self._finish(s, *end)
            elif s.n_guessed:
                self._memory.drop_guess(s)
