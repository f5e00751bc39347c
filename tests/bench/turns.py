"""Turns on a live daemon: an urgent request behind 300 others, two models in the room of one, a parked run, leases.

llama-server gets the first two as well, in the same run and with the same model: it has neither classes nor a bound on
how long a model waits for its memory.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from inferd import Client, InferdError

from . import daemon, models, rival
from .figures import Figure, Outcome, of_runs, spread

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from inferd.protos.streams import Generation

N_QUEUED = 300
N_QUEUED_OUT = 2000  # of each: so many that all but a few still wait when the last has been sent
N_SERVED = 10  # of those, at most, before the last one waits
N_OUT = 16  # of each request of those who hammer
PROMPT = list(range(300, 332))
MAX_WAIT_S = 2.0
HOG_S = 12.0
N_LEASES = 1_000
N_KEYSTROKES = 50


def measure(*, quick: bool) -> Outcome:
    n_runs = 1 if quick else 5
    model, binary = models.sixty_million(), rival.binary()
    outcome = Outcome([])
    _urgent(outcome, models.tiny(), binary, n_runs)
    _say(outcome)
    _hog(outcome, model, binary, 1 if quick else 3)
    _say(outcome)
    _parked(outcome, model, 1 if quick else 3)
    _say(outcome)
    _keystrokes(outcome, model, n_runs)
    _say(outcome)
    _leases(outcome, 50 if quick else N_LEASES)
    return outcome


def _say(outcome: Outcome) -> None:
    print(f"{outcome.figures[-1].name}: {outcome.figures[-1].value:.3g}", flush=True)


def _config(folder: Path, extra: str = "", *, slots: int = 1, defaults: str = "") -> str:
    return f"""
{extra}
[models]
folders = ["{folder}"]
[models.defaults]
slots = {slots}
threads = 2
context_tokens = 4096
kv_cells = {4096 * slots}
keep_alive_s = -1
{defaults}
"""


# an urgent request behind 300 others


def _urgent(outcome: Outcome, model: Path, binary: Path, n_runs: int) -> None:
    ours, theirs = [], []
    with daemon.running(_config(model.parent)) as one, Client(one.address, timeout_s=None) as client:
        client.load(model.stem).wait()
        for _ in range(n_runs):
            ours.append(_urgent_ours(client, model.stem))
    with rival.running(binary, model, rival.Settings(True, 512, True), slots=1, cells=4096, threads=2) as server:
        for _ in range(n_runs):
            theirs.append(_urgent_theirs(server))
    name = f"TTFT of an interactive 1-token request behind {N_QUEUED} batch requests"
    outcome.figures.append(of_runs(name, ours, "s", at_most=0.3))
    outcome.lines.append(
        f"Urgent request: inferd {spread(ours, 3)} s behind requests of {N_QUEUED_OUT} tokens; llama-server, which "
        f"has no classes, {spread(theirs, 2)} s behind requests of {N_OUT}."
    )


def _urgent_ours(client: Client, model: str) -> float:
    batch = [
        client.generate(model, PROMPT, max_tokens=N_QUEUED_OUT, ignore_eos=True, temperature=0.0, priority="batch")
        for _ in range(N_QUEUED)
    ]
    _until(lambda: client.snapshot().rates.num_requests_waiting >= N_QUEUED - N_SERVED)
    start_s = time.monotonic()
    answer = client.generate(model, PROMPT, max_tokens=1, ignore_eos=True, temperature=0.0)
    took_s = time.monotonic() - start_s if answer.text() is not None else 0.0
    for one in batch:
        one.cancel()
    _until(lambda: not client.snapshot().requests)
    return took_s


def _urgent_theirs(server: rival.Server) -> float:
    with ThreadPoolExecutor(N_QUEUED + 1) as threads:
        batch = [threads.submit(rival.generate, server, PROMPT, N_OUT) for _ in range(N_QUEUED)]
        time.sleep(1.0)  # llama-server has no way to ask how many wait; all are sent within this
        start_s = time.monotonic()
        took_s = rival.generate(server, PROMPT, 1) - start_s
        for one in batch:
            one.result()
    return took_s


# two models that do not fit together


@contextlib.contextmanager
def _two(model: Path) -> Iterator[Path]:
    """A folder with the model under two names."""
    folder = models.CACHE / f"two-{model.stem}"
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("a", "b"):
        if not (copy := folder / f"{name}.gguf").exists():
            shutil.copy(model, copy)
    yield folder


def _hog(outcome: Outcome, model: Path, binary: Path, n_runs: int) -> None:
    with _two(model) as folder:
        ours = [_hog_ours(folder) for _ in range(n_runs)]
        theirs = [_hog_theirs(binary, folder)]
    waits_s = [wait_s for wait_s, _ in ours]
    swaps = [n for _, n in ours]
    name = f"a request for b while three clients hammer a (longest wait {MAX_WAIT_S:g} s): answered after"
    outcome.figures.append(of_runs(name, waits_s, "s", at_most=MAX_WAIT_S))
    bound = 2 * HOG_S / MAX_WAIT_S
    outcome.figures.append(of_runs(f"swaps in these {HOG_S:g} s", swaps, "", at_most=bound))
    told = f"{theirs[0]:.1f} s (three clients for {HOG_S:g} s)"
    outcome.lines.append(f"Two models in the room of one: inferd {spread(waits_s, 2)} s, llama-server's router {told}.")


def _hog_ours(folder: Path) -> tuple[float, float]:
    with daemon.running(_config(folder, slots=4)) as one, Client(one.address) as client:
        needed_bytes = client.plan("a").pools[0].needed_bytes
    config = _config(folder, f"[memory]\nhost_budget_bytes = {needed_bytes * 3 // 2}", slots=4)
    with daemon.running(config) as one, Client(one.address) as client:
        client.load("a").wait()
        stop = threading.Event()
        threads = ThreadPoolExecutor(3)
        hogs = [threads.submit(_hammer, one.address, stop) for _ in range(3)]
        _until(lambda: client.snapshot().rates.num_requests_running == 3)
        start_s = time.monotonic()
        client.generate("b", PROMPT, max_tokens=1, ignore_eos=True, temperature=0.0).text()
        took_s = time.monotonic() - start_s
        time.sleep(max(0.0, HOG_S - 2.0 - took_s))
        swaps = client.snapshot().rates.evictions_total
        stop.set()
        for hog in hogs:
            hog.result()  # one that failed would have made the figure better
        threads.shutdown()
    return took_s, float(swaps)


def _hammer(address: str, stop: threading.Event) -> None:
    with Client(address) as client:
        while not stop.is_set():
            client.generate("a", PROMPT, max_tokens=N_OUT, ignore_eos=True, temperature=0.0).text()


def _hog_theirs(binary: Path, folder: Path) -> float:
    with rival.router(binary, folder, slots=4, cells=4096 * 4, threads=2) as server:
        rival.generate(server, PROMPT, 1, model="a")
        end_s = time.monotonic() + HOG_S

        def hammer() -> None:
            while time.monotonic() < end_s:
                rival.generate(server, PROMPT, N_OUT, model="a")

        hogs = [threading.Thread(target=hammer) for _ in range(3)]
        for hog in hogs:
            hog.start()
        time.sleep(2.0)  # until a is under load
        start_s = time.monotonic()
        took_s = rival.generate(server, PROMPT, 1, model="b") - start_s
        for hog in hogs:
            hog.join()
    return took_s


# a parked run


def _parked(outcome: Outcome, model: Path, n_runs: int) -> None:
    wrong = parks = 0
    config = _config(model.parent, defaults='numerics = "exact"')
    with daemon.running(config) as one, Client(one.address, timeout_s=None) as client:
        client.load(model.stem).wait()
        for seed in range(n_runs):
            for temperature in (0.0, 1.0):
                alone = _tokens(client, model.stem, seed, temperature)
                parked, n = _tokens_parked(client, model.stem, seed, temperature)
                parks += n
                wrong += parked != alone
        _until(lambda: not client.snapshot().requests)
        rates = client.snapshot().rates
    assert parks >= 2 * n_runs, f"only {parks} parks: nothing was compared"
    figure = Figure("parked runs that differ from the unparked one", wrong, wrong, wrong, 2 * n_runs, "", 0, False)
    outcome.figures.append(figure)
    wasted = dict(rates.wasted_tokens_total)
    unexplained = rates.computed_tokens_total - rates.delivered_tokens_total - sum(wasted.values())
    name = "tokens computed in these runs, less those delivered and those wasted by reason"
    outcome.figures.append(Figure(name, unexplained, unexplained, unexplained, 1, "", 0, False))
    outcome.lines.append(
        f"Tokens of these runs: {rates.computed_tokens_total:,} computed, {rates.delivered_tokens_total:,} delivered, "
        f"wasted: {wasted}."
    )
    outcome.lines.append(f"Parked runs: {2 * n_runs} (greedy and sampled, 200 tokens), parked {parks} times in all.")


def _tokens(client: Client, model: str, seed: int, temperature: float) -> list[int]:
    options = {"max_tokens": 200, "ignore_eos": True, "seed": seed, "temperature": temperature}
    answer = client.generate(model, PROMPT, priority="batch", **options)  # type: ignore[arg-type]
    return [token for delta in answer for token in delta.tokens]


def _tokens_parked(client: Client, model: str, seed: int, temperature: float) -> tuple[list[int], int]:
    options = {"max_tokens": 200, "ignore_eos": True, "seed": seed, "temperature": temperature}
    answer = client.generate(model, PROMPT, priority="batch", **options)  # type: ignore[arg-type]
    tokens: list[int] = []
    for delta in answer:
        if len(tokens) // 60 < (len(tokens) + len(delta.tokens)) // 60:  # three times on the way
            client.generate(model, PROMPT, max_tokens=2, ignore_eos=True).text()
        tokens += delta.tokens
    return tokens, answer.resumed


# an editor's keystrokes


def _keystrokes(outcome: Outcome, model: Path, n_runs: int) -> None:
    computed = []
    with daemon.running(_config(model.parent, slots=4)) as one, Client(one.address) as client:
        client.load(model.stem).wait()
        for _ in range(n_runs):
            computed.append(float(_keystroke_burst(client, model.stem)))
    outcome.figures.append(
        of_runs(f"prompts computed for {N_KEYSTROKES} keystrokes with one supersede_key", computed, "", at_most=2)
    )


def _keystroke_burst(client: Client, model: str) -> int:
    prompts = [list(range(300, 2300 + i)) for i in range(N_KEYSTROKES)]
    options = {"max_tokens": 4, "ignore_eos": True, "temperature": 0.0, "supersede_key": "editor"}
    answers = [client.generate(model, prompt, **options) for prompt in prompts]  # type: ignore[arg-type]
    first = [_first_tokens(answer) for answer in answers]
    assert first[-1], "the last keystroke counts"
    return sum(map(bool, first))


def _first_tokens(answer: Generation) -> list[int]:
    """[] when another took its place before its prompt was computed; any other failure is one of the bench."""
    try:
        return next(iter(answer)).tokens
    except InferdError as error:
        if error.code != "superseded":
            raise
        return []


# leases


def _leases(outcome: Outcome, n: int) -> None:
    """Two clients want two models in the room of one, each with a lease; one of them is killed in the middle."""
    with _two(models.tiny()) as folder:
        extra = f"[fake]\nenabled = true\n[scheduler]\nmin_resident_s = 0.0\n[memory]\nhost_budget_bytes = {45 << 20}"
        with daemon.running(_config(folder, extra)) as one:
            failures, swaps, leaked = _race(one.address, n)
    outcome.figures.append(Figure("failures of two clients racing swaps under leases", failures, 0, 0, n, "", 0, False))
    outcome.figures.append(Figure("leases left after one client was killed", leaked, 0, 0, 1, "", 0, False))
    outcome.lines.append(f"Leases: {n} in turn by two clients, {swaps} swaps.")


def _race(address: str, n: int) -> tuple[int, int, int]:
    killed = subprocess.Popen([sys.executable, "-c", HOLD, address], stdout=subprocess.PIPE, text=True)
    assert killed.stdout is not None
    assert killed.stdout.readline() == "held\n"
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    with ThreadPoolExecutor(2) as threads:
        failures = sum(threads.map(lambda name: _lease_in_turn(address, name, n // 2), ("a", "b")))
    with Client(address) as client:
        swaps = client.snapshot().rates.evictions_total
        leaked = sum(holder.stays == "leased" for holder in client.plan("a").holders)
        leaked += sum(holder.stays == "leased" for holder in client.plan("b").holders)
    return failures, swaps, leaked


HOLD = """
import sys, time
from inferd import Client
with Client(sys.argv[1]).lease("a"):
    print("held", flush=True)
    time.sleep(600)
"""


def _lease_in_turn(address: str, name: str, n: int) -> int:
    failures = 0
    with Client(address, timeout_s=None) as client:
        for _ in range(n):
            try:
                with client.lease(name):
                    client.generate(name, [1, 2, 3], max_tokens=2, ignore_eos=True).text()
            except Exception as error:
                print(f"lease of {name}: {error}", flush=True)
                failures += 1
    return failures


def _until(condition, limit_s: float = 60.0) -> None:  # type: ignore[no-untyped-def]
    end_s = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > end_s:
            raise RuntimeError(f"not within {limit_s:g} s")
        time.sleep(0.02)
