"""The chaos run: clients ask, cancel and are killed while workers are killed and stopped, the daemon is paused, models
come and go and the disk is full. Afterwards every history is whole, nothing accepted is lost, and nothing lies about.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc

from inferd import InferdError
from inferd.protos import inferd_pb2 as pb
from inferd.protos import inferd_pb2_grpc as stubs
from inferd.tests.e2e.daemons import until

from ..bench.figures import Outcome, of_runs
from . import truths
from .history import DONE, History, excuse, faults, read
from .house import daemon, exceptions, full_disk, small_gguf
from .leaks import Holdings, children, holdings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from inferd.tests.e2e.daemons import Daemon

    from .history import Truth

ROOT = Path(__file__).parents[2]
PAUSE_S = 0.7  # mean, between two faults
CALM_S = 90.0  # for all clients to end and all slots to be free, once nothing is done to them any more
BACK_OFF_S = 60.0  # the longest of a model whose worker ended without a token
HELPER = "a helper"
UNREAD = ("template_failed", "invalid")
CRASHES = ("worker_crashed", "model_failed")
REFUSED = frozenset(("draining", "queue_full", "overloaded", "no_room"))
FAKE = """
[fake]
enabled = true
tokens_per_s = 200
load_s = 0.05
[models.defaults]
slots = 3
context_tokens = 2048
"""
REAL = """
[models.defaults]
slots = 3
context_tokens = 512
threads = 1
"""
RECORDS = """
[records]
arrivals_file = "{0}/arrivals.csv"
decisions_file = "{0}/decisions.jsonl"
"""


@dataclass(slots=True)
class Storm:
    """One daemon, its clients, and what is done to both."""

    daemon: Daemon
    rng: random.Random
    models: tuple[str, ...]
    folder: Path  # for what clients write
    seconds: float
    state: Path  # the daemon's state folder, on a small disk if we may make one
    clients: dict[Path, subprocess.Popen[bytes]] = field(default_factory=dict)
    killed: set[Path] = field(default_factory=set)
    blows_s: dict[str, list[float]] = field(default_factory=dict)  # by model: when its worker was ended
    done: Counter[str] = field(default_factory=Counter)
    until_s: float = 0.0

    def run(self) -> None:
        self.until_s = time.monotonic() + self.seconds
        for model in self.models:
            self.start(model)
            self.start(model)
        deeds = self.deeds()
        while time.monotonic() < self.until_s:
            time.sleep(self.rng.expovariate(1 / PAUSE_S))
            name = self.rng.choice(list(deeds))
            with contextlib.suppress(InferdError, grpc.RpcError):
                self.done[name] += bool(deeds[name]())

    def deeds(self) -> dict[str, Callable[[], Any]]:
        """Each says whether it did something."""
        return {
            "kill": lambda: self.hit(signal.SIGKILL),
            "abort": lambda: self.hit(signal.SIGABRT),
            "stop": lambda: self.hit(signal.SIGSTOP),
            "kill a helper": self.hit_helper,
            "pause the daemon": self.pause,
            "unload": self.unload,
            "load": self.load,
            "drain": self.drain,
            "kill a client": self.kill_client,
            "fill the disk": self.fill,
        }

    def start(self, model: str) -> None:
        path = self.folder / f"{len(self.clients)}.jsonl"
        left_s = self.until_s - time.monotonic()
        command = [sys.executable, "-m", "tests.chaos.clients", self.daemon.address, str(path)]
        command += [str(self.rng.randrange(10**6)), str(left_s), "3", model]
        self.clients[path] = subprocess.Popen(command, cwd=ROOT)

    def hit(self, number: signal.Signals) -> bool:
        """A worker that is there. It is noted before, so that no end comes before its cause."""
        model = self.rng.choice(self.models)
        state = self.daemon.model(model)
        if state is None or not state.pid:
            return False
        self.blows_s.setdefault(model, []).append(time.monotonic())
        with contextlib.suppress(ProcessLookupError):
            os.kill(state.pid, number)
        return True

    def hit_helper(self) -> bool:
        """A process of the daemon's that is no model's worker: a prompt helper."""
        workers = {model.pid for model in self.daemon.snapshot().models}
        helpers = [pid for pid in children(self.daemon.process.pid) if pid not in workers and is_helper(pid)]
        if helpers:
            self.blows_s.setdefault(HELPER, []).append(time.monotonic())
            os.kill(self.rng.choice(helpers), signal.SIGKILL)
        return bool(helpers)

    def pause(self) -> bool:
        self.daemon.process.send_signal(signal.SIGSTOP)
        time.sleep(self.rng.uniform(0.1, 1.5))
        self.daemon.process.send_signal(signal.SIGCONT)
        return True

    def unload(self) -> bool:
        return self.daemon.client.unload(self.rng.choice(self.models))

    def load(self) -> bool:
        self.daemon.client.load(self.rng.choice(self.models)).wait()
        return True

    def drain(self) -> bool:
        admin = stubs.AdminStub(self.daemon.channel)
        admin.Drain(pb.DrainRequest(draining=True), timeout=10)
        time.sleep(self.rng.uniform(0.1, 0.5))
        admin.Drain(pb.DrainRequest(draining=False), timeout=10)
        return True

    def kill_client(self) -> bool:
        path = self.rng.choice([path for path in self.clients if path not in self.killed])
        self.clients[path].kill()
        self.killed.add(path)
        self.start(self.rng.choice(self.models))
        return True

    def fill(self) -> bool:
        """The disk of the state, for a moment."""
        if not self.state.is_mount():
            return False
        with full_disk(self.state):
            time.sleep(self.rng.uniform(0.2, 1.0))
        return True

    def calm(self) -> float:
        """Until all clients have ended and nothing lives; the seconds it took."""
        start_s = time.monotonic()
        for client in self.clients.values():
            client.wait(CALM_S)
        until(self.daemon.idle, CALM_S)
        return time.monotonic() - start_s

    def histories(self) -> list[History]:
        found: list[History] = []
        for path in self.clients:
            if path.exists():
                with path.open("rb") as lines:
                    found += read(lines, killed=path in self.killed).values()
        return found


def is_helper(pid: int) -> bool:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return b"inferd.backends.prepare" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def judge(histories: list[History], known: Mapping[str, Truth], blows_s: Mapping[str, list[float]]) -> list[str]:
    """Every fault of every history."""
    found = []
    for history in histories:
        model = truths.model_of(history.key)
        blows = [at_s for name, times in blows_s.items() if model in ("", name) for at_s in times]
        excuse(history, CRASHES, blows)
        excuse(history, UNREAD, blows_s.get(HELPER, ()))
        if not history.pieces:  # its model was in back-off: it was refused at the door
            excuse(history, ("model_failed",), blows, before_s=BACK_OFF_S)
        found += faults(history, known[history.key])
        late = REFUSED & {end.code for end in history.ends}
        if late and history.pieces:
            found.append(f"{history.id}: refused with {', '.join(late)} after it had begun")
    return found


def at_rest(one: Daemon) -> Holdings:
    """With every model unloaded and every helper ended; nobody is connected but we."""
    for model in one.snapshot().models:
        if model.state != "cold":
            with contextlib.suppress(InferdError):
                one.client.unload(model.name)
    until(lambda: all(not model.pid for model in one.snapshot().models))
    until(lambda: not children(one.process.pid))
    return holdings(one.process.pid, one.log.parent)


def measure(*, quick: bool, seed: int) -> Outcome:
    outcome = Outcome([])
    plans = (
        ("fake", FAKE + RECORDS, truths.FAKES, 8.0 if quick else 120.0),
        ("demo", REAL + RECORDS, (truths.REAL,), 5.0 if quick else 60.0),
    )
    for name, config, models, seconds in plans:
        weather(outcome, name, config, models, seconds, random.Random(f"{seed} {name}"))
    return outcome


def weather(
    outcome: Outcome,
    name: str,
    config: str,
    models: tuple[str, ...],
    seconds: float,
    rng: random.Random,
    watch: Callable[[Daemon], contextlib.AbstractContextManager[object]] = contextlib.nullcontext,
) -> None:
    """One storm over a daemon of its own; `watch` is around it."""
    files = {model: small_gguf() for model in models if model in truths.FAKES}
    # Helpers of cold models end soon, so that what is left afterwards is nothing.
    config = config.replace("[models.defaults]", "[models.defaults]\nkeep_alive_s = 3")
    with daemon(config, files, state_bytes=1 << 20) as (one, state):
        folder = one.log.parent / "clients"
        folder.mkdir()
        known = truths.of_fakes() if models == truths.FAKES else truths.of_real(one.client)
        for model in models:
            one.client.generate(model, "warm").text()
        base = at_rest(one)
        booked = one.snapshot().host.booked_bytes
        storm = Storm(one, rng, models, folder, seconds, state)
        with watch(one):
            storm.run()
        calm_s = storm.calm()
        histories = storm.histories()
        found = judge(histories, known, storm.blows_s)
        left = at_rest(one).beyond(base, files=4, threads=4)
        left += [f"{path} lies about" for path in state.rglob(".*")]
        if one.snapshot().host.booked_bytes != booked:
            left.append(f"{one.snapshot().host.booked_bytes - booked} bytes are still booked")
        found += [f"{exceptions(one)} exceptions in the log"] * bool(exceptions(one))
        _report(outcome, name, storm, histories, found, left, calm_s)


def _report(
    outcome: Outcome,
    name: str,
    storm: Storm,
    histories: list[History],
    found: list[str],
    left: list[str],
    calm_s: float,
) -> None:
    ends = Counter(end.code or "done" for history in histories for end in history.ends)
    lost = sum(not history.ends and not history.left for history in histories)
    whole = sum(end.code == DONE for history in histories for end in history.ends)
    outcome.figures += [
        of_runs(f"storm ({name}): histories with a fault", [len(found)], "", at_most=0),
        of_runs(f"storm ({name}): accepted requests without an end", [lost], "", at_most=0),
        of_runs(f"storm ({name}): answers that came whole", [whole], "", at_least=10),
        of_runs(f"storm ({name}): what was left behind", [len(left)], "", at_most=0),
        of_runs(f"storm ({name}): until all was calm", [calm_s], "s", at_most=CALM_S),
    ]
    deeds = ", ".join(f"{deed} {n}" for deed, n in sorted(storm.done.items()))
    outcome.lines += [
        f"- {name}: {len(histories)} requests ({', '.join(f'{code} {n}' for code, n in ends.most_common())}); {deeds}.",
        *(f"  - FAULT {fault}" for fault in found[:20]),
        *(f"  - LEFT {one}" for one in left[:20]),
    ]
