"""The loop inside a worker process: python -m inferd.backends.worker --fd N.

One thread: drain messages, step the engine, send what happened. The daemon's end of the socket pair is its
only tie to the world; when that closes, the worker ends.
"""

from __future__ import annotations

import argparse
import os
import socket
import threading
import time
from importlib import import_module
from typing import TYPE_CHECKING

import msgspec

from . import cage
from .channel import SyncChannel
from .child import settle
from .engine import Embedder, Inferrer, LoadError
from .messages import (
    Cancel,
    Cores,
    Embed,
    Given,
    Infer,
    Load,
    LoadFailed,
    Loading,
    Step,
    Stop,
    Stored,
    Submit,
    decode_to_worker,
    encode,
)
from .pulse import Pulse
from .shelf import Shelf

if TYPE_CHECKING:
    from collections.abc import Callable

    from .engine import Engine
    from .facts import LoadPlan
    from .messages import FromWorker

STATS_EVERY_S = 1.0
PROGRESS_STEP = 0.01
ENGINES = {
    "llama": ".llama.loading",
    "onnx": ".onnx.loading",
    "fake": ".fake",
}  # a new backend: one folder, one row here, one in kinds


class _Stopped(Exception):
    """Stop came while the model was loading."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="inferd-worker")
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--shelf-fd", type=int, required=True)
    parser.add_argument("--pulse-fd", type=int, required=True)
    options = parser.parse_args()
    channel = SyncChannel(settle(options.fd))
    shelf = Shelf(channel, socket.socket(fileno=options.shelf_fd))
    try:
        engine = load(channel, shelf, cage.close_in)
        if engine is not None:
            serve(channel, engine, shelf, Pulse(options.pulse_fd))
            engine.close()
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass  # the daemon is gone, and with it every reason to go on


def load(channel: SyncChannel, shelf: Shelf, close_in: Callable[[LoadPlan], str] = lambda _: "") -> Engine | None:
    """Load the model of the first message and say so; None when it cannot be.

    `close_in` comes first, and before any library: some begin threads, which would be outside.
    """
    frame = channel.recv(block=True)
    assert frame is not None
    message = decode_to_worker(frame)
    assert isinstance(message, Load)
    try:
        held = close_in(message.plan)
        engine = open_engine(message.plan, channel, shelf)
    except LoadError as error:
        _send(channel, LoadFailed(error.code, str(error)))
        return None
    except MemoryError:
        _send(channel, LoadFailed("memory", "not enough memory to load the model"))
        return None
    except _Stopped:
        return None
    _send(channel, msgspec.structs.replace(engine.ready, cage=held))
    return engine


def open_engine(plan: LoadPlan, channel: SyncChannel, shelf: Shelf) -> Engine:
    told = -1.0

    def progress(fraction: float) -> None:
        nonlocal told
        if fraction - told >= PROGRESS_STEP:
            told = fraction
            _send(channel, Loading(fraction))
            if (frame := channel.recv(block=False)) is not None:
                assert isinstance(decode_to_worker(frame), Stop)  # nothing else is said before Ready
                raise _Stopped

    module = import_module(ENGINES[plan.backend], __package__)
    engine: Engine = module.load(plan, progress, shelf)
    return engine


def serve(channel: SyncChannel, engine: Engine, shelf: Shelf, pulse: Pulse) -> None:
    """Until Stop. Statistics go out once a second of work, and once when work ends."""
    inbox = Inbox(channel, engine, shelf, pulse)
    threading.Thread(target=pulse.beat, name="pulse", daemon=True).start()
    if engine.wake_fd >= 0:
        channel.wake_on(engine.wake_fd)
    told_s = 0.0
    idle_told = False
    while True:
        busy = engine.busy()
        if not busy and not idle_told:
            _send_stats(channel, engine)
            idle_told = True
        if inbox.hand_over(block=not busy):
            return
        pulse.begin()
        events = engine.step(inbox.listen)
        pulse.end()
        if events:
            idle_told = False
            _send(channel, Step(events))
        now_s = time.monotonic()
        if now_s - told_s >= STATS_EVERY_S:
            told_s = now_s
            _send_stats(channel, engine)


class Inbox:
    """What the daemon says to a loaded engine."""

    def __init__(self, channel: SyncChannel, engine: Engine, shelf: Shelf, pulse: Pulse) -> None:
        self._channel = channel
        self._pulse = pulse
        self._shelf = shelf
        self._engine = engine
        self._stopped = False

    def listen(self) -> bool:
        """In a long step, which gets on."""
        self._pulse.begin()
        return self.hand_over()

    def hand_over(self, *, block: bool = False) -> bool:
        """Hand over every message that waits; True once Stop has come."""
        while not self._stopped and (frame := self._channel.recv(block=block)) is not None:
            block = False
            match decode_to_worker(frame):
                case Submit() as submit:
                    self._engine.submit(submit)
                case Embed() as order:
                    assert isinstance(self._engine, Embedder)
                    self._engine.embed(order)
                case Infer() as order:
                    assert isinstance(self._engine, Inferrer)
                    n_bytes = sum(tensor.n_bytes for tensor in order.inputs)
                    self._engine.infer(order, self._shelf.receive_blob(n_bytes, order.data))
                case Cancel(job=job, attempt=attempt):
                    self._engine.cancel(job, attempt)
                case Cores(n_threads=n_threads):
                    self._engine.use_threads(n_threads)
                case Stored() | Given() as of_runs:
                    self._shelf.take(of_runs)
                case Stop():
                    self._stopped = True
                case other:
                    raise AssertionError(f"not for a worker: {other}")
        return self._stopped


def _send(channel: SyncChannel, message: FromWorker) -> None:
    channel.send(encode(message))


def _send_stats(channel: SyncChannel, engine: Engine) -> None:
    with open("/proc/self/statm", "rb") as file:
        rss_bytes = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    _send(channel, msgspec.structs.replace(engine.stats(), rss_bytes=rss_bytes))


if __name__ == "__main__":
    main()
