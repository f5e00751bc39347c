"""Many streams, ten times too many requests, many idle connections: what it costs those who are served."""

from __future__ import annotations

import contextlib
import socket
import statistics
import subprocess
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import msgspec
from grpc_health.v1 import health_pb2, health_pb2_grpc

from inferd import InferdError

from ..bench.figures import Outcome, of_runs, percentile
from . import crowd
from .frames import PREFACE, settings
from .house import daemon, small_gguf

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from inferd.tests.e2e.daemons import Daemon

ROOT = Path(__file__).parents[2]
MIB = 1 << 20
N_STREAMS, RATE = 64, 50.0
STREAMS = f"""
[fake]
enabled = true
tokens_per_s = {RATE}
[models.defaults]
slots = {N_STREAMS}
context_tokens = 65536
keep_alive_s = -1
"""
# Eight slots of 50 tokens/s, answers of 25 tokens: 16 a second, and never more than 3 s of work in line.
N_SLOTS, N_TOKENS, OVER = 8, 25, 10
CAPACITY = N_SLOTS * RATE / N_TOKENS
OVERLOAD = f"""
[fake]
enabled = true
tokens_per_s = {RATE}
[models.defaults]
slots = {N_SLOTS}
keep_alive_s = -1
[queue]
max_requests = {int(CAPACITY * 3)}
max_requests_per_tenant = 32
"""
N_CLIENTS = 2
PROBE_S = 0.5  # between two requests of the one who must not notice the others


def measure(*, quick: bool, seed: int) -> Outcome:
    outcome = Outcome([])
    streams(outcome, 3.0 if quick else 60.0)
    overload(outcome, 4.0 if quick else 60.0, seed)
    idle(outcome, 100 if quick else 500, 1.0 if quick else 10.0)
    return outcome


def streams(outcome: Outcome, seconds: float) -> None:
    """L1. What is added to a gap between two tokens: the gap as it came, less the gap as it was made."""
    with daemon(STREAMS, {"small": small_gguf()}) as (one, _):
        one.client.load("small").wait()
        listen(one, 1)
        before_bytes = one.rss_bytes()
        heard = listen(one, int(RATE * seconds))
        grown = one.rss_bytes() - before_bytes
    n_whole = sum(sum(len(made) for _, made in stream) == int(RATE * seconds) for stream in heard)
    added_ms: list[float] = []
    for stream in heard:
        tokens = [(came_s, made_s) for came_s, made in stream for made_s in made]
        added_ms += [((b[0] - a[0]) - (b[1] - a[1])) * 1e3 for a, b in pairwise(tokens)]
    title = f"{N_STREAMS} streams x {RATE:g} tokens/s x {seconds:g} s"
    outcome.figures += [
        of_runs(f"{title}: streams that are not whole", [N_STREAMS - n_whole], "", at_most=0),
        of_runs(f"{title}: added inter-token delay, p99", [percentile(added_ms, 0.99)], "ms", at_most=25),
        of_runs(f"{title}: growth of the daemon", [grown / MIB], "MiB", at_most=50),
    ]
    outcome.lines.append(
        f"- streams: added delay p50 {percentile(added_ms, 0.5):.2f} ms, worst {max(added_ms):.1f} ms."
    )


def listen(one: Daemon, n_tokens: int) -> list[list[tuple[float, list[float]]]]:
    """All streams, read by two processes: of each its messages, when one came and when its tokens were made."""
    share = N_STREAMS // N_CLIENTS
    commands = [
        ["tests.bench.listen", one.address, "small", str(share), str(n_tokens), str(share * i)]
        for i in range(N_CLIENTS)
    ]
    with clients(commands) as begin:
        return [stream for raw in begin() for stream in msgspec.json.decode(raw)]


@contextlib.contextmanager
def clients(commands: list[list[str]]) -> Iterator[Callable[[], list[bytes]]]:
    """Processes that are ready; what is yielded lets them begin and returns what each of them prints."""
    with contextlib.ExitStack() as stack:
        pipes: list[Any] = []
        for command in commands:
            started = [sys.executable, "-m", *command]
            pipe = subprocess.Popen(started, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            pipes.append(stack.enter_context(pipe))
        for pipe in pipes:
            assert pipe.stdout.readline() == b"ready\n"

        def begin() -> list[bytes]:
            for pipe in pipes:
                pipe.stdin.write(b"go\n")
                pipe.stdin.flush()
            return [pipe.stdout.readline() for pipe in pipes]

        yield begin


def overload(outcome: Outcome, seconds: float, seed: int) -> None:
    """L2. Ten times as many requests as there is room for; beside them one interactive client of good manners."""
    with daemon(OVERLOAD, {"small": small_gguf()}) as (one, _):
        one.client.load("small").wait()
        calm = crowded(one, CAPACITY * 0.95, seconds, seed)
        alone_ms = [ttft_ms(one) for _ in range(10)]
        before_bytes = one.rss_bytes()
        with probing(one) as probed_ms:
            crush = crowded(one, CAPACITY * OVER, seconds, seed)
        end_s = max(o.asked_s for o in crush)
        while one.snapshot().requests or ttft_ms(one) > 2 * max(alone_ms):
            time.sleep(0.05)
        normal_s = time.monotonic() - end_s
        grown = one.rss_bytes() - before_bytes
    refused = [(o.ended_s - o.asked_s) * 1e3 for o in crush if o.code and o.first_s is None]
    errors = {o.code for o in crush if o.code} - {"queue_full", "overloaded"}
    # Of the time between the first request and the last: what is answered later was in line, not served meanwhile.
    goodput = served(crush, seconds) / (CAPACITY * N_TOKENS)
    title = f"{OVER}x overload for {seconds:g} s"
    outcome.figures += [
        of_runs(f"{title}: refusals, p99", [percentile(refused, 0.99)], "ms", at_most=50),
        of_runs(f"{title}: served, of what there is room for", [goodput], "", at_least=0.95),
        of_runs(f"{title}: growth of the daemon", [grown / MIB], "MiB", at_most=100),
        of_runs(f"{title}: until all is as before", [normal_s], "s", at_most=5),
        of_runs(f"{title}: errors that are no refusals", [len(errors)], "", at_most=0),
    ]
    outcome.lines += [
        f"- overload: {len(crush)} requests, {len(refused)} refused (p50 {statistics.median(refused):.1f} ms), "
        f"{sum(not o.code for o in crush)} answered; {', '.join(sorted(errors)) or 'no other error'}.",
        f"- the same: at 0.95x {served(calm, seconds) / (CAPACITY * N_TOKENS):.3f} was served; first token of an "
        f"interactive request p95 {percentile(probed_ms, 0.95):.0f} ms, alone {percentile(alone_ms, 0.95):.0f} ms.",
    ]


def crowded(one: Daemon, rate: float, seconds: float, seed: int) -> list[crowd.Outcome]:
    each = f"{rate / N_CLIENTS:g}"
    commands = [
        ["tests.chaos.crowd", one.address, "small", each, str(seconds), str(N_TOKENS), str(seed + i)]
        for i in range(N_CLIENTS)
    ]
    with clients(commands) as begin:
        return [outcome for raw in begin() for outcome in msgspec.json.decode(raw, type=list[crowd.Outcome])]


def served(outcomes: list[crowd.Outcome], seconds: float) -> float:
    """Tokens a second while requests came, less the first answers, in which nothing could have ended yet."""
    start_s = min(o.asked_s for o in outcomes)
    warm_s = N_TOKENS / RATE
    tokens = sum(o.n_tokens for o in outcomes if not o.code and warm_s < o.ended_s - start_s <= seconds)
    return tokens / (seconds - warm_s)


def ttft_ms(one: Daemon) -> float:
    start_s = time.monotonic()
    for _ in one.client.generate("small", f"fake:tokens={N_TOKENS}", priority="interactive"):
        return (time.monotonic() - start_s) * 1e3
    raise AssertionError("no token came")


@contextlib.contextmanager
def probing(one: Daemon) -> Iterator[list[float]]:
    """Times to the first token of an interactive request now and then, in milliseconds."""
    times_ms: list[float] = []
    over = threading.Event()

    def probe() -> None:
        while not over.wait(PROBE_S):
            with contextlib.suppress(InferdError):
                times_ms.append(ttft_ms(one))

    thread = threading.Thread(target=probe)
    thread.start()
    try:
        yield times_ms
    finally:
        over.set()
        thread.join()


def idle(outcome: Outcome, n_channels: int, seconds: float) -> None:
    """L5. Connections that do nothing, and others that come and go."""
    with daemon(STREAMS) as (one, _), grpc.insecure_channel(one.address) as channel, contextlib.ExitStack() as stack:
        health = health_pb2_grpc.HealthStub(channel)
        before_bytes = one.rss_bytes()
        for _ in range(n_channels):
            connect(stack, one)
        times_ms = []
        end_s = time.monotonic() + seconds
        n_come = 0
        while time.monotonic() < end_s:
            with contextlib.ExitStack() as short:
                for _ in range(20):
                    connect(short, one)
                n_come += 20
                start_s = time.monotonic()
                health.Check(health_pb2.HealthCheckRequest(), timeout=10)
                times_ms.append((time.monotonic() - start_s) * 1e3)
        grown = one.rss_bytes() - before_bytes
    outcome.figures += [
        of_runs(f"{n_channels} idle channels: health, p99", [percentile(times_ms, 0.99)], "ms", at_most=100),
        of_runs(f"{n_channels} idle channels: growth of the daemon", [grown / MIB], "MiB", at_most=60),
    ]
    outcome.lines.append(f"- idle: {n_come / seconds:,.0f} connects/s beside them.")


def connect(stack: contextlib.ExitStack, one: Daemon) -> None:
    """A connection as a gRPC client opens it."""
    sock = stack.enter_context(socket.socket(socket.AF_UNIX))
    sock.connect(str(one.socket))
    sock.sendall(PREFACE + settings())
