"""Tensors and texts over ONNX Runtime: a session, a window in which requests meet, and calls with several of them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from ..blob import Blob
from ..messages import Call, Embed, Inferred, Ready, WorkerStats
from .arrays import from_array, to_arrays
from .calls import BrokenOff, Caller
from .orders import Run
from .session import InputRefused
from .window import Item, Window

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from ..facts import LoadPlan
    from ..messages import Event, Infer, Submit, Tensor
    from ..shelf import Shelf
    from .session import Session
    from .shape import Shape
    from .texts import Texts

    Array = npt.NDArray[Any]

MAX_OUTPUT_BYTES = 63 * 2**20  # of one request: messages of the daemon have at most 64 MiB
NAP_S = 0.0005  # while a request waits for company


class OnnxEngine:
    """One session, one thread; keeps the promises of `Embedder` and `Inferrer` in ../engine.py.

    `shape`: which axes of its tensors are free. `texts`: how the model reads texts; None: it takes only tensors.
    """

    def __init__(
        self, plan: LoadPlan, session: Session, shape: Shape, texts: Texts | None, shelf: Shelf | None, load_ms: float
    ) -> None:
        self._plan, self._session, self._shape, self._texts, self._shelf = plan, session, shape, texts, shelf
        self._window = Window(plan.batching)
        self._caller = Caller(session)
        self._runs: dict[tuple[str, int], Run] = {}
        self._events: list[Event] = []
        self._n_tokens = self._steps = 0
        self._step_ms = 0.0
        device = session.provider.removesuffix("ExecutionProvider")
        self.ready = Ready(plan.n_ctx, plan.n_slots, 0, 0, device=device, load_ms=load_ms, buffers={})

    # the promise

    def submit(self, submit: Submit) -> None:
        raise AssertionError("this model generates no text")

    def embed(self, order: Embed) -> None:
        assert self._texts is not None
        run = Run(order, len(order.inputs), sum(map(len, order.inputs)))
        if not order.inputs:
            return run.finish(self._events)
        self._runs[run.name] = run
        for i, tokens in enumerate(order.inputs):
            kind = "text", order.salt, 0 if self._texts.pads else len(tokens)
            self._add(run, i, 1, kind, len(tokens))
        return None

    def infer(self, order: Infer, data: Blob) -> None:
        run = Run(order, 1, self._shape.n_tokens(order.inputs), data)
        try:
            run.arrays = to_arrays(order.inputs, data.view())
        except ValueError as error:
            return run.finish(self._events, str(error), "inputs")
        self._runs[run.name] = run
        n_rows, length = self._shape.n_rows(order.inputs), self._shape.length(order.inputs)
        return self._add(run, 0, n_rows, self._shape.kind(order), length)

    def cancel(self, job: str, attempt: int) -> None:
        run = self._runs.pop((job, attempt), None)
        if run is not None:
            self._window.remove(run)
            run.stop(self._events)

    def use_threads(self, n_threads: int) -> None:
        """A session keeps the threads that it was made with."""

    def step(self, listen: Callable[[], bool] | None = None) -> list[Event]:
        items = self._choose(listen)
        if items:
            start_s = time.perf_counter()
            self._compute(items, listen)
            self._steps += 1
            self._step_ms = (time.perf_counter() - start_s) * 1e3
        events, self._events = self._events, []
        return events

    def busy(self) -> bool:
        return bool(self._runs or self._events)

    def stats(self) -> WorkerStats:
        counts = (len(self._runs), 0, 0, self._n_tokens, 0, self._steps)
        return WorkerStats(*counts, step_ms=self._step_ms, rss_bytes=0)  # the worker loop knows that one

    def close(self) -> None:
        for run in self._runs.values():
            run.close()
        self._caller.close()

    # which of them

    def _add(self, run: Run, part: int, n_rows: int, kind: Any, length: int) -> None:
        order = run.order
        item = Item(run, n_rows, kind, part, length, order.rank, order.due_s or float("inf"), time.monotonic())
        self._window.add(item)

    def _choose(self, listen: Callable[[], bool] | None) -> list[Item]:
        """The items of the next call; waits for company where the plan says so, but not with something to tell."""
        while True:
            items, until_s = self._window.choose(time.monotonic())
            if items or self._events or not len(self._window):
                return items
            time.sleep(min(NAP_S, max(0.0, until_s - time.monotonic())))
            if listen is not None and listen():
                return []

    # one call

    def _compute(self, items: Sequence[Item], listen: Callable[[], bool] | None) -> None:
        """What several requests wait for, in one call; where it fails, each alone, so that only its cause fails."""
        runs: list[Run] = [item.owner for item in items]
        start_s = time.perf_counter()
        for run in runs:
            run.start(start_s, self._events)
        try:
            self._call(items, start_s, listen)
        except InputRefused as error:
            if len(items) == 1:
                return self._fail(runs[0], str(error))
            for item in items:
                if not item.owner.over:
                    self._compute([item], listen)
        except BrokenOff:
            for item in items:
                if not item.owner.over:  # the worker is to end; or others of the call were cancelled
                    self._window.add(item)
        return None

    def _call(self, items: Sequence[Item], start_s: float, listen: Callable[[], bool] | None) -> None:
        lead, n_rows = items[0], sum(item.n_rows for item in items)
        feeds, names = self._feeds(items)
        feed_s = time.perf_counter()

        def unwanted() -> bool:
            assert listen is not None
            return listen() or all(item.owner.over for item in items)

        expected_ms = self._window.costs.expected_ms(lead.bucket, n_rows)
        outputs = self._caller.call(feeds, names, None if listen is None else unwanted, expected_ms)
        end_s = time.perf_counter()
        self._window.costs.note(lead.bucket, n_rows, (end_s - feed_s) * 1e3)
        times_ms = (feed_s - start_s) * 1e3, (end_s - feed_s) * 1e3
        if isinstance(lead.owner.order, Embed):
            self._tell_texts(items, outputs[0], times_ms)
        else:
            self._tell_tensors(items, dict(zip(names, outputs, strict=True)), n_rows, times_ms)

    def _feeds(self, items: Sequence[Item]) -> tuple[dict[str, Array], list[str]]:
        """The inputs of a call, and the outputs that are wanted of it."""
        order = items[0].owner.order
        if isinstance(order, Embed):
            assert self._texts is not None
            tokens = [item.owner.order.inputs[item.part] for item in items]
            seconds = [item.owner.order.seconds[item.part] if item.owner.order.seconds else 0 for item in items]
            return self._texts.feeds(tokens, seconds), [self._texts.output]
        feeds = self._shape.join([item.owner.arrays for item in items], self._texts.pad if self._texts else 0)
        return feeds, list(order.outputs) or [port.name for port in self._session.outputs if port.datatype]

    def _tell_texts(self, items: Sequence[Item], output: Array, times_ms: tuple[float, float]) -> None:
        assert self._texts is not None
        start_s = time.perf_counter()
        vectors = self._texts.vectors(output, [item.length for item in items])
        counts = True
        for run in dict.fromkeys(item.owner for item in items):
            if run.over:
                continue
            order = run.order
            for item, vector in zip(items, vectors, strict=True):
                if item.owner is run:
                    run.vectors[item.part] = self._texts.finish(
                        vector, normalize=order.normalize, dimensions=order.dimensions
                    )
                    run.n_computed += item.length
                    self._n_tokens += item.length
            output_ms = (time.perf_counter() - start_s) * 1e3
            run.tell(Call(len(items), counts, *times_ms, output_ms), self._events)
            counts = False
            if run.n_told == run.n_items:
                self._end(run)

    def _tell_tensors(
        self, items: Sequence[Item], outputs: dict[str, Array], n_rows: int, times_ms: tuple[float, float]
    ) -> None:
        first, counts = 0, True
        for item in items:
            run: Run = item.owner
            start_s = time.perf_counter()
            alone = len(items) == 1
            parts = {
                name: array if alone else self._shape.part(name, array, first, item.n_rows, item.length)
                for name, array in outputs.items()
            }
            first += item.n_rows
            if run.over:
                continue
            try:
                tensors, blob = _packed(parts)
            except (ValueError, OSError) as error:
                self._fail(run, str(error) if isinstance(error, ValueError) else "no memory for the outputs")
                continue
            run.n_computed += run.n_tokens
            self._n_tokens += run.n_tokens
            if self._shelf is not None:
                self._shelf.send_blob(blob)
            call = Call(n_rows, counts, *times_ms, (time.perf_counter() - start_s) * 1e3)
            counts = False
            self._events.append(Inferred(*run.name, tensors, blob.data, call))
            blob.close()
            self._end(run)

    def _end(self, run: Run) -> None:
        del self._runs[run.name]
        run.finish(self._events)

    def _fail(self, run: Run, error: str) -> None:
        self._window.remove(run)
        del self._runs[run.name]
        run.finish(self._events, error, "inputs")


def _packed(outputs: dict[str, Array]) -> tuple[list[Tensor], Blob]:
    """What crosses the wall. Raises ValueError for outputs that are too large or cannot be sent, and OSError."""
    if (n_bytes := sum(array.nbytes for array in outputs.values())) > MAX_OUTPUT_BYTES:
        raise ValueError(f"the outputs have {n_bytes:,} bytes, at most {MAX_OUTPUT_BYTES:,} are allowed")
    packed = [from_array(name, array) for name, array in outputs.items()]
    return [tensor for tensor, _ in packed], Blob.of([data for _, data in packed])
