"""What is no gRPC, by raw sockets: broken prefaces, half frames, floods. Others are served as before."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import time
from typing import TYPE_CHECKING

from ..bench.figures import Outcome, of_runs, percentile
from . import frames
from .frames import END_HEADERS, END_STREAM, PREFACE, call, frame, settings
from .house import daemon, exceptions, small_gguf

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from inferd.tests.e2e.daemons import Daemon

CONFIG = """
[fake]
enabled = true
[models.defaults]
slots = 8
keep_alive_s = -1
"""
PATH = "/inferd.v1.Monitor/GetSnapshot"
N_CONNECTIONS = 200
TURN_S = 0.2  # a connection that is still taken in after so long makes way for the next
# A flood takes a core from everybody, and there may be two of them: it sends in bursts, with pauses between.
PAUSE_S = 0.005
BAR_MS = 50.0
N_FRAMES = 500  # of a burst


def bad_preface(rng: random.Random) -> Iterator[bytes]:
    yield rng.choice(
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", rng.randbytes(24), b"\x16\x03\x01")
    )


def half_preface(rng: random.Random) -> Iterator[bytes]:
    yield PREFACE[: rng.randrange(len(PREFACE))]


def noise(rng: random.Random) -> Iterator[bytes]:
    yield PREFACE + settings()
    while True:
        yield rng.randbytes(1000)


def half_frame(rng: random.Random) -> Iterator[bytes]:
    yield PREFACE + settings() + frame(rng.randrange(12), b"x" * 10, n_bytes=16_000, stream=rng.choice((0, 1, 3)))


def long_frame(rng: random.Random) -> Iterator[bytes]:
    yield PREFACE + settings() + frame(frames.DATA, b"", n_bytes=2**24 - 1, stream=1)
    while True:
        yield bytes(16_384)


def odd_frames(rng: random.Random) -> Iterator[bytes]:
    """Of every kind, in no order, on any stream."""
    yield PREFACE + settings()
    while True:
        payload = rng.randbytes(rng.choice((0, 1, 4, 5, 8, 100)))
        yield frame(rng.randrange(12), payload, flags=rng.randrange(256), stream=rng.choice((0, 1, 2, 3, 2**31 - 1)))


def settings_flood(rng: random.Random) -> Iterator[bytes]:
    yield PREFACE
    while True:
        yield settings(s3=rng.randrange(2**31), s4=rng.randrange(2**31)) * N_FRAMES


def ping_flood(rng: random.Random) -> Iterator[bytes]:
    yield PREFACE + settings()
    while True:
        yield frame(frames.PING, bytes(8)) * N_FRAMES


def rapid_reset(rng: random.Random) -> Iterator[bytes]:
    """Calls that are taken back at once."""
    yield PREFACE + settings()
    stream = 1
    while True:
        out = []
        for _ in range(N_FRAMES // 10):
            out += [call(stream, PATH), frame(frames.RST, b"\0\0\0\x08", stream=stream)]
            stream += 2
        yield b"".join(out)


def endless_headers(rng: random.Random) -> Iterator[bytes]:
    """CONTINUATION upon CONTINUATION."""
    yield PREFACE + settings() + call(1, PATH, flags=0)
    while True:
        yield frame(frames.CONTINUATION, frames.literal(b"x-more", b"y" * 1000), stream=1) * 16


def many_streams(rng: random.Random) -> Iterator[bytes]:
    """Calls that are begun and never go on."""
    yield PREFACE + settings()
    for i in range(5000):
        yield call(2 * i + 1, PATH)


def window_lies(rng: random.Random) -> Iterator[bytes]:
    yield PREFACE + settings()
    while True:
        yield frame(frames.WINDOW, b"\x7f\xff\xff\xff", stream=0)


def half_message(rng: random.Random) -> Iterator[bytes]:
    """A call whose message is shorter than it says."""
    lengths = b"\0\xff\xff\xff\xff", b"\0\0\0\0\x10", b"\1\0\0\0\4"
    body = frame(frames.DATA, rng.choice(lengths) + b"abc", flags=END_STREAM, stream=1)
    yield PREFACE + settings() + call(1, PATH, flags=END_HEADERS) + body


ATTACKS: tuple[Callable[[random.Random], Iterator[bytes]], ...] = (
    bad_preface,
    half_preface,
    noise,
    half_frame,
    long_frame,
    odd_frames,
    settings_flood,
    ping_flood,
    rapid_reset,
    endless_headers,
    many_streams,
    window_lies,
    half_message,
)


def attack(one: Daemon, kind: Callable[[random.Random], Iterator[bytes]], rng: random.Random, until_s: float) -> None:
    """One connection after the other, each until it is closed or has had its turn."""
    while time.monotonic() < until_s:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(TURN_S)
            sock.connect(str(one.socket))
            end_s = min(until_s, time.monotonic() + TURN_S)
            for data in kind(rng):
                sock.sendall(data)
                with contextlib.suppress(BlockingIOError):
                    sock.recv(1 << 16, socket.MSG_DONTWAIT)
                time.sleep(PAUSE_S)
                if time.monotonic() > end_s:
                    break


def latencies_ms(one: Daemon, seconds: float) -> list[float]:
    """Of short requests of a client of good manners."""
    times_ms = []
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        start_s = time.monotonic()
        one.client.generate("small", "fake:tokens=2").text()
        times_ms.append((time.monotonic() - start_s) * 1e3)
    return times_ms


def measure(*, quick: bool, seed: int) -> Outcome:
    turn_s = 0.3 if quick else 5.0
    worst: dict[str, float] = {}
    with daemon(CONFIG, {"small": small_gguf()}) as (one, _):
        latencies_ms(one, 0.5)
        calm_ms = percentile(latencies_ms(one, 4 * turn_s), 0.99)
        before_bytes = one.rss_bytes()
        for kind in ATTACKS:
            until_s = time.monotonic() + turn_s
            threads = [
                threading.Thread(target=attack, args=(one, kind, random.Random(f"{seed} {kind.__name__} {i}"), until_s))
                for i in range(2)
            ]
            for thread in threads:
                thread.start()
            worst[kind.__name__] = percentile(latencies_ms(one, turn_s), 0.99)
            for thread in threads:
                thread.join()
        crowd_ms = percentile(beside_many(one, 2 * turn_s), 0.99)
        grown = one.rss_bytes() - before_bytes
        logged = exceptions(one)
    name, slowest_ms = max(worst.items(), key=lambda item: item[1])
    return Outcome(
        [
            of_runs("HTTP/2 garbage: p99 of others, worst kind", [slowest_ms], "ms", at_most=max(BAR_MS, 2 * calm_ms)),
            of_runs(
                f"{N_CONNECTIONS} broken connections: p99 of others", [crowd_ms], "ms", at_most=max(BAR_MS, 2 * calm_ms)
            ),
            of_runs("HTTP/2 garbage: growth of the daemon", [grown / 2**20], "MiB", at_most=50),
            of_runs("HTTP/2 garbage: exceptions in the log", [logged], "", at_most=0),
        ],
        [
            f"- garbage: p99 without it {calm_ms:.1f} ms; worst is {name}.",
            "- " + ", ".join(f"{kind} {p99_ms:.1f}" for kind, p99_ms in worst.items()) + " ms.",
        ],
    )


def beside_many(one: Daemon, seconds: float) -> list[float]:
    """Latencies while so many connections stand there with half of something."""
    with contextlib.ExitStack() as stack:
        for i in range(N_CONNECTIONS):
            sock = stack.enter_context(socket.socket(socket.AF_UNIX))
            sock.connect(str(one.socket))
            sock.sendall((PREFACE[:10], PREFACE, PREFACE + settings() + call(1, PATH))[i % 3])
        return latencies_ms(one, seconds)
