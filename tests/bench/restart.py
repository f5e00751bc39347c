"""A prompt that was asked before the daemon was restarted: what of it is computed again, and how soon it answers."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from inferd import Client

from . import daemon, models
from .figures import Outcome, of_runs, spread
from .throughput import ORDINARY

if TYPE_CHECKING:
    from inferd.protos.answer import Timings, Usage

N_IN, BLOCK = 2049, 64


def measure(*, quick: bool) -> Outcome:
    model = models.sixty_million()
    config = f"""
[models]
folders = ["{model.parent}"]
[models.defaults]
slots = 4
context_tokens = 4096
threads = 2
keep_alive_s = -1
"""
    cold_ms: list[float] = []
    warm_ms: list[float] = []
    computed: list[float] = []
    for seed in range(3 if quick else 7):
        prompt = random.Random(seed).choices(ORDINARY, k=N_IN)
        with tempfile.TemporaryDirectory(prefix="inferd-bench-") as home:
            _, cold = _ask(config, Path(home), model.stem, prompt)
            usage, warm = _ask(config, Path(home), model.stem, prompt)
        cold_ms.append(cold.ttft_ms)
        warm_ms.append(warm.ttft_ms)
        computed.append(usage.prompt_tokens - usage.cached_tokens)
    ratio = median(warm_ms) / median(cold_ms)
    return Outcome(
        [
            of_runs("the same 2k prompt after a restart: TTFT against the first", [ratio], "x", at_most=0.1),
            of_runs("the same: tokens computed again", [max(computed)], "", at_most=BLOCK),
        ],
        [f"TTFT of the first {spread(cold_ms)} ms, of the second {spread(warm_ms)} ms; each the first of its worker."],
    )


def _ask(config: str, home: Path, model: str, prompt: list[int]) -> tuple[Usage, Timings]:
    with daemon.running(config, home) as one, Client(one.address) as client:
        client.load(model).wait()
        answer = client.generate(model, prompt, max_tokens=8, temperature=0.0, ignore_eos=True)
        answer.text()
        assert answer.usage is not None
        assert answer.timings is not None
        return answer.usage, answer.timings
