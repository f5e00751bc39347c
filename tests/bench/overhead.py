"""What Python and sampling take of a step: eight answers of a small model with a large vocabulary, the engine alone."""

from __future__ import annotations

import random
import time
from statistics import median
from typing import TYPE_CHECKING, Any

import msgspec

from . import models
from .contenders import Room
from .figures import Outcome, of_runs, spread
from .prefix import open_engine, to_submit
from .throughput import ORDINARY

if TYPE_CHECKING:
    from inferd.backends.llama.engine import LlamaEngine

ROOM = Room(8, 256)
N_IN, N_OUT = 32, 128
GREEDY: dict[str, Any] = {"temperature": 0.0}
SAMPLED: dict[str, Any] = {"temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.0}


def measure(*, quick: bool) -> Outcome:
    outcome = Outcome([])
    with open_engine(models.sixty_million(), ROOM) as engine:
        for name, params, bar in (("greedy", GREEDY, 0.05), ("top_k, top_p and temperature", SAMPLED, 0.12)):
            runs = [_shares(engine, params, seed) for seed in range(4 if quick else 8)][1:]
            shares = [share for share, _ in runs]
            outcome.figures.append(of_runs(f"Python and sampling, of a step: {name}", shares, "", at_most=bar))
            outcome.lines.append(f"- {name}: steps of {spread([step_ms for _, step_ms in runs], 2)} ms.")
    return outcome


def _shares(engine: LlamaEngine, params: dict[str, Any], seed: int) -> tuple[float, float]:
    """(what is not llama.cpp's, of a median step; that step in ms), of steps in which all eight have a token due."""
    draw = random.Random(seed)
    for i in range(ROOM.slots):
        request = to_submit(str(i), draw.choices(ORDINARY, k=N_IN), N_OUT)
        sampling = msgspec.structs.replace(request.params, seed=i, **params)
        engine.submit(msgspec.structs.replace(request, params=sampling))
    real = engine._context.decode
    computed_s = 0.0

    def decode(*args: Any) -> bool:
        nonlocal computed_s
        start_s = time.perf_counter()
        done = real(*args)
        computed_s += time.perf_counter() - start_s
        return done

    engine._context.decode = decode  # type: ignore[method-assign, assignment]
    steps: list[tuple[float, float]] = []
    while engine.busy():
        computed_s, start_s = 0.0, time.perf_counter()
        n_running = engine.stats().running
        engine.step()
        if n_running == ROOM.slots:
            steps.append((time.perf_counter() - start_s, computed_s))
    engine._context.decode = real  # type: ignore[method-assign]
    return median((step - computed) / step for step, computed in steps[2:]), median(step for step, _ in steps[2:]) * 1e3
