"""Workers that stand still, models that are loaded and unloaded by many at once, a daemon that is told to end with work
in hand, and one that is killed: how long each takes, and what is left."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import threading
import time
from functools import partial
from itertools import pairwise
from pathlib import Path

from inferd import Client, InferdError
from inferd.tests.e2e.daemons import Launcher, alive, children, until

from ..bench.figures import Outcome, of_runs, spread
from .house import daemon, small_gguf

FAKE = """
[fake]
enabled = true
tokens_per_s = 100
[models.defaults]
slots = 4
keep_alive_s = -1
"""
N_CLIENTS = 8
BACKLOG = 400  # requests of 2 s each in 4 slots: far more than a drain waits for


def measure(*, quick: bool, seed: int) -> Outcome:
    outcome = Outcome([])
    stopped(outcome, 1 if quick else 10)
    hung(outcome)
    cycles(outcome, 3 if quick else 200)
    drained(outcome, 1.0 if quick else 30.0)
    killed(outcome, 1 if quick else 5)
    return outcome


def stopped(outcome: Outcome, n_runs: int) -> None:
    """SIGSTOP under a stream: until its next token."""
    gaps_s: list[float] = []
    n_wrong = 0
    with daemon(FAKE, {"small": small_gguf()}) as (one, _):
        for _ in range(n_runs):
            answer = one.client.generate("small", "fake:tokens=60")
            n_tokens = 0
            came_s: list[float] = []  # since it was stopped
            for delta in answer:
                if came_s:
                    came_s.append(time.monotonic())
                before, n_tokens = n_tokens, n_tokens + len(delta.tokens)
                if before < 20 <= n_tokens:
                    os.kill(one.worker_pid("small"), signal.SIGSTOP)
                    came_s.append(time.monotonic())
            # What was on its way when the worker stopped comes at once; then there is the gap.
            gaps_s.append(max(b - a for a, b in pairwise(came_s)))
            n_wrong += (n_tokens, answer.resumed) != (60, 1)
    outcome.figures += [
        of_runs("a stopped worker: until its stream goes on, longest", [max(gaps_s)], "s", at_most=3.0),
        of_runs("the same: answers that are not whole", [n_wrong], "", at_most=0),
    ]
    outcome.lines.append(f"- stopped: {spread(gaps_s, 2)} s until the next token, {n_runs} runs.")


def hung(outcome: Outcome) -> None:
    """A step that never ends, with a limit of a second."""
    with daemon(f"[server]\nstep_limit_s = 1\n{FAKE}", {"small": small_gguf()}) as (one, _):
        one.client.generate("small", "fake:tokens=5").text()
        start_s = time.monotonic()
        answer = one.client.generate("small", "fake:tokens=20 fake:hang=10")
        n_tokens = sum(len(delta.tokens) for delta in answer)
        took_s = time.monotonic() - start_s if n_tokens == 20 else float("inf")
    outcome.figures.append(
        of_runs("a hanging step, limit 1 s: until the answer is whole", [took_s], "s", at_most=5),
    )


def cycles(outcome: Outcome, n_each: int) -> None:
    """L6. The same model loaded and unloaded by eight clients: never two copies, no deadlock, nothing left."""
    most = 0
    errors: list[InferdError] = []
    with daemon(FAKE, {"small": small_gguf()}) as (one, _):
        booked = one.snapshot().host.booked_bytes
        over = threading.Event()

        def cycle() -> None:
            with Client(one.address) as client:
                for _ in range(n_each):
                    try:
                        client.load("small").wait()
                        client.unload("small")
                    except InferdError as error:
                        errors.append(error)

        def watch() -> None:
            nonlocal most
            while not over.is_set():
                most = max(most, sum(is_worker(pid) for pid in children(one.process.pid)))
                time.sleep(0.005)

        start_s = time.monotonic()
        threads = [threading.Thread(target=cycle) for _ in range(N_CLIENTS)]
        watching = threading.Thread(target=watch)
        for thread in (watching, *threads):
            thread.start()
        for thread in threads:
            thread.join()
        took_s = time.monotonic() - start_s
        over.set()
        watching.join()
        with one.client.events(follow=False) as events:
            n_loads = sum(event.kind == "model_ready" for event in events)
        one.client.unload("small")
        until(lambda: one.snapshot().host.booked_bytes == booked, 10.0)
    title = f"{n_each} load/unload cycles by each of {N_CLIENTS} clients"
    outcome.figures += [
        of_runs(f"{title}: copies at a time", [most], "", at_most=1),
        of_runs(f"{title}: unexpected errors", [sum(error.code != "cancelled" for error in errors)], "", at_most=0),
    ]
    ended = f"{len(errors)} loads were ended by another client's unload"
    outcome.lines.append(f"- cycles: {took_s:.1f} s, in which it was loaded {n_loads} times; {ended}.")


def is_worker(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return b"inferd.backends.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def drained(outcome: Outcome, drain_s: float) -> None:
    """SIGTERM with more work than the time allows."""
    with daemon(f"[server]\ndrain_s = {drain_s}\n{FAKE}", {"small": small_gguf()}) as (one, _):
        calls = [one.client.generate("small", "fake:tokens=200") for _ in range(BACKLOG)]
        readers = [threading.Thread(target=_read, args=(call,)) for call in calls]
        for reader in readers:
            reader.start()
        until(lambda: len(one.snapshot().requests) > BACKLOG // 2)
        start_s = time.monotonic()
        code = one.terminate()
        took_s = time.monotonic() - start_s
        for reader in readers:
            reader.join()
    outcome.figures += [
        of_runs(f"SIGTERM with a backlog, {drain_s:g} s to finish: until the end", [took_s], "s", at_most=drain_s + 10),
        of_runs("the same: exit code", [code], "", at_most=0),
    ]


def _read(call: object) -> None:
    with contextlib.suppress(InferdError):
        for _ in call:  # type: ignore[attr-defined]
            pass


def killed(outcome: Outcome, n_runs: int) -> None:
    """kill -9 of the daemon: its children are gone, and the next one serves."""
    orphans_s, serving_s = [], []
    with tempfile.TemporaryDirectory(prefix="inferd-chaos-") as folder:
        launcher = Launcher(Path(folder))
        launcher.models.mkdir()
        (launcher.models / "small.gguf").write_bytes(small_gguf())
        with contextlib.closing(launcher):
            for _ in range(n_runs):
                one = launcher.start(FAKE)
                one.client.generate("small", "fake:tokens=5").text()
                below = children(one.process.pid)
                assert below
                one.process.kill()
                one.process.wait()
                orphans_s.append(until(partial(_all_gone, below), 10.0))
                one.close()
                start_s = time.monotonic()
                again = launcher.start(FAKE)
                serving_s.append(time.monotonic() - start_s)
                again.client.generate("small", "fake:tokens=5").text()
                again.terminate()
    outcome.figures += [
        of_runs("kill -9 of the daemon: until no child is left, longest", [max(orphans_s)], "s", at_most=2.0),
        of_runs("the same: until the next one serves, longest", [max(serving_s)], "s", at_most=2.0),
    ]
    outcome.lines.append(f"- killed: serving again after {spread(serving_s, 2)} s, {n_runs} runs.")


def _all_gone(pids: list[int]) -> bool:
    return not any(map(alive, pids))
