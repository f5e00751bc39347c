"""An engine without weights: a set rate, a load delay, scripted faults. Ships with the product (`inferd serve --fake`).

Its vocabulary is the 256 bytes and a list of words. Token i of an answer depends on the prompt, the seed and i alone,
so a replayed request continues with the same words. A prompt may carry orders, for tests and demonstrations:
`fake:tokens=N` (length of the answer), `fake:crash=N` and `fake:hang=N` (after N tokens). With `fake:clock=1` the text
of a token is the time at which it came, in microseconds of the monotonic clock: a reader here sees how long it took.
Lies, for those who check histories: token N is told twice (`fake:repeat=N`), never (`fake:skip=N`), after the next one
(`fake:swap=N`), with another text (`fake:garble=N`), or is the last that comes, without an end (`fake:halt=N`).
With `fake:say=HEX` the answer is these bytes, a token each; the last such order counts. A request that must call a tool
gets the answer that its tokenizer made up (`fake_tokenizer.py`).

With `fake_prefill_tokens_per_s` prompts cost time: they are computed one after another, in the order in which they got
their slots, and the answers that flow beside them keep their own rate.
"""

from __future__ import annotations

import math
import os
import re
import time
import zlib
from collections import deque
from typing import TYPE_CHECKING

import msgspec

from .fake_embedder import FakeEmbedder
from .fake_inferrer import FakeInferrer
from .messages import Delta, Finished, FinishReason, Ready, Started, Stopped, TokenLogprob, WorkerStats
from .text import TextStream

if TYPE_CHECKING:
    from collections.abc import Callable

    from .facts import LoadPlan
    from .messages import Event, Submit
    from .shelf import Shelf

_TEXT = (
    "a all and as at be but by for from has he her his in is it not of on or she that the their they this to was we "
    "were which will with you small river green house child morning bright quiet letter garden window answer"
)
WORDS = _TEXT.split()
ONNX_SUFFIX = ".onnx"  # such models are given tensors
N_BYTES = 256
N_VOCAB = N_BYTES + len(WORDS)
LIES = {"repeat", "skip", "swap", "garble", "halt"}
NAP_S = 0.002  # longest sleep in a step, so that a cancel is heard soon
ORDER = re.compile(rb"fake:(tokens|crash|hang|clock|repeat|skip|swap|garble|halt)=(\d+)")
SAY = re.compile(rb"fake:say=((?:[0-9a-f]{2})+)")


def token_bytes(token: int) -> bytes:
    """The text of one token of the fake vocabulary."""
    if token < N_BYTES:
        return bytes([token])
    return f"{WORDS[(token - N_BYTES) % len(WORDS)]} ".encode()  # a real model's file may have more words


class _Run:
    """One request in a slot."""

    def __init__(self, submit: Submit, now_s: float = 0.0) -> None:
        self.submit = submit
        self.joined_s = now_s
        prompt = b"".join(token_bytes(t) for t in submit.tokens[: submit.n_prompt])
        self.orders = {key.decode(): int(value) for key, value in ORDER.findall(prompt)}
        seed = submit.params.seed if submit.params.temperature > 0 else 0
        self.mix = zlib.crc32(prompt + submit.lora.encode(), seed & 0xFFFFFFFF)
        said = SAY.findall(prompt)
        self.words = bytes.fromhex(said[-1].decode()) if said else submit.params.grammar.encode()
        self.length = len(self.words) or self.orders.get("tokens", 40 + self.mix % 80)
        self.n_done = 0
        self.unsent = ""  # decided in an earlier attempt, but not sent by it
        self.text = TextStream(submit.params.stop, sent_bytes=submit.sent_bytes)
        for token in submit.tokens[submit.n_prompt :]:
            self.n_done += 1
            self.unsent += self.text.feed(token_bytes(token))
        self.n_first = self.n_done
        self.lies = LIES & self.orders.keys()
        self.later: Delta | None = None  # told after the next token
        self.started_s: float | None = None  # the first prompt token
        self.first_s: float | None = None  # the end of the prompt
        self.due_s = 0.0  # the next token; infinite while other prompts are computed

    def n_computed(self, now_s: float, prompt_token_s: float) -> int:
        """Tokens that a real engine would have put through its model: the last one drawn is not."""
        if drawn := self.n_done - self.n_first:
            return len(self.submit.tokens) + drawn - 1
        if self.started_s is None or not prompt_token_s:
            return 0
        return min(len(self.submit.tokens), int((now_s - self.started_s) / prompt_token_s))

    def token(self) -> int:
        if self.n_done < len(self.words):
            return self.words[self.n_done]
        return N_BYTES + zlib.crc32(self.n_done.to_bytes(4, "little"), self.mix) % len(WORDS)


class FakeEngine:
    """Keeps the promise of engine.py at the plan's rates; 0 is as fast as it can."""

    wake_fd = -1

    def __init__(self, plan: LoadPlan) -> None:
        self.plan = plan
        self.interval_s = 1 / plan.fake_tokens_per_s if plan.fake_tokens_per_s else 0.0
        self.prompt_token_s = 1 / plan.fake_prefill_tokens_per_s if plan.fake_prefill_tokens_per_s else 0.0
        self.running: list[_Run] = []
        self.prompts: deque[_Run] = deque()  # of these, whose prompt is not computed yet; the first one's is being so
        self.waiting: list[Submit] = []
        self.events: list[Event] = []
        self.prefill_tokens = self.decode_tokens = self.steps = 0
        device = f"fake on {', '.join(plan.devices)}" if plan.devices else "fake"
        self.ready = Ready(plan.n_ctx, plan.n_slots, plan.kv_cells, N_VOCAB, device, 0.0, {})

    def submit(self, submit: Submit) -> None:
        self.waiting.append(submit)
        self._fill()

    def cancel(self, job: str, attempt: int) -> None:
        for run in self.running:
            if (run.submit.job, run.submit.attempt) == (job, attempt):
                now_s = time.monotonic()
                n_computed = run.n_computed(now_s, self.prompt_token_s)
                self.running.remove(run)
                self.events.append(Stopped(job, attempt, run.n_done, n_computed=n_computed))
                self._leave_prompts(run, now_s)
        for submit in self.waiting:
            if (submit.job, submit.attempt) == (job, attempt):
                self.waiting.remove(submit)
                self.events.append(Stopped(job, attempt, len(submit.tokens) - submit.n_prompt))
        self._fill()

    def use_threads(self, n_threads: int) -> None:
        """It computes nothing."""

    def step(self, listen: Callable[[], bool] | None = None) -> list[Event]:
        now_s = time.monotonic()
        due = [run for run in self.running if run.due_s <= now_s]
        if not due and self.running and not self.events:
            time.sleep(min(NAP_S, min(run.due_s for run in self.running) - now_s))
        for run in due:
            self._advance(run, now_s)
        self.steps += bool(due)
        events, self.events = self.events, []
        return events

    def busy(self) -> bool:
        return bool(self.running or self.events)

    def stats(self) -> WorkerStats:
        cells = sum(run.submit.n_prompt + run.n_done for run in self.running)
        counts = (cells, self.prefill_tokens, self.decode_tokens, self.steps)
        return WorkerStats(len(self.running), len(self.waiting), *counts, step_ms=0.0, rss_bytes=0)

    def close(self) -> None:
        self.running.clear()
        self.prompts.clear()

    def _fill(self) -> None:
        while self.waiting and len(self.running) < self.plan.n_slots:
            run = _Run(self.waiting.pop(0), time.monotonic())
            self.running.append(run)
            if self.prompt_token_s:
                run.due_s = math.inf
                self.prompts.append(run)
                if len(self.prompts) == 1:
                    self._start(run, run.joined_s)

    def _start(self, run: _Run, start_s: float) -> None:
        """Its first prompt token is about to be computed."""
        submit = run.submit
        run.started_s = start_s
        run.due_s = start_s + len(submit.tokens) * self.prompt_token_s
        self.events.append(Started(submit.job, submit.attempt, submit.n_prompt, 0))

    def _leave_prompts(self, run: _Run, end_s: float) -> None:
        """Its prompt is computed, or not wanted any more: the next one's turn."""
        if run not in self.prompts:
            return
        was_first = self.prompts[0] is run
        self.prompts.remove(run)
        if was_first and self.prompts:
            self._start(self.prompts[0], max(end_s, self.prompts[0].joined_s))

    def _advance(self, run: _Run, now_s: float) -> None:
        """One token of one request, or its end."""
        submit, params = run.submit, run.submit.params
        if run.first_s is None:
            if run.started_s is None:
                self._start(run, now_s)
            run.first_s = run.due_s
            # All streams keep one beat, as in an engine that computes them in one step.
            run.due_s -= run.due_s % self.interval_s if self.interval_s else 0.0
            self.prefill_tokens += len(submit.tokens)
            self._leave_prompts(run, run.first_s)
        self._fault(run)
        if run.n_done >= max(run.length, params.min_tokens) and not params.ignore_eos:
            return self._finish(run, FinishReason.STOP)
        token = run.token()
        said = b"%d " % int(now_s * 1e6) if "clock" in run.orders else token_bytes(token)
        text = run.unsent + run.text.feed(said)
        run.unsent = ""
        logprobs = None if params.logprobs is None else [TokenLogprob(token, 0.0, token_bytes(token).decode())]
        self._tell(run, Delta(submit.job, submit.attempt, run.n_done, [token], text, logprobs))
        run.n_done += 1
        run.due_s += self.interval_s
        self.decode_tokens += 1
        if run.text.stopped:
            return self._finish(run, FinishReason.STOP)
        if run.n_done >= params.max_tokens or submit.n_prompt + run.n_done >= self.plan.n_ctx:
            return self._finish(run, FinishReason.LENGTH)
        return None

    def _finish(self, run: _Run, reason: FinishReason) -> None:
        submit = run.submit
        self.running.remove(run)
        assert run.started_s is not None
        assert run.first_s is not None
        now_s = time.monotonic()
        times_ms = (run.first_s - run.started_s) * 1e3, (now_s - run.first_s) * 1e3
        tail, n_computed = run.unsent + run.text.flush(), run.n_computed(now_s, self.prompt_token_s)
        self.events.append(
            Finished(submit.job, submit.attempt, reason, tail, run.n_done, *times_ms, n_computed=n_computed)
        )
        self._fill()

    def _tell(self, run: _Run, delta: Delta) -> None:
        """Of a token; or, where it was so ordered, not as it is."""
        if not run.lies:
            return self.events.append(delta)
        wrong = {lie for lie in run.lies if run.orders[lie] == delta.index}
        if "garble" in wrong:
            delta = msgspec.structs.replace(delta, text=delta.text.swapcase())
        if "swap" in wrong:
            run.later = delta
        elif "skip" not in wrong:
            self.events.append(delta)
            if run.later is not None:
                self.events.append(run.later)
                run.later = None
        if "repeat" in wrong:
            self.events.append(delta)
        if "halt" in wrong:
            run.due_s = math.inf
        return None

    def _fault(self, run: _Run) -> None:
        """Carry out a scripted fault, once: a replayed request has tokens already and is spared."""
        if run.n_first == 0 and run.orders.get("crash") == run.n_done:
            os.abort()
        while run.n_first == 0 and run.orders.get("hang") == run.n_done:
            time.sleep(3600)


def load(
    plan: LoadPlan, progress: Callable[[float], None], shelf: Shelf | None = None
) -> FakeEngine | FakeEmbedder | FakeInferrer:
    """Takes `plan.fake_load_s`, in a hundred steps."""
    _wait(plan, progress)
    texts = FakeEmbedder(plan, N_VOCAB) if plan.pooling else None
    if plan.path.endswith(ONNX_SUFFIX) and plan.task != "generate":
        return FakeInferrer(plan, shelf, texts)
    return texts or FakeEngine(plan)


def _wait(plan: LoadPlan, progress: Callable[[float], None]) -> None:
    for percent in range(100):
        progress(percent / 100)
        if plan.fake_load_s:
            time.sleep(plan.fake_load_s / 100)
    progress(1.0)
