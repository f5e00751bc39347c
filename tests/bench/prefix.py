"""What requests that begin alike gain, and that nobody else pays for it.

Agents: eight requests at once with 2,048 tokens in common, which nobody has seen before, and 64 of their own; both
servers may use whatever they have computed. Cells and the price of the tree are the engine's own, without a daemon.
"""

from __future__ import annotations

import contextlib
import random
import time
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import TYPE_CHECKING

from inferd.backends.facts import LoadPlan
from inferd.backends.kinds import read_facts
from inferd.backends.llama.loading import load_generator as load
from inferd.backends.messages import SamplingParams, Submit

from . import models, rival
from .contenders import THREADS, Room, inferd, promising, rivals
from .figures import Figure, Outcome, of_runs, spread
from .throughput import ORDINARY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from inferd.backends.llama.engine import LlamaEngine

    from .contenders import Contender, Generate

N_AGENTS, N_SHARED, N_OWN, N_OUT = 8, 2048, 64, 32
AGENTS = Room(N_AGENTS, 2304)
STRANGERS = Room(8, 256)
STRANGERS_IN, STRANGERS_OUT = 128, 64
CACHE_BYTES = 256 * 2**20


def measure(*, quick: bool) -> Outcome:
    outcome = Outcome([])
    _agents(outcome, n_runs=3 if quick else 9)
    _cells(outcome)
    _price(outcome, n_runs=3 if quick else 9)
    return outcome


def _agents(outcome: Outcome, n_runs: int) -> None:
    """All settings of both are swept once; then the best of each, in turn."""
    model, binary = models.sixty_million(), rival.binary()
    sides = (
        [inferd(model, AGENTS, option=option) for option in ("", "flash_attention = false")],
        rivals(binary, model, AGENTS, caches=True),
    )
    ours, theirs = map(_best, sides)
    took: tuple[list[float], list[float]] = [], []
    with ours.open() as our, theirs.open() as their:
        for seed in range(n_runs):
            for generate, runs in zip((our, their), took, strict=True):
                runs.append(_wall_s(generate, seed))
    ratios = [a / b for a, b in zip(*took, strict=True)]
    ratio = median(took[0]) / median(took[1])
    name = f"{N_AGENTS} agents, {N_SHARED:,} + {N_OWN} tokens in, {N_OUT} out: time against llama-server's"
    outcome.figures.append(Figure(name, ratio, min(ratios), max(ratios), n_runs, "x", 0.4, False))
    outcome.lines.append(
        f"Agents: inferd (`{ours.name}`) {spread(took[0], 2)} s, llama-server (`{theirs.name}`) {spread(took[1], 2)} s."
    )


def _best(side: list[Contender]) -> Contender:
    return min(promising({contender: _swept(contender, 1) for contender in side}), key=_swept)


def _swept(contender: Contender, n_runs: int = 2) -> float:
    with contender.open() as generate:
        generate(_prompts(1000)[0][:64], 8)
        took_s = median(_wall_s(generate, seed) for seed in range(1001, 1001 + n_runs))
    print(f"{contender.name}: {took_s:.2f} s", flush=True)
    return took_s


def _wall_s(generate: Generate, seed: int) -> float:
    start_s = time.monotonic()
    with ThreadPoolExecutor(N_AGENTS) as threads:
        ends_s = threads.map(lambda prompt: generate(prompt, N_OUT), _prompts(seed))
    return max(ends_s) - start_s


def _prompts(seed: int) -> list[list[int]]:
    draw = random.Random(seed)
    shared = draw.choices(ORDINARY, k=N_SHARED)
    return [shared + draw.choices(ORDINARY, k=N_OWN) for _ in range(N_AGENTS)]


def _cells(outcome: Outcome) -> None:
    apart = N_AGENTS * (N_SHARED + N_OWN + N_OUT)
    most = 0
    with open_engine(models.sixty_million(), AGENTS) as engine:
        for i, prompt in enumerate(_prompts(0)):
            engine.submit(to_submit(str(i), prompt, N_OUT))
        while engine.busy():
            engine.step()
            most = max(most, engine.stats().kv_cells_used)
    outcome.figures.append(
        of_runs("the same: KV cells, of those of separate sequences", [most / apart], "x", at_most=0.2)
    )
    outcome.lines.append(f"Cells of the agents: {most:,} at most, {apart:,} apart.")


def _price(outcome: Outcome, n_runs: int) -> None:
    """Prompts that share nothing, round after round, so that what is kept fills the cache."""
    model = models.half_billion()
    rates: tuple[list[float], list[float]] = [], []
    with open_engine(model, STRANGERS) as kept, open_engine(model, STRANGERS, prefix_caching=False) as not_kept:
        for seed in range(n_runs + 2):
            for engine, runs in zip((kept, not_kept), rates, strict=True):
                rate = _rate(engine, seed)
                if seed >= 2:  # by then the cache has been full
                    runs.append(rate)
    ratios = [a / b for a, b in zip(*rates, strict=True)]
    name = "engine's tokens/s with the tree against without it, nothing to share"
    ratio = median(rates[0]) / median(rates[1])
    outcome.figures.append(Figure(name, ratio, min(ratios), max(ratios), n_runs, "x", 0.98, True))
    outcome.lines.append(f"Nothing shared: {spread(rates[0])} tokens/s with the tree, {spread(rates[1])} without.")


def _rate(engine: LlamaEngine, seed: int) -> float:
    """Output tokens per second."""
    draw = random.Random(seed)
    for i in range(STRANGERS.slots):
        engine.submit(to_submit(str(i), draw.choices(ORDINARY, k=STRANGERS_IN), STRANGERS_OUT))
    start_s = time.monotonic()
    while engine.busy():
        engine.step()
    return STRANGERS.slots * STRANGERS_OUT / (time.monotonic() - start_s)


def to_submit(job: str, prompt: list[int], n_out: int) -> Submit:
    """A greedy request of exactly `n_out` tokens."""
    params = SamplingParams(max_tokens=n_out, temperature=0.0, ignore_eos=True)
    return Submit(job, 1, prompt, len(prompt), params)


@contextlib.contextmanager
def open_engine(
    model: Path,
    room: Room,
    *,
    prefix_caching: bool = True,
    n_draft: int = 0,
    draft: Path | None = None,
    n_threads: int = THREADS,
) -> Iterator[LlamaEngine]:
    """An engine in this process."""
    plan = LoadPlan(
        backend="llama",
        path=str(model),
        n_ctx=room.context_tokens,
        n_slots=room.slots,
        kv_cells=room.cells,
        n_threads=n_threads,
        n_draft=n_draft,
        draft=read_facts(draft) if draft else None,
        prefix_caching=prefix_caching,
        cache_bytes=CACHE_BYTES if prefix_caching else 0,
    )
    engine = load(plan, lambda _: None)
    try:
        yield engine
    finally:
        engine.close()
