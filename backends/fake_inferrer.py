"""The fake engine's third side: tensors without weights, for models that are given such.

Every output is zeros of its type: free axes have the size of the first input's same axis, else 1. With
`fake_prefill_tokens_per_s` rows cost time, one request after another. A tensor that holds the text `fake:crash` ends
the process in a request's first attempt.
"""

from __future__ import annotations

import os
import time
from collections import deque
from typing import TYPE_CHECKING

from .blob import Blob
from .kinds import read_facts
from .messages import Call, Finished, FinishReason, Inferred, Ready, Started, Stopped, Tensor, WorkerStats
from .tensors import ELEMENT_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

    from .facts import LoadPlan, TensorFacts
    from .fake_embedder import FakeEmbedder
    from .messages import Embed, Event, Infer, Submit
    from .shelf import Shelf

NAP_S = 0.002  # longest sleep in a step, so that a cancel is heard soon


class FakeInferrer:
    """Keeps the promise of `Inferrer` in engine.py; `texts` that of `Embedder`, for models that read such, too."""

    wake_fd = -1

    def __init__(self, plan: LoadPlan, shelf: Shelf | None, texts: FakeEmbedder | None = None) -> None:
        self.texts = texts
        self.row_s = 1 / plan.fake_prefill_tokens_per_s if plan.fake_prefill_tokens_per_s else 0.0
        self.ports = {port.name: port for port in read_facts(plan.path).outputs}
        self.shelf = shelf
        self.waiting: deque[Infer] = deque()
        self.events: list[Event] = []
        self.due_s: float | None = None  # of the first that waits
        self.rows = self.steps = 0
        self.ready = Ready(plan.n_ctx, plan.n_slots, 0, 0, "fake", 0.0, {})

    def submit(self, submit: Submit) -> None:
        raise AssertionError("a model that takes tensors generates no text")

    def embed(self, order: Embed) -> None:
        assert self.texts is not None
        self.texts.embed(order)

    def infer(self, order: Infer, data: Blob) -> None:
        if order.attempt == 1 and b"fake:crash" in data.view().tobytes():
            os.abort()
        data.close()
        self.waiting.append(order)

    def cancel(self, job: str, attempt: int) -> None:
        if self.texts is not None:
            self.texts.cancel(job, attempt)
        for order in self.waiting:
            if (order.job, order.attempt) == (job, attempt):
                if order is self.waiting[0]:
                    self.due_s = None
                self.waiting.remove(order)
                self.events.append(Stopped(job, attempt, 0))
                return

    def use_threads(self, n_threads: int) -> None:
        """It computes nothing."""

    def step(self, listen: Callable[[], bool] | None = None) -> list[Event]:
        if self.waiting:
            self._advance(self.waiting[0], time.monotonic())
        events, self.events = self.events, []
        return events + self.texts.step() if self.texts is not None else events

    def busy(self) -> bool:
        return bool(self.waiting or self.events or (self.texts is not None and self.texts.busy()))

    def stats(self) -> WorkerStats:
        return WorkerStats(len(self.waiting), 0, 0, self.rows, 0, self.steps, step_ms=0.0, rss_bytes=0)

    def close(self) -> None:
        self.waiting.clear()

    def _advance(self, order: Infer, now_s: float) -> None:
        n_rows = max((tensor.shape[0] for tensor in order.inputs if tensor.shape), default=1)
        if self.due_s is None:
            self.due_s = now_s + n_rows * self.row_s
            self.events.append(Started(order.job, order.attempt, n_rows, 0))
        if self.due_s > now_s:
            return time.sleep(min(NAP_S, self.due_s - now_s))
        self.waiting.popleft()
        self.due_s = None
        self.rows, self.steps = self.rows + n_rows, self.steps + 1
        return self._tell(order, n_rows)

    def _tell(self, order: Infer, n_rows: int) -> None:
        sizes = order.inputs[0].shape if order.inputs else []
        outputs = [_zeros(self.ports[name], sizes) for name in order.outputs or self.ports]
        blob = Blob.of([b"\0" * tensor.n_bytes for tensor in outputs])
        if self.shelf is not None:
            self.shelf.send_blob(blob)
        took_ms = n_rows * self.row_s * 1e3
        call = Call(n_rows, True, 0.0, took_ms, 0.0)
        self.events.append(Inferred(order.job, order.attempt, outputs, blob.data, call))
        self.events.append(
            Finished(order.job, order.attempt, FinishReason.STOP, "", 0, took_ms, 0.0, n_computed=n_rows)
        )
        blob.close()


def _zeros(port: TensorFacts, sizes: list[int]) -> Tensor:
    shape = [(sizes[i] if i < len(sizes) else 1) if size < 0 else size for i, size in enumerate(port.shape or (1,))]
    n = 1
    for size in shape:
        n *= size
    # An empty string is its length, which is zero.
    return Tensor(port.name, port.datatype, shape, n * (ELEMENT_BYTES[port.datatype] or 4))
