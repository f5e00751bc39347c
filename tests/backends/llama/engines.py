"""Helpers to drive a real engine in tests."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from inferd.backends.facts import LoadPlan
from inferd.backends.messages import Delta, Finished, SamplingParams, Started, Stopped, Submit

if TYPE_CHECKING:
    from pathlib import Path

    from inferd.backends.llama.engine import LlamaEngine
    from inferd.backends.messages import Event


def plan(path: Path, **changes: Any) -> LoadPlan:
    given: dict[str, Any] = {"n_ctx": 512, "n_slots": 4, "kv_cells": 2048, "n_threads": 1, **changes}
    return LoadPlan(backend="llama", path=str(path), **given)


def submit(
    job: str, tokens: list[int], n_prompt: int | None = None, *, rank: int = 0, sent_bytes: int = 0, **params: Any
) -> Submit:
    given: dict[str, Any] = {"max_tokens": 8, "ignore_eos": True, **params}
    n_prompt = len(tokens) if n_prompt is None else n_prompt
    return Submit(job, 1, tokens, n_prompt, SamplingParams(**given), rank=rank, sent_bytes=sent_bytes)


@dataclass
class Heard:
    """All that came for one job."""

    events: list[Event] = field(default_factory=list)

    @property
    def tokens(self) -> list[int]:
        return [token for event in self.events if isinstance(event, Delta) for token in event.tokens]

    @property
    def text(self) -> str:
        return "".join(event.text for event in self.events if isinstance(event, Delta | Finished))

    @property
    def kinds(self) -> list[str]:
        return [type(event).__name__ for event in self.events]

    @property
    def end(self) -> Finished | Stopped:
        (end,) = (event for event in self.events if isinstance(event, Finished | Stopped))
        assert end is self.events[-1]
        return end

    @property
    def started(self) -> Started:
        (started,) = (event for event in self.events if isinstance(event, Started))
        return started


def hear(engine: LlamaEngine, heard: dict[str, Heard], n_steps: int = 10_000) -> dict[str, Heard]:
    """Step until nothing is left to do, at most `n_steps`."""
    for _ in range(n_steps):
        if not engine.busy():
            break
        for event in engine.step():
            heard.setdefault(event.job, Heard()).events.append(event)
    return heard


def run(engine: LlamaEngine, *submits: Submit) -> dict[str, Heard]:
    """Everything about these requests, given at once."""
    for request in submits:
        engine.submit(request)
    return hear(engine, {})
