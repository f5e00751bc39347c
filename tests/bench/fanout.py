"""Tokens per second from the fake engine through the daemon to its readers, and how late they come.

The engine emits at a set rate, a little above the bar, and the text of a token is the time at which it was emitted.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from inferd import Client

from . import daemon, models
from .figures import Outcome, of_runs, percentile, spread

N_STREAMS = 32
RATE = 650.0  # of one stream: 20,800 for all
N_FREE = 15_000  # tokens of one stream when there is no rate
BAR_TOKENS_PER_S = 20_000.0
BAR_DELAY_MS = 10.0
ROOT = Path(__file__).parents[2]

Message = tuple[float, list[float]]  # when it came, and when each of its tokens left, in monotonic seconds


@dataclass(frozen=True, slots=True)
class Run:
    """One run of all streams at one rate."""

    tokens_per_s: float
    tokens_per_message: float
    delays_ms: list[float]  # of every token


def measure(*, quick: bool) -> Outcome:
    seconds, n_runs = (3.0, 2) if quick else (6.0, 5)
    model = models.tiny()
    name = model.stem
    with daemon.running(daemon.fake_config(model, RATE)) as one:
        runs = [run(one.address, name, int(RATE * seconds)) for _ in range(n_runs)]
    with daemon.running(daemon.fake_config(model)) as one:
        free = [run(one.address, name, N_FREE) for _ in range(n_runs)]
    p50, p99 = (spread([percentile(r.delays_ms, q) for r in runs], 2) for q in (0.5, 0.99))
    in_time = [r.tokens_per_s * share_in_time(r.delays_ms) for r in runs]
    lines = [
        f"At {N_STREAMS} x {RATE:g} tokens/s: {spread([r.tokens_per_s for r in runs], 0)} tokens/s arrive, "
        f"delay p50 {p50} ms, p99 {p99} ms, {spread([r.tokens_per_message for r in runs], 2)} tokens a message.",
        f"As fast as it goes: {spread([r.tokens_per_s for r in free], 0)} tokens/s, "
        f"{spread([r.tokens_per_message for r in free], 2)} tokens a message.",
    ]
    title = f"tokens/s of {N_STREAMS} fake streams, delivered within {BAR_DELAY_MS:g} ms"
    return Outcome([of_runs(title, in_time, "tokens/s", at_least=BAR_TOKENS_PER_S)], lines)


def share_in_time(delays_ms: list[float]) -> float:
    return sum(delay <= BAR_DELAY_MS for delay in delays_ms) / len(delays_ms)


def run(address: str, model: str, n_tokens: int, n_processes: int = 2) -> Run:
    with Client(address) as client:
        client.load(model).wait()
    streams = listen(address, model, n_tokens, n_processes)
    n_messages = sum(len(messages) for messages in streams)
    total = sum(len(left) for messages in streams for _, left in messages)
    assert total == N_STREAMS * n_tokens, f"{total} tokens came, not {N_STREAMS * n_tokens}"
    first_s = min(messages[0][0] for messages in streams)
    last_s = max(messages[-1][0] for messages in streams)
    delays_ms = [(came_s - left_s) * 1e3 for messages in streams for came_s, left in messages for left_s in left]
    return Run(total / (last_s - first_s), total / n_messages, delays_ms)


def listen(address: str, model: str, n_tokens: int, n_processes: int) -> list[list[Message]]:
    """Have the streams read by several client processes, so that one of them is not the limit."""
    share = N_STREAMS // n_processes
    with contextlib.ExitStack() as stack:
        clients = []
        for i in range(n_processes):
            command = [
                sys.executable,
                "-m",
                "tests.bench.listen",
                address,
                model,
                str(share),
                str(n_tokens),
                str(40 + share * i),
            ]
            pipes = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            clients.append(stack.enter_context(pipes))
        for client in clients:
            assert client.stdout is not None
            assert client.stdout.readline() == "ready\n"
        for client in clients:
            assert client.stdin is not None
            client.stdin.write("go\n")
            client.stdin.flush()
        streams: list[list[Message]] = []
        for client in clients:
            assert client.stdout is not None
            streams += json.loads(client.stdout.readline())
    return streams
