"""Guessing at tokens from what was said: what it gains where a text repeats itself, and costs where it does not.

The engine alone, one stream, with and without guesses, in turn. The model that repeats is of real size and follows the
rings of tokens that its prompt is made of; what does not repeat is what a random model says to random tokens. The small
model beside the large one is always right, and the stranger never.
"""

from __future__ import annotations

import random
import time
from statistics import median
from typing import TYPE_CHECKING

from inferd.backends.messages import Delta, Finished

from . import models
from .contenders import Room
from .figures import Figure, Outcome, of_runs, spread
from .prefix import open_engine, to_submit
from .throughput import ORDINARY

if TYPE_CHECKING:
    from pathlib import Path

    from inferd.backends.llama.engine import LlamaEngine

ROOM = Room(1, 512)
N_DRAFT = 15
RING, N_IN, N_OUT = 32, 128, 192


def measure(*, quick: bool) -> Outcome:
    n_runs = 3 if quick else 9
    outcome = Outcome([])
    _compare(outcome, models.half_billion_that_copies(), "text that repeats itself", 1.5, n_runs, copies=True)
    _compare(outcome, models.half_billion(), "text that does not", 0.98, n_runs)
    draft_models(outcome, n_runs)
    return outcome


def draft_models(outcome: Outcome, n_runs: int) -> None:
    large, small, stranger = models.large_small_and_stranger()
    words = range(1000, 31_000)
    _compare(outcome, large, "a draft model that is right", 1.3, n_runs, words=words, draft=small)
    _compare(outcome, large, "a draft model that is wrong", 0.95, n_runs, words=words, draft=stranger)


def _compare(
    outcome: Outcome,
    model: Path,
    what: str,
    bar: float,
    n_runs: int,
    *,
    copies: bool = False,
    words: range = ORDINARY,
    draft: Path | None = None,
) -> None:
    rates: tuple[list[float], list[float]] = [], []
    n_differ = n_drafted = n_accepted = 0
    with open_engine(model, ROOM, n_draft=N_DRAFT, draft=draft) as guessing, open_engine(model, ROOM) as plain:
        for seed in range(n_runs + 1):
            prompt = _prompt(seed, words, copies=copies)
            ours, theirs = _run(guessing, prompt), _run(plain, prompt)
            if seed:
                n_differ += ours[0] != theirs[0]
                rates[0].append(N_OUT / ours[1])
                rates[1].append(N_OUT / theirs[1])
                n_drafted, n_accepted = n_drafted + ours[2].draft_n, n_accepted + ours[2].draft_n_accepted
    ratios = [a / b for a, b in zip(*rates, strict=True)]
    ratio = median(rates[0]) / median(rates[1])
    name = f"tokens/s with guesses against without, one stream, {what}"
    outcome.figures.append(Figure(name, ratio, min(ratios), max(ratios), n_runs, "x", bar, True))
    if copies:
        outcome.figures.append(of_runs("the same: answers that differ", [n_differ], "", at_most=0))
    outcome.lines.append(
        f"A {what}: {spread(rates[0])} tokens/s with guesses, {spread(rates[1])} without; "
        f"{n_accepted} of {n_drafted} guessed tokens came."
    )


def _prompt(seed: int, words: range, *, copies: bool) -> list[int]:
    draw = random.Random(seed)
    if not copies:
        return draw.choices(words, k=N_IN)
    start = draw.choice(words) // RING * RING
    return [start + i % RING for i in range(N_IN)]


def _run(engine: LlamaEngine, prompt: list[int]) -> tuple[list[int], float, Finished]:
    """(tokens, seconds, the end) of a greedy answer."""
    engine.submit(to_submit("a", prompt, N_OUT))
    tokens: list[int] = []
    end = None
    start_s = time.monotonic()
    while engine.busy():
        for event in engine.step():
            if isinstance(event, Delta):
                tokens += event.tokens
            elif isinstance(event, Finished):
                end = event
    took_s = time.monotonic() - start_s
    assert end is not None
    return tokens, took_s, end
