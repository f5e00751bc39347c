"""Output tokens per second of a real-size model, side by side with llama-server: same tokens in, same count out.

Both get prompts of random token ids that share nothing, both are greedy, both are read by a blocking Python client, a
thread for each stream: the daemon over gRPC on its Unix socket, llama-server over HTTP on loopback. Each is first swept
over its settings; then the best of both are loaded side by side. Whatever is compared computes in turn.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from . import models, rival
from .contenders import THREADS, Room, inferds, rivals
from .figures import Figure, Outcome, spread

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .contenders import Contender, Generate

    Swept = dict[Contender, dict[int, list[float]]]  # tokens/s of each run, by number of streams

N_IN, N_OUT = 128, 64
SLOTS = 8
ROOM = Room(SLOTS, 256)
ORDINARY = range(1000, 150_000)  # token ids that are neither bytes nor control tokens


@dataclass(frozen=True, slots=True)
class Duel:
    n_streams: int
    n_runs: int  # so many that the machine's noise evens out; more where a run is short
    bar: float


DUELS = (Duel(SLOTS, 9, 1.0), Duel(1, 15, 0.97))


def measure(*, quick: bool) -> Outcome:
    model, binary = models.half_billion(), rival.binary()
    n_sweep = 1 if quick else 2
    ours, theirs = (_sweep(side, n_sweep) for side in (inferds(model, ROOM), rivals(binary, model, ROOM)))
    outcome = Outcome([], [*_table(ours, theirs), "", f"llama-server: {rival.describe(binary)}."])
    for duel in DUELS:
        pair = best(ours, duel.n_streams), best(theirs, duel.n_streams)
        runs = _duel(pair, duel.n_streams, 2 if quick else duel.n_runs)
        _judge(outcome, duel, pair, runs)
    return outcome


def best(swept: Swept, n_streams: int) -> Contender:
    return max(swept, key=lambda contender: median(swept[contender][n_streams]))


def _judge(
    outcome: Outcome, duel: Duel, pair: tuple[Contender, Contender], runs: tuple[list[float], list[float]]
) -> None:
    ours, theirs = runs
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    streams = f"{duel.n_streams} stream{'s' * (duel.n_streams > 1)}"
    name = f"output tokens/s, {streams}, against llama-server"
    ratio = median(ours) / median(theirs)
    outcome.figures.append(Figure(name, ratio, min(ratios), max(ratios), len(ours), "x", duel.bar, True))
    outcome.lines.append(
        f"\n{streams}: inferd (`{pair[0].name}`) {spread(ours)}, llama-server (`{pair[1].name}`) {spread(theirs)} "
        f"tokens/s, in turn, {len(ours)} runs each. The ratio is that of the medians, its spread that of neighbours."
    )


def _sweep(contenders: Sequence[Contender], n_runs: int) -> Swept:
    """All settings of a server are loaded side by side and compute in turn: the machine has its moods."""
    swept: Swept = {contender: {SLOTS: [], 1: []} for contender in contenders}
    with contextlib.ExitStack() as stack:
        loaded = {contender: stack.enter_context(contender.open()) for contender in contenders}
        for generate in loaded.values():
            run(generate, SLOTS, seed=0, n_out=8)
        for seed, n_streams in itertools.product(range(n_runs), (SLOTS, 1)):
            for contender, generate in loaded.items():
                swept[contender][n_streams].append(run(generate, n_streams, seed))
    for contender, runs in swept.items():
        print(f"{contender.name}: {runs}", flush=True)
    return swept


def _table(ours: Swept, theirs: Swept) -> list[str]:
    lines = [
        f"{N_IN} tokens in, {N_OUT} out, {SLOTS} slots, {ROOM.cells} KV cells, {THREADS} threads; output tokens/s:",
        "",
        "| server | settings | 8 streams | 1 stream |",
        "|---|---|---|---|",
    ]
    for server, swept in (("inferd", ours), ("llama-server", theirs)):
        for contender, runs in swept.items():
            lines.append(f"| {server} | `{contender.name}` | {spread(runs[SLOTS])} | {spread(runs[1])} |")
    return lines


def _duel(pair: tuple[Contender, Contender], n_streams: int, n_runs: int) -> tuple[list[float], list[float]]:
    """Both are loaded; they compute in turn."""
    ours: list[float] = []
    theirs: list[float] = []
    with pair[0].open() as our, pair[1].open() as their:
        for generate in (our, their):
            run(generate, SLOTS, seed=0, n_out=8)
        for seed in range(1, n_runs + 1):
            ours.append(run(our, n_streams, seed))
            theirs.append(run(their, n_streams, seed))
    return ours, theirs


def run(generate: Generate, n_streams: int, seed: int, n_out: int = N_OUT) -> float:
    """Output tokens per second, from the first request to the end of the last answer."""
    draw = random.Random(seed)
    prompts = [draw.choices(ORDINARY, k=N_IN) for _ in range(n_streams)]
    start_s = time.monotonic()
    with ThreadPoolExecutor(n_streams) as threads:
        ends_s = threads.map(lambda prompt: generate(prompt, n_out), prompts)
    return n_streams * n_out / (max(ends_s) - start_s)
