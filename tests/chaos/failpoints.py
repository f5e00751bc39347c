"""A change of state is made or not, wherever the process dies or the disk fails: at any writing call, by strace."""

from __future__ import annotations

import contextlib
import random
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

from inferd.daemon.domain.durable import State
from inferd.daemon.system import tokens
from inferd.daemon.system.state import load_json
from inferd.daemon.system.store import Store

from ..bench.figures import Outcome, of_runs
from .changes import ROUNDS, SAVED, WORDS

Point = tuple[str, int]  # a system call's name, and the how manieth of that name

ROOT = Path(__file__).parents[2]
CALLS = "write,pwrite64,fsync,fdatasync,ftruncate,rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat"
KILL = "signal=SIGKILL"
FATES = (KILL, "error=EIO", "error=ENOSPC")
RUNS = 150  # with each fate
LIMIT_S = 60.0


def measure(*, quick: bool, seed: int) -> Outcome:
    n_runs = 8 if quick else RUNS
    if (why := missing()) is not None:
        return Outcome([], [f"- failpoints: {why}."])
    points = trace()
    some = random.Random(f"{seed} failpoints").sample(points, min(n_runs, len(points)))
    faults = [fault for point in some for fate in FATES for fault in run(point, fate)]
    title = f"killed, or failed, at {len(some)} of {len(points)} calls that write"
    lines = [f"  - FAULT {fault}" for fault in faults[:20]]
    return Outcome([of_runs(f"{title}: states that are neither before nor after", [len(faults)], "", at_most=0)], lines)


def missing() -> str | None:
    """Why nothing can be killed at a system call here."""
    if shutil.which("strace") is None:
        return "not tried, there is no strace"
    done = subprocess.run(["strace", "-qq", "-o", "/dev/null", "/bin/true"], capture_output=True, check=False)
    return None if done.returncode == 0 else "not tried, nothing may be traced here"


def trace() -> list[Point]:
    """All calls of a whole run, in order."""
    seen: Counter[str] = Counter()
    points = []
    for name in re.findall(r"^\d+ +(\w+)\(", _calls(), re.MULTILINE):
        seen[name] += 1
        points.append((name, seen[name]))
    return points


def _calls() -> str:
    with TemporaryDirectory(prefix="inferd-chaos-") as folder:
        calls = Path(folder) / "calls"
        command = ["strace", "-qq", "-f", "-o", str(calls), "-e", f"trace={CALLS}", "-e", "signal=none"]
        subprocess.run([*command, *_changes(Path(folder) / "state")], cwd=ROOT, check=True, capture_output=True)
        return calls.read_text()


def run(point: Point, fate: str = KILL) -> list[str]:
    """Die there, or be told that the disk failed; what is wrong afterwards."""
    with TemporaryDirectory(prefix="inferd-chaos-") as name:
        folder = Path(name) / "state"
        call, n = point
        command = ["strace", "-qq", "-f", "-o", "/dev/null", "-e", f"trace={call}"]
        command += ["-e", f"inject={call}:{fate}:when={n}", *_changes(folder)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S, check=False)
        told = [(what, int(i)) for what, i in (line.split() for line in done.stdout.splitlines())]
        killed = done.returncode == -signal.SIGKILL
        faults = judge(folder, told) if killed or fate != KILL else ["it was not killed"]
        return [f"{fate} at {call} number {n}: {fault}" for fault in faults]


def _changes(folder: Path) -> list[str]:
    return [sys.executable, "-m", "tests.chaos.changes", str(folder)]


def judge(folder: Path, told: list[tuple[str, int]]) -> list[str]:
    """What was acknowledged is there, and of the one change after that all or nothing."""
    n_told = {what: sum(it == what for it, _ in told) for what in ("submitted", "grown", "ended", "saved", "token")}
    if not folder.exists():
        return ["nothing is there"] if told else []
    found = [*_jobs(folder, n_told)]
    saved = load_json(SAVED, folder)
    n_saved = saved["n"] + 1 if isinstance(saved, dict) else 0
    found += [] if 0 <= n_saved - n_told["saved"] <= 1 else [f"saved {n_saved}, told {n_told['saved']}"]
    try:
        n_tokens = len(tokens.load(folder).tokens)
    except tokens.Unreadable as error:
        return [*found, str(error)]
    return [*found, *([] if 0 <= n_tokens - n_told["token"] <= 1 else [f"{n_tokens} tokens, told {n_told['token']}"])]


def _jobs(folder: Path, n_told: dict[str, int]) -> list[str]:
    found, counts = [], dict.fromkeys(("submitted", "grown", "ended"), 0)
    with contextlib.closing(Store(folder)) as store:
        if not store.open():
            return ["the file of the jobs is damaged"]
        for i in range(ROUNDS):
            job, pieces = store.since(f"j{i}", 0)
            if job is None:
                continue
            text, n_tokens = "".join(piece.text for piece in pieces), sum(len(piece.tokens) for piece in pieces)
            if n_tokens != job.n_tokens or text != "".join(WORDS[:n_tokens]):
                found.append(f"{job.id} has {job.n_tokens} tokens, and the text {text!r}")
            counts["submitted"] += 1
            counts["grown"] += job.n_tokens >= len(WORDS) - 1
            counts["ended"] += job.state is State.DONE
    found += [
        f"{counts[what]} {what}, told {n_told[what]}" for what in counts if not 0 <= counts[what] - n_told[what] <= 1
    ]
    return found
