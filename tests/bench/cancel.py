"""How long a worker goes on computing a long prompt that nobody wants any more."""

from __future__ import annotations

import contextlib
import os
import random
import threading
import time
from pathlib import Path

from inferd import Client, InferdError

from . import daemon, models
from .figures import Outcome, of_runs
from .throughput import ORDINARY

N_IN = 3000
QUIET_S = 0.25  # without a tick of CPU time: it is idle
TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def measure(*, quick: bool) -> Outcome:
    model = models.half_billion()
    config = f"""
[models]
folders = ["{model.parent}"]
[models.defaults]
slots = 1
context_tokens = 4096
threads = 2
keep_alive_s = -1
"""
    with daemon.running(config) as one, Client(one.address) as client:
        client.load(model.stem).wait()
        runs_ms = [_run(client, model.stem, seed) for seed in range(3 if quick else 9)]
    name = "a prompt of 3,000 tokens is cancelled: its worker is idle after"
    return Outcome(
        [of_runs(name, runs_ms, "ms", at_most=150.0)], [f"CPU time is told in ticks of {TICK_S * 1e3:g} ms."]
    )


def _run(client: Client, model: str, seed: int) -> float:
    """Milliseconds from the cancel to the last tick of CPU time; it comes at a random moment of the first second."""
    draw = random.Random(seed)
    prompt = draw.choices(ORDINARY, k=N_IN)
    answer = client.generate(model, prompt, max_tokens=1, request_id=f"cancel-{seed}")

    def read() -> None:
        with contextlib.suppress(InferdError):
            answer.text()

    reader = threading.Thread(target=read)
    reader.start()
    pid = next(state.pid for state in client.snapshot().models if state.name == model)
    began = _ticks(pid)
    while _ticks(pid) < began + 20:  # it computes
        time.sleep(TICK_S)
    time.sleep(draw.random())
    cancelled_s = time.monotonic()
    client.cancel(f"cancel-{seed}")
    seen, last_s = _ticks(pid), cancelled_s
    while time.monotonic() < last_s + QUIET_S:
        time.sleep(TICK_S / 2)
        if (ticks := _ticks(pid)) > seen:
            seen, last_s = ticks, time.monotonic()
    reader.join()
    return (last_s - cancelled_s) * 1e3


def _ticks(pid: int) -> int:
    """CPU time of all threads of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])
