"""The promise every engine keeps towards the worker loop. One thread calls it; nothing here is concurrent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Callable

    from .blob import Blob
    from .facts import LoadPlan
    from .messages import Embed, Event, Infer, Ready, Submit, WorkerStats
    from .shelf import Shelf

LoadErrorCode = Literal["corrupt", "memory", "unsupported", "sandbox", "error"]


class LoadError(Exception):
    """The model cannot be served; `code` is one of LoadFailed's, the message is fit for a client."""

    def __init__(self, code: LoadErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code


class GrammarError(Exception):
    """Nothing can be made of the form that an answer is to have; the message is fit for a client."""

    def __init__(self, message: str, code: Literal["grammar", "unsupported"] = "grammar", field: str = "") -> None:
        super().__init__(message)
        self.field = field  # of the request, where it is known
        self.code: Literal["grammar", "unsupported"] = code


class Engine(Protocol):
    """A loaded model that computes requests side by side.

    - `submit` never blocks and never fails: a request that cannot run comes back as Finished(ERROR) from `step`.
      At most `n_slots` requests run; others wait inside, for a slot or for their grammar to be compiled.
    - `cancel` is answered by a Stopped event in the next `step`; it is safe for unknown or finished jobs (no event).
    - `step` does one unit of work (at most one prefill chunk beside one token of every running request) and returns
      what happened, in order; an idle engine returns []. While that takes long it may call `listen` now and then, which
      hands over what came meanwhile (by `submit` and `cancel`) and returns True when the worker is to end.
    - `use_threads` may come at any time and holds from the next `step` on.
    - Nothing it raises is expected: an exception ends the worker.
    """

    ready: Ready
    wake_fd: int  # can be read when there is something to do though no message came; -1: there never is

    def submit(self, submit: Submit) -> None: ...

    def cancel(self, job: str, attempt: int) -> None: ...

    def use_threads(self, n_threads: int) -> None: ...

    def step(self, listen: Callable[[], bool] | None = None) -> list[Event]: ...

    def busy(self) -> bool:
        """True while `step` has something to do."""

    def stats(self) -> WorkerStats: ...

    def close(self) -> None: ...


@runtime_checkable
class Embedder(Engine, Protocol):
    """An engine whose plan has a pooling: it makes vectors of texts, and is never given a `Submit`.

    Inputs of one order come back in order, as Embedded events; they are computed beside those of others, and their
    vectors do not depend on that beyond the last bits.
    """

    def embed(self, order: Embed) -> None:
        """Like `submit`: never blocks, never fails."""


@runtime_checkable
class Inferrer(Engine, Protocol):
    """An engine that makes tensors of tensors: each order becomes one Inferred and one Finished.

    Names, shapes and types of its inputs are those of the model, and their bytes as many as the shapes say.
    """

    def infer(self, order: Infer, data: Blob) -> None:
        """Like `submit`: never blocks, never fails. The blob is the engine's, and its file never changes."""


if TYPE_CHECKING:
    # What modules in `worker.ENGINES` export as `load`: an engine for the plan's task; `progress` takes 0..1, `shelf`
    # is for files that go to the daemon. Raises LoadError.
    Loader = Callable[[LoadPlan, Callable[[float], None], Shelf | None], Engine]
