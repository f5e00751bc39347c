"""Durable jobs through crashes of the daemon: so many results as jobs, none twice, and each what it would have been."""

from __future__ import annotations

import itertools
import os
import random
import signal
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from inferd.protos.errors import InferdError
from inferd.tests.conftest import Gguf
from inferd.tests.e2e.daemons import Launcher, alive, children, until

from ..bench.figures import Outcome, of_runs

if TYPE_CHECKING:
    from inferd.tests.e2e.daemons import Daemon

CONFIG = """
[fake]
enabled = true
tokens_per_s = 300
[models.defaults]
slots = 8
context_tokens = 4096
keep_alive_s = -1
"""
LIMIT_S = 300.0
LIFE_S = (0.02, 0.8)  # of a daemon, once it serves


@dataclass
class Report:
    """What was found. `lost`, `twice` and `wrong` are ids; none may be there."""

    seed: int
    n_jobs: int
    n_crashes: int = 0
    n_done: int = 0
    n_resumed: int = 0  # jobs that went on after a crash
    lost: list[str] = field(default_factory=list)  # acknowledged, and not there or not done
    twice: list[str] = field(default_factory=list)  # two results for one key
    wrong: list[str] = field(default_factory=list)  # another text than undisturbed
    broken: list[str] = field(default_factory=list)  # what readers saw has a gap, a repeat, or changed
    restart_s: list[float] = field(default_factory=list)  # from the start of the process to serving
    took_s: float = 0.0

    @property
    def sound(self) -> bool:
        return self.n_done == self.n_jobs and not (self.lost or self.twice or self.wrong or self.broken)


def prompt(n: int, rng: random.Random) -> str:
    return f"fake:tokens={rng.choice((3, 20, 60, 150, 400))} number {n}"


class Submitter(threading.Thread):
    """Submits every job until it is acknowledged, each by its key, as a client does that is cut off."""

    def __init__(self, address: str, prompts: list[str], seed: int) -> None:
        super().__init__(name="submitter", daemon=True)
        self.address, self.prompts, self.seed = address, prompts, seed
        self.acknowledged: dict[str, str] = {}  # key -> id
        self.twice: list[str] = []
        self.stopped = False

    def run(self) -> None:
        from inferd import Client

        with Client(self.address, connect_timeout_s=30.0) as client:
            for n, text in enumerate(self.prompts):
                key = f"{self.seed}-{n}"
                while not self.stopped and not self._submit(client, text, key):
                    time.sleep(0.01)
                if n % 7 == 0 and not self.stopped:  # once more, as if the answer had been lost
                    self._submit(client, text, key)
                time.sleep(0.005)

    def _submit(self, client: object, text: str, key: str) -> bool:
        try:
            job = client.submit_job("small", text, key=key, raw=True, seed=1)  # type: ignore[attr-defined]
        except InferdError:
            return False
        if self.acknowledged.setdefault(key, job.id) != job.id:
            self.twice.append(job.id)
        return True


class Follower(threading.Thread):
    """Reads one job's answer by offset, over all crashes, and remembers every token that it saw."""

    def __init__(self, address: str, job_id: str) -> None:
        super().__init__(name=f"follower of {job_id}", daemon=True)
        self.address, self.job_id = address, job_id
        self.tokens: list[int] = []
        self.text = ""
        self.fault = ""

    def run(self) -> None:
        from inferd import Client

        end_s = time.monotonic() + LIMIT_S
        with Client(self.address, connect_timeout_s=30.0) as client:
            while time.monotonic() < end_s:
                answer = client.stream_job(self.job_id, len(self.tokens))
                try:
                    for delta in answer:
                        if delta.index != len(self.tokens):
                            self.fault = f"token {delta.index} came after {len(self.tokens)} tokens"
                        self.tokens += delta.tokens
                        self.text += delta.text
                except InferdError:
                    continue
                return


def measure(*, quick: bool, seed: int) -> Outcome:
    """200 jobs, while their daemon is killed 50 times."""
    report = run(seed, *((5, 40) if quick else (50, 200)))
    outcome = Outcome([])
    counts = {"lost": report.lost, "ended twice": report.twice, "wrong": report.wrong, "seen with a gap": report.broken}
    for what, ids in counts.items():
        name = f"durable jobs {what}, of {report.n_jobs} through {report.n_crashes} deaths of the daemon"
        outcome.figures.append(of_runs(name, [len(ids)], "", at_most=0))
    outcome.figures.append(of_runs("durable jobs: results", [report.n_done], "", at_least=report.n_jobs))
    outcome.figures.append(
        of_runs("the daemon after a kill -9, with jobs: serving", report.restart_s, "s", at_most=2.0)
    )
    outcome.lines.append(f"- {report.n_resumed} of {report.n_jobs} jobs went on after a crash; {report.took_s:.0f} s.")
    return outcome


def run(seed: int, n_loops: int = 50, n_jobs: int = 200, folder: Path | None = None) -> Report:
    """Crash a daemon so many times while so many jobs are submitted and done; then let it finish, and compare."""
    with tempfile.TemporaryDirectory(prefix="inferd-") as own:
        return _run(seed, n_loops, n_jobs, folder or Path(own))


def _run(seed: int, n_loops: int, n_jobs: int, folder: Path) -> Report:
    start_s, rng, report = time.monotonic(), random.Random(seed), Report(seed, n_jobs)
    launcher = Launcher(folder)
    launcher.models.mkdir(exist_ok=True)
    (launcher.models / "small.gguf").write_bytes(Gguf.small(n_vocab=512).build())
    prompts = [prompt(n, rng) for n in range(n_jobs)]
    daemon = _start(launcher, report)
    submitter = Submitter(daemon.address, prompts, seed)
    followers: list[Follower] = []
    submitter.start()
    try:
        for _ in range(n_loops):
            time.sleep(rng.uniform(*LIFE_S))
            if submitter.acknowledged and len(followers) < 5:
                followers.append(Follower(daemon.address, rng.choice(list(submitter.acknowledged.values()))))
                followers[-1].start()
            _kill(daemon, report)
            daemon = _start(launcher, report)
        submitter.join(LIMIT_S)
        until(lambda: not daemon.client.jobs("queued") + daemon.client.jobs("running"), LIMIT_S)
        for follower in followers:
            follower.join(LIMIT_S)
        _compare(daemon, report, submitter, prompts, followers)
    finally:
        submitter.stopped = True
        launcher.close()
    report.took_s = time.monotonic() - start_s
    return report


def _start(launcher: Launcher, report: Report) -> Daemon:
    start_s = time.monotonic()
    daemon = launcher.start(CONFIG, name="jobs")
    report.restart_s.append(time.monotonic() - start_s)
    return daemon


def _kill(daemon: Daemon, report: Report) -> None:
    below = children(daemon.process.pid)
    os.kill(daemon.process.pid, signal.SIGKILL)
    daemon.process.wait()
    daemon.close()
    until(lambda: not any(alive(pid) for pid in below), 5.0)
    report.n_crashes += 1


def _compare(
    daemon: Daemon, report: Report, submitter: Submitter, prompts: list[str], followers: list[Follower]
) -> None:
    jobs = {job.id: job for job in daemon.client.jobs(limit=1000)}
    report.twice += submitter.twice
    report.twice += [key for key, n in Counter(job.idempotency_key for job in jobs.values()).items() if n > 1]
    report.n_done = sum(job.state == "done" for job in jobs.values())
    report.n_resumed = sum(job.resumed > 0 for job in jobs.values())
    for n, text in enumerate(prompts):
        job_id = submitter.acknowledged.get(f"{report.seed}-{n}", f"never acknowledged: {n}")
        if job_id not in jobs or jobs[job_id].state != "done":
            report.lost.append(job_id)
            continue
        undisturbed = daemon.client.generate("small", text, raw=True, seed=1)
        answer = daemon.client.stream_job(job_id)
        tokens = list(itertools.chain.from_iterable(delta.tokens for delta in answer))
        if (answer.text_so_far(), len(tokens)) != (undisturbed.text(), jobs[job_id].tokens):
            report.wrong.append(job_id)
        for follower in followers:
            if follower.job_id == job_id and (
                follower.fault or (follower.tokens, follower.text) != (tokens, answer.text_so_far())
            ):
                report.broken.append(f"{job_id}: {follower.fault or 'another answer'}")
