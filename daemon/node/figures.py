"""What each model has computed, in the figures of Triton's statistics: counts and times that only grow."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..domain.request import Phase

if TYPE_CHECKING:
    from ...backends.messages import Call
    from ..domain.request import Job


MAX_SIZES = 1024  # of calls that are told apart; rows of one value each come in any number


@dataclass(slots=True)
class Duration:
    """So many, which took so long together."""

    count: int = 0
    ns: int = 0

    def add(self, ms: float) -> None:
        self.count += 1
        self.ns += max(0, round(ms * 1e6))


@dataclass(slots=True)
class Compute:
    input: Duration = field(default_factory=Duration)
    infer: Duration = field(default_factory=Duration)
    output: Duration = field(default_factory=Duration)

    def add(self, input_ms: float, infer_ms: float, output_ms: float) -> None:
        self.input.add(input_ms)
        self.infer.add(infer_ms)
        self.output.add(output_ms)


@dataclass(slots=True)
class ModelStatistics:
    last_inference_ms: int = 0  # since 1970
    inference_count: int = 0  # rows
    execution_count: int = 0  # calls of the engine
    success: Duration = field(default_factory=Duration)
    fail: Duration = field(default_factory=Duration)
    queue: Duration = field(default_factory=Duration)
    compute: Compute = field(default_factory=Compute)
    by_rows: dict[int, Compute] = field(default_factory=dict)  # rows of a call -> those calls


class Statistics:
    """By the name of the model; a model that was never used has zeros."""

    def __init__(self) -> None:
        self._models: dict[str, ModelStatistics] = {}

    def of(self, name: str) -> ModelStatistics:
        return self._models.get(name) or ModelStatistics()

    def on_call(self, name: str, call: Call | None, *, wanted: bool = True) -> None:
        """A request has had a part in a call; the call itself is counted once, also when who counts it has left."""
        if call is None:
            return
        model = self._model(name)
        times = call.input_ms, call.infer_ms, call.output_ms
        if wanted:
            model.compute.add(*times)
        if call.counts:
            model.execution_count += 1
            if call.n_rows in model.by_rows or len(model.by_rows) < MAX_SIZES:
                model.by_rows.setdefault(call.n_rows, Compute()).add(*times)

    def on_over(self, job: Job) -> None:
        """A request has ended, one way or the other."""
        model, now_s = self._model(job.request.model), time.monotonic()
        took_ms = (now_s - job.arrived_s) * 1e3
        if job.phase is not Phase.DONE:
            return model.fail.add(took_ms)
        model.success.add(took_ms)
        started_s = job.arrived_s if job.started_s is None else job.started_s
        model.queue.add((started_s - job.arrived_s) * 1e3)
        model.inference_count += n_rows(job)
        model.last_inference_ms = round(time.time() * 1e3)
        if job.request.generates:
            model.execution_count += 1
            model.compute.add(0.0, job.prefill_ms + job.decode_ms, 0.0)
        return None

    def _model(self, name: str) -> ModelStatistics:
        return self._models.setdefault(name, ModelStatistics())


def n_rows(job: Job) -> int:
    """What the request counts as: the rows of its tensors, its inputs, or one text."""
    if job.request.tensors is not None:
        return job.request.tensors.n_rows
    return len(job.request.inputs.items) if job.request.inputs is not None else 1
