"""What a long prompt does to answers that flow: the worst gap between two tokens of seven, and its own TTFT.

The prompt of 2,048 tokens comes when all seven answers flow, each after 1,024 tokens of a conversation of its own. What
it may take at most is measured with the same daemon
told not to care about gaps, so that it computes 512 rows at a time; llama-server is swept over all its settings.
"""

from __future__ import annotations

import itertools
import random
import threading
import time
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from . import models, rival
from .contenders import Room, inferd, promising, rivals
from .figures import Outcome, of_runs, spread
from .throughput import ORDINARY

if TYPE_CHECKING:
    from .contenders import Contender, Generate

ROOM = Room(8, 2560)
N_FLOWS, N_PROMPT = 7, 2048
N_IN, N_IN_SHORT = 1024, 64  # what the seven have said so far; the figures are those of the long conversations
WARM_UP = 1000
QUIET_TOKENS = 40  # of each answer, before the prompt comes
N_TOKENS = 240  # of each answer: it outlasts the prompt
CARELESS = "[scheduler.interactive]\nitl_target_ms = 100000.0"


class Run(NamedTuple):
    idle_ms: float  # the usual gap
    worst_ms: float  # the longest one beside the prompt
    ttft_ms: float  # of the prompt


def measure(*, quick: bool) -> Outcome:
    model, binary = models.sixty_million(), rival.binary()
    n_runs = 3 if quick else 5
    ours, careless = (_runs(inferd(model, ROOM, more=more), n_runs) for more in ("", CARELESS))
    short = _runs(inferd(model, ROOM), n_runs, N_IN_SHORT)
    looked = {contender: _runs(contender, 1) for contender in rivals(binary, model, ROOM)}
    near = promising({contender: run.worst_ms for contender, (run,) in looked.items()})
    swept = looked | {contender: _runs(contender, n_runs) for contender in near}
    theirs = min(near, key=lambda contender: median(run.worst_ms for run in swept[contender]))
    worst_ms = [run.worst_ms for run in swept[theirs]]
    return Outcome(
        [
            of_runs("worst gap of 7 answers beside a 2k prompt, in usual gaps", _ratios(ours), "x", at_most=2.5),
            of_runs(
                "the same against llama-server's", [run.worst_ms / median(worst_ms) for run in ours], "x", at_most=1.0
            ),
            of_runs(
                "TTFT of that prompt against its TTFT at 512 rows a step",
                [run.ttft_ms / median(other.ttft_ms for other in careless) for run in ours],
                "x",
                at_most=2.0,
            ),
        ],
        [
            _line("inferd", ours),
            _line("inferd, 512 rows a step", careless),
            _line(f"inferd, answers after {N_IN_SHORT} tokens", short),
            *(_line(f"llama-server `{contender.name}`", runs) for contender, runs in swept.items()),
        ],
    )


def _ratios(runs: list[Run]) -> list[float]:
    return [run.worst_ms / run.idle_ms for run in runs]


def _line(name: str, runs: list[Run]) -> str:
    idle, worst, ttft = ([run[i] for run in runs] for i in range(3))
    return f"- {name}: usual gap {spread(idle)} ms, worst {spread(worst)} ms, TTFT of the prompt {spread(ttft, 0)} ms."


def _runs(contender: Contender, n_runs: int, n_in: int = N_IN) -> list[Run]:
    with contender.open() as generate:
        _run(generate, WARM_UP, n_in)
        return [_run(generate, seed, n_in) for seed in range(n_runs)]


def _run(generate: Generate, seed: int, n_in: int) -> Run:
    """Each reader hears its tokens, and the prompt comes once all have heard enough."""
    draw = random.Random(seed)
    times_s: list[list[float]] = [[] for _ in range(N_FLOWS)]
    flowing = threading.Semaphore(0)

    def flow(heard_s: list[float], prompt: list[int]) -> None:
        def on_token() -> None:
            heard_s.append(time.monotonic())
            if len(heard_s) == QUIET_TOKENS:
                flowing.release()

        generate(prompt, N_TOKENS, on_token=on_token)

    readers = [
        threading.Thread(target=flow, args=(heard_s, draw.choices(ORDINARY, k=n_in)), daemon=True)
        for heard_s in times_s
    ]
    for reader in readers:
        reader.start()
    for _ in readers:
        flowing.acquire()
    start_s = time.monotonic()
    first_s: list[float] = []
    generate(draw.choices(ORDINARY, k=N_PROMPT), 2, on_token=lambda: first_s.append(time.monotonic()))
    for reader in readers:
        reader.join()
    if any(heard_s[-1] < first_s[0] for heard_s in times_s):
        raise RuntimeError("an answer ended before the prompt was computed")
    gaps = [(b - a, b) for heard_s in times_s for a, b in itertools.pairwise(heard_s)]
    usual_s = median(gap_s for gap_s, at_s in gaps if at_s < start_s)
    worst_s = max(gap_s for gap_s, at_s in gaps if start_s <= at_s and at_s - gap_s <= first_s[0])
    return Run(usual_s * 1e3, worst_s * 1e3, (first_s[0] - start_s) * 1e3)
