"""kill -9 of a worker under eight streams, at a random token: what their clients see of it.

Exact numerics, sampled, each answer with stop strings that are often half matched; the texts are those of the same
requests left in peace. A gap is the longest pause of any stream; a load is how long the same worker takes from cold.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median

from inferd import Client, InferdError

from . import daemon, models
from .figures import Outcome, of_runs, spread
from .throughput import ORDINARY

STOP = ["e azq", " tzq", "inzq"]
N_STREAMS, N_IN, N_OUT = 8, 96, 120


@dataclass
class Reader:
    """One answer and the times at which its pieces came."""

    text: str = ""
    times_s: list[float] = field(default_factory=list)
    error: InferdError | None = None
    resumed: int = 0

    def gap_s(self) -> float:
        return max(b - a for a, b in pairwise(self.times_s))


def measure(*, quick: bool) -> Outcome:
    model = models.sixty_million()
    n_runs = 5 if quick else 20
    config = f"""
[models]
folders = ["{model.parent}"]
[models.defaults]
slots = {N_STREAMS}
context_tokens = 512
threads = 2
numerics = "exact"
keep_alive_s = -1
"""
    n_errors = n_differ = n_untouched = 0
    over_s: list[float] = []
    gaps_s: list[float] = []
    with daemon.running(config) as one, Client(one.address) as client:
        start_s = time.monotonic()
        client.load(model.stem).wait()
        load_s = time.monotonic() - start_s
        for seed in range(n_runs):
            peace = _run(client, model.stem, seed, None)
            readers = _run(client, model.stem, seed, random.Random(seed).randrange(1, N_OUT - 20))
            n_errors += sum(reader.error is not None for reader in readers)
            n_untouched += not any(reader.resumed for reader in readers)
            n_differ += sum(a.text != b.text for a, b in zip(peace, readers, strict=True))
            gaps_s.append(max(reader.gap_s() for reader in readers))
            over_s.append(gaps_s[-1] - load_s)
    return Outcome(
        [
            of_runs("worker killed under 8 streams: client errors", [n_errors], "", at_most=0),
            of_runs("the same: texts that differ from those left in peace", [n_differ], "", at_most=0),
            of_runs("the same: runs in which nothing was resumed", [n_untouched], "", at_most=0),
            of_runs("the same: longest gap beyond a load, worst run", [max(over_s)], "s", at_most=1.0),
        ],
        [f"{n_runs} kills: gap {spread(gaps_s, 2)} s, a load takes {load_s:.2f} s, beyond it {median(over_s):.2f} s."],
    )


def _run(client: Client, model: str, seed: int, kill_at: int | None) -> list[Reader]:
    """Eight answers; the worker is killed when the first of them has so many pieces."""
    draw = random.Random(seed)
    readers = [Reader() for _ in range(N_STREAMS)]
    reached = threading.Event()

    def read(reader: Reader, prompt: list[int], its_seed: int) -> None:
        answer = client.generate(
            model,
            prompt,
            max_tokens=N_OUT,
            temperature=1.0,
            seed=its_seed,
            ignore_eos=True,
            stop=STOP,
        )
        try:
            for delta in answer:
                reader.text += delta.text
                reader.times_s.append(time.monotonic())
                if len(reader.times_s) == kill_at:
                    reached.set()
        except InferdError as error:
            reader.error = error
        finally:
            reader.resumed = answer.resumed
            reached.set()

    threads = [
        threading.Thread(target=read, args=(reader, draw.choices(ORDINARY, k=N_IN), seed * N_STREAMS + i))
        for i, reader in enumerate(readers)
    ]
    for thread in threads:
        thread.start()
    if kill_at is not None:
        reached.wait()
        pid = next(m.pid for m in client.snapshot().models if m.name == model)
        os.kill(pid, signal.SIGKILL)
    for thread in threads:
        thread.join()
    return readers
