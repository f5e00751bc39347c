"""One model of the catalog and where it is in its life (owned by the Node)."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from .errors import Code, InferdError

if TYPE_CHECKING:
    from ...backends.facts import LoadPlan, ModelFacts
    from ...backends.messages import Ready, WorkerStats
    from .request import Request


class ModelState(Enum):
    COLD = "cold"
    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"  # finishes what runs, takes nothing new, then goes cold
    FAILED = "failed"  # in back-off


NEXT: dict[ModelState, set[ModelState]] = {
    ModelState.COLD: {ModelState.LOADING},
    ModelState.LOADING: {ModelState.READY, ModelState.FAILED, ModelState.DRAINING},
    ModelState.READY: {ModelState.DRAINING, ModelState.FAILED},
    ModelState.DRAINING: {ModelState.COLD},
    ModelState.FAILED: {ModelState.COLD},
}


@dataclass(slots=True, eq=False)
class Model:
    name: str
    facts: ModelFacts
    plan: LoadPlan
    keep_alive_s: float  # idle time after which it is unloaded; negative is never
    state: ModelState = ModelState.COLD
    ready: Ready | None = None
    stats: WorkerStats | None = None
    pid: int | None = None
    load_progress: float = 0.0
    load_started_s: float = 0.0
    load_ms: float = 0.0
    failures: int = 0  # in a row, without a token produced in between
    retry_at_s: float = 0.0  # end of the back-off while FAILED
    error: str = ""
    booked_bytes: int = 0
    produced: bool = field(default=False)  # a token came since this load

    def move(self, to: ModelState) -> None:
        """Take one step of NEXT; anything else is our bug."""
        if to not in NEXT[self.state]:
            raise AssertionError(f"{self.name}: {self.state.value} -> {to.value}")
        self.state = to


def check_adapter(request: Request, model: Model) -> None:
    """A LoRA adapter must be one of the model's. Raises InferdError naming those."""
    names = [adapter.name for adapter in model.plan.adapters]
    if request.lora and request.lora not in names:
        has = f"its adapters are {', '.join(names)}" if names else "it has none"
        raise InferdError(Code.NOT_FOUND, f"{model.name} has no adapter {request.lora!r}; {has}", field="lora")


def check_fits(request: Request, n_prompt: int, model: Model) -> None:
    """The prompt and what it asks for must fit one context. Raises InferdError naming both numbers."""
    n_ctx = model.plan.n_ctx
    if n_prompt == 0:
        raise InferdError(Code.INVALID, "the prompt is empty", field="prompt")
    if n_prompt >= n_ctx:
        message = f"the prompt has {n_prompt:,} tokens, but {model.name} has a context of {n_ctx:,}"
        raise InferdError(Code.PROMPT_TOO_LONG, message, field="prompt", prompt_tokens=n_prompt, context_tokens=n_ctx)
    if request.max_tokens is not None and request.max_tokens > n_ctx:
        message = f"max_tokens is {request.max_tokens:,}, but {model.name} has a context of {n_ctx:,}"
        raise InferdError(Code.INVALID, message, field="max_tokens", highest=n_ctx)
