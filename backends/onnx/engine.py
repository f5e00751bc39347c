"""Tensors and texts over ONNX Runtime: a session, a window in which requests meet, and calls with several of them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from ..blob import Blob
from ..messages import Call as Part
from ..messages import Embed, Inferred, Ready, WorkerStats
from .arrays import from_array, to_arrays
from .choice import Choice
from .lanes import Call, Lanes
from .orders import Run
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
NO_MEMORY = "there is not enough memory for these inputs"
SHORT_MS = 1.0  # a shorter call is not handed over to another thread


class OnnxEngine:
    """One graph; keeps the promises of `Embedder` and `Inferrer` in ../engine.py.

    `wide`: a session with all threads; `narrow`: one with a single thread, of which several calls run side by side;
    None: they run one after another. `shape`: which axes of its tensors are free. `texts`: how the model reads texts;
    None: it takes only tensors. `loops`: values, not only sizes, may say how long a call takes.
    """

    def __init__(
        self,
        plan: LoadPlan,
        wide: Session,
        narrow: Session | None,
        shape: Shape,
        texts: Texts | None,
        shelf: Shelf | None,
        load_ms: float,
        *,
        loops: bool = False,
    ) -> None:
        self._plan, self._wide, self._narrow = plan, wide, narrow
        self._shape, self._texts, self._shelf = shape, texts, shelf
        self._window = Window(plan.batching)
        self._lanes = Lanes(1 if narrow is None else plan.n_lanes)
        self._choice = Choice(max(1, plan.batching.max_batch_size), has_narrow=narrow is not None)
        self._runs: dict[tuple[str, int], Run] = {}
        self._events: list[Event] = []
        self._n_tokens = self._steps = 0
        self._step_ms = 0.0
        self._short_bytes = -1 if loops else 0  # inputs of so many were computed in a short call; -1: that says nothing
        self.wake_fd = self._lanes.wake_fd
        device = wide.provider.removesuffix("ExecutionProvider")
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
            self._add(run, i, 1, self._texts.kind(order.salt, len(tokens)), len(tokens))
        return None

    def infer(self, order: Infer, data: Blob) -> None:
        run = Run(order, 1, self._shape.n_tokens(order.inputs), data)
        try:
            run.arrays = to_arrays(order.inputs, data.view())
        except ValueError as error:
            return run.finish(self._events, str(error), "inputs")
        except (MemoryError, OSError):
            return run.finish(self._events, NO_MEMORY, "inputs")
        self._runs[run.name] = run
        n_rows, length = self._shape.n_rows(order.inputs), self._shape.length(order.inputs)
        return self._add(run, 0, n_rows, self._shape.kind(order), length)

    def cancel(self, job: str, attempt: int) -> None:
        run = self._runs.pop((job, attempt), None)
        if run is None:
            return
        self._window.remove(run)
        run.stop(self._events)
        for call in self._lanes.running:
            if all(item.owner.over for item in call.items):
                call.break_off()

    def use_threads(self, n_threads: int) -> None:
        """So many calls of one thread at a time; one that has all of them keeps them."""
        if self._narrow is not None:
            self._lanes.n = max(1, min(n_threads, self._plan.n_lanes))

    def step(self, listen: Callable[[], bool] | None = None) -> list[Event]:
        for call in self._lanes.done():
            self._settle(call)
        self._begin(listen)
        events, self._events = self._events, []
        return events

    def busy(self) -> bool:
        """Calls that run beside us wake us."""
        return bool(self._events) or self._lanes.has_done or bool(len(self._window) and self._lanes.n_free)

    def stats(self) -> WorkerStats:
        counts = (len(self._runs), 0, 0, self._n_tokens, 0, self._steps)
        return WorkerStats(*counts, step_ms=self._step_ms, rss_bytes=0)  # the worker loop knows that one

    def close(self) -> None:
        for run in self._runs.values():
            run.close()
        self._lanes.close()

    # which of them

    def _add(self, run: Run, part: int, n_rows: int, kind: Any, length: int) -> None:
        order = run.order
        item = Item(run, n_rows, kind, part, length, order.rank, order.due_s or float("inf"), time.monotonic())
        self._window.add(item)

    def _begin(self, listen: Callable[[], bool] | None) -> None:
        """Calls in all free lanes; waits for company where the plan says so, while there is nothing else to do."""
        while (n_free := self._lanes.n_free) and (mates := self._window.mates()):
            n_rows = sum(item.n_rows for item in mates)
            wide = not self._lanes.running and self._choice.goes_wide(mates[0].bucket, n_rows, self._lanes.n)
            costs = self._choice.costs(wide=wide)
            items, until_s = self._window.choose(mates, time.monotonic(), costs, 1 if wide else n_free)
            if items:
                self._start(items, wide=wide)
            elif self._events or self._lanes.has_done:
                return
            else:
                time.sleep(min(NAP_S, max(0.0, until_s - time.monotonic())))
                if listen is not None and listen():
                    return

    # one call

    def _start(self, items: Sequence[Item], *, wide: bool) -> None:
        start_s = time.perf_counter()
        for item in items:
            item.owner.start(start_s, self._events)
        session = self._wide if wide or self._narrow is None else self._narrow
        try:
            feeds, names = self._feeds(items)
        except MemoryError:
            return self._settle(Call(items, session, {}, [], wide, 0.0, refusal=NO_MEMORY))
        call = Call(items, session, feeds, names, wide, (time.perf_counter() - start_s) * 1e3)
        if self._is_short(call) and not self._lanes.running:
            return self._settle(self._lanes.run(call))
        return self._lanes.start(call)

    def _is_short(self, call: Call) -> bool:
        """Nobody is heard meanwhile, so that must be known of calls as large as this one."""
        expected_ms = self._choice.costs(wide=call.wide).expected_ms(call.items[0].bucket, call.n_rows)
        return expected_ms is not None and expected_ms < SHORT_MS and call.n_bytes <= self._short_bytes

    def _settle(self, call: Call) -> None:
        """What several requests wait for in one call is told; where it failed each tries alone, as one is the cause."""
        items = call.items
        self._steps += 1
        self._step_ms = call.infer_ms
        if call.refusal and len(items) == 1 and not call.broken_off:
            if not items[0].owner.over:
                self._fail(items[0].owner, call.refusal)
        elif call.refusal:
            for item in items:
                if not item.owner.over:
                    item.kind = object()
                    self._window.add(item)
        else:
            self._choice.costs(wide=call.wide).note(items[0].bucket, call.n_rows, call.infer_ms)
            if self._short_bytes >= 0 and call.infer_ms < SHORT_MS:
                self._short_bytes = max(self._short_bytes, call.n_bytes)
            if isinstance(items[0].owner.order, Embed):
                self._tell_texts(call)
            else:
                self._tell_tensors(call)

    def _feeds(self, items: Sequence[Item]) -> tuple[dict[str, Array], list[str]]:
        """The inputs of a call, and the outputs that are wanted of it."""
        order = items[0].owner.order
        if isinstance(order, Embed):
            assert self._texts is not None
            tokens = [item.owner.order.inputs[item.part] for item in items]
            seconds = [item.owner.order.seconds[item.part] if item.owner.order.seconds else 0 for item in items]
            return self._texts.feeds(tokens, seconds), [self._texts.output]
        feeds = self._shape.join([item.owner.arrays for item in items], self._texts.pad if self._texts else 0)
        return feeds, list(order.outputs) or [port.name for port in self._wide.outputs if port.datatype]

    def _tell_texts(self, call: Call) -> None:
        assert self._texts is not None
        items, start_s = call.items, time.perf_counter()
        vectors = self._texts.vectors(call.outputs[0], [item.length for item in items])
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
            run.tell(Part(call.n_rows, counts, call.input_ms, call.infer_ms, output_ms), self._events)
            counts = False
            if run.n_told == run.n_items:
                self._end(run)

    def _tell_tensors(self, call: Call) -> None:
        items, outputs = call.items, dict(zip(call.names, call.outputs, strict=True))
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
            except (ValueError, MemoryError, OSError) as error:
                self._fail(run, str(error) if isinstance(error, ValueError) else "no memory for the outputs")
                continue
            run.n_computed += run.n_tokens
            self._n_tokens += run.n_tokens
            if self._shelf is not None:
                self._shelf.send_blob(blob)
            output_ms = (time.perf_counter() - start_s) * 1e3
            part = Part(call.n_rows, counts, call.input_ms, call.infer_ms, output_ms)
            counts = False
            self._events.append(Inferred(*run.name, tensors, blob.data, part))
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
    """What crosses the wall. Raises ValueError for what is too large or cannot be sent, and MemoryError or OSError."""
    _check_total(sum(array.nbytes for array in outputs.values()))
    packed = [from_array(name, array) for name, array in outputs.items()]
    _check_total(sum(tensor.n_bytes for tensor, _ in packed))  # an array of strings does not tell how long they are
    return [tensor for tensor, _ in packed], Blob.of([data for _, data in packed])


def _check_total(n_bytes: int) -> None:
    if n_bytes > MAX_OUTPUT_BYTES:
        raise ValueError(f"the outputs have {n_bytes:,} bytes, at most {MAX_OUTPUT_BYTES:,} are allowed")
