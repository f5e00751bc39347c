"""Helpers to drive a real engine in tests."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from inferd.backends.facts import LoadPlan
from inferd.backends.messages import Delta, Finished, SamplingParams, Started, Stopped, Submit

if TYPE_CHECKING:
    import random
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


@dataclass
class Client:
    """Keeps requests alive through parks and cancels as a daemon does, and checks every frame that comes."""

    engine: LlamaEngine
    draw: random.Random
    running: dict[str, Job] = field(default_factory=dict)
    parked: list[Job] = field(default_factory=list)
    finished: list[Job] = field(default_factory=list)
    n_made: int = 0
    prompts: list[list[int]] = field(default_factory=list)  # what requests begin with

    def turn(self) -> None:
        """Perhaps give something, perhaps cancel something, then step."""
        while len(self.running) <= self.engine.ready.n_slots and self.draw.random() < 0.7:
            job = self.parked.pop(0) if self.parked and self.draw.random() < 0.8 else self._new()
            self.running[job.name] = job
            self.engine.submit(job.submit())
        if self.running and self.draw.random() < 0.05:
            job = self.draw.choice([*self.running.values()])
            self.engine.cancel(job.name, job.attempt)
        for event in self.engine.step():
            self._on(event)

    def _on(self, event: Event) -> None:
        job = self.running[event.job]
        assert event.attempt == job.attempt
        match event:
            case Delta():
                assert event.index == job.n_completion
                job.tokens += event.tokens
                job.text += event.text
            case Stopped():
                assert event.n_tokens == job.n_completion
                job.attempt += 1
                self.parked.append(self.running.pop(event.job))
            case Finished():
                assert (event.error, event.completion_tokens) == ("", job.n_completion)
                job.text += event.text
                self.finished.append(self.running.pop(event.job))

    def _new(self) -> Job:
        self.n_made += 1
        n_prompt = self.draw.choice([1, 3, 63, 64, 65, 100, 128, 200, 300])
        tokens = [self.draw.randrange(500) for _ in range(n_prompt)]
        if self.prompts:
            prompt = self.draw.choice(self.prompts)
            tokens = (prompt[: self.draw.randrange(len(prompt))] + tokens)[: max(n_prompt, 200)]
            n_prompt = len(tokens)
        params = SamplingParams(
            max_tokens=self.draw.randrange(1, 100),
            temperature=self.draw.choice([0.0, 0.7, 1.3]),
            seed=self.n_made,
            ignore_eos=self.draw.random() < 0.5,
            repeat_penalty=self.draw.choice([1.0, 1.2]),
        )
        return Job(str(self.n_made), tokens, n_prompt, params, rank=self.draw.randrange(3))


@dataclass
class Job:
    """One request across its attempts."""

    name: str
    tokens: list[int]
    n_prompt: int
    params: SamplingParams
    rank: int
    attempt: int = 1
    text: str = ""

    @property
    def n_completion(self) -> int:
        return len(self.tokens) - self.n_prompt

    def submit(self) -> Submit:
        sent_bytes = len(self.text.encode())
        return Submit(self.name, self.attempt, [*self.tokens], self.n_prompt, self.params, self.rank, sent_bytes)
