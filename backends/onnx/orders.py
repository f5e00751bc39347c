"""What an engine of tensors was asked for, and how far each order has come."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..messages import Embed, Embedded, Finished, FinishReason, Infer, Started, Stopped

if TYPE_CHECKING:
    import numpy.typing as npt

    from ..blob import Blob
    from ..messages import Call, Event

    Array = npt.NDArray[Any]


@dataclass(slots=True, eq=False)
class Run:
    """One order while it is computed."""

    order: Embed | Infer
    n_items: int  # what it goes into calls as: its inputs, or the one request for tensors
    n_tokens: int  # of all that it asks for
    blob: Blob | None = None  # its tensors
    arrays: dict[str, Array] = field(default_factory=dict)  # views of the blob
    vectors: dict[int, bytes] = field(default_factory=dict)  # of inputs that were computed before those ahead of them
    n_told: int = 0
    n_computed: int = 0  # tokens
    started_s: float | None = None
    over: bool = False  # cancelled, or failed

    @property
    def name(self) -> tuple[str, int]:
        return self.order.job, self.order.attempt

    def start(self, now_s: float, events: list[Event]) -> None:
        """Its first part is about to be computed; said once."""
        if self.started_s is None:
            self.started_s = now_s
            known = self.order.known_tokens if isinstance(self.order, Embed) else 0
            events.append(Started(*self.name, self.n_tokens + known, known))

    def tell(self, call: Call, events: list[Event]) -> None:
        """The vectors that are next in order, as many as there are."""
        ready = []
        while (vector := self.vectors.pop(self.n_told, None)) is not None:
            ready.append(vector)
            self.n_told += 1
        events.append(Embedded(*self.name, len(ready), b"".join(ready), call))

    def finish(self, events: list[Event], error: str = "", error_field: str = "") -> None:
        """It is computed, or never will be."""
        now_s = time.perf_counter()
        self.start(now_s, events)
        took_ms = (now_s - (self.started_s or now_s)) * 1e3
        reason = FinishReason.ERROR if error else FinishReason.STOP
        counts = {"n_computed": self.n_computed, "error": error, "error_field": error_field}
        events.append(Finished(*self.name, reason, "", 0, took_ms, 0.0, **counts))  # type: ignore[arg-type]
        self.close()

    def stop(self, events: list[Event]) -> None:
        """It was cancelled."""
        events.append(Stopped(*self.name, 0, n_computed=self.n_computed))
        self.close()

    def close(self) -> None:
        self.over = True
        self.arrays = {}
        if self.blob is not None:
            self.blob.close()
            self.blob = None
