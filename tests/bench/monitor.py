"""What the monitor costs: when it first paints, how soon a key shows, what it writes, and what it takes of a core.

It runs in a pseudo-terminal of its own, as over ssh, against a daemon on the fake engine with 50 streams whose figures
change with every picture; once more with 1,000 requests in the table.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import sys
import termios
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from inferd import Client, InferdError

from . import daemon
from .figures import Outcome, of_runs, percentile, spread

if TYPE_CHECKING:
    from collections.abc import Iterator

N_STREAMS, N_MANY = 50, 1000
COLUMNS, LINES = 80, 24
QUIET_S = 0.02  # without a byte: what a key had painted is there
LIMIT_S = 20.0
PAINTED = b"[1]Overview"
KEYS = ("j", "j", "k", "2", "j", "1", "s", "3", "1", "j")
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
BARS = {"paint_s": 1.5, "key_ms": 50.0, "kib_s": 15.0, "cpu": 4.0, "tick_ms": 50.0, "rss_mb": 70.0}


class Terminal:
    """The monitor behind a pseudo-terminal; everything that it writes is counted as it comes."""

    def __init__(self, address: str, columns: int = COLUMNS, lines: int = LINES) -> None:
        self.started_s = time.monotonic()
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            environment = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor", "LINES": "", "COLUMNS": ""}
            environment = {name: value for name, value in environment.items() if value}
            command = str(Path(sys.executable).with_name("inferd"))
            os.execve(command, [command, "top", "--address", address], environment)
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.n_bytes = 0
        self.last_s = self.started_s  # when the last byte came
        self._seen = b""

    def read(self, wait_s: float) -> bytes:
        """What comes within that time, at most one piece."""
        ready, _, _ = select.select([self._fd], [], [], wait_s)
        if not ready:
            return b""
        data = os.read(self._fd, 1 << 16)
        self.n_bytes += len(data)
        self.last_s = time.monotonic()
        return data

    def until(self, sign: bytes) -> float:
        """Seconds from the start to this text."""
        while sign not in self._seen:
            if time.monotonic() - self.started_s > LIMIT_S:
                raise RuntimeError(f"the monitor did not paint {sign!r} within {LIMIT_S:g} s")
            self._seen += self.read(0.1)
        return self.last_s - self.started_s

    def drain(self, seconds: float) -> int:
        """Bytes written in that time."""
        before, end_s = self.n_bytes, time.monotonic() + seconds
        while (left_s := end_s - time.monotonic()) > 0:
            self.read(left_s)
        return self.n_bytes - before

    def settle(self) -> None:
        while self.read(0.3):
            pass

    def press(self, key: str) -> float:
        """Milliseconds from a key to the last byte of what it has painted."""
        start_s = time.monotonic()
        os.write(self._fd, key.encode())
        while not self.read(0.5):
            if time.monotonic() - start_s > LIMIT_S:
                raise RuntimeError(f"nothing came of the key {key!r}")
        while self.read(QUIET_S):
            pass
        return (self.last_s - start_s) * 1e3

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_PER_S

    def rss_mb(self) -> float:
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) * 1024 / 1e6

    def close(self) -> None:
        with contextlib.suppress(OSError):
            os.write(self._fd, b"q")
        end_s = time.monotonic() + 3
        with contextlib.suppress(OSError):
            while self.read(max(0.0, end_s - time.monotonic())):
                pass
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self._fd)


@contextlib.contextmanager
def monitor(address: str) -> Iterator[Terminal]:
    terminal = Terminal(address)
    try:
        yield terminal
    finally:
        terminal.close()


@contextlib.contextmanager
def streams(address: str, n: int) -> Iterator[None]:
    """So many requests that are live all the time, of four tenants in three classes."""
    over = threading.Event()
    clients = [Client(address, tenant=f"tenant-{i}") for i in range(4)]
    classes = ("interactive", "normal", "batch")

    def keep(i: int) -> None:
        while not over.is_set():
            with contextlib.suppress(InferdError):
                options = {"max_tokens": 1500, "ignore_eos": True, "priority": classes[i % 3]}
                for _ in clients[i % 4].generate("demo", f"stream {i}", **options):  # type: ignore[arg-type]
                    if over.is_set():
                        break

    threads = [threading.Thread(target=keep, args=(i,), daemon=True) for i in range(n)]
    for thread in threads:
        thread.start()
    try:
        with Client(address) as client:
            end_s = time.monotonic() + LIMIT_S
            while len(client.snapshot().requests) < n * 0.9:
                if time.monotonic() > end_s:
                    raise RuntimeError(f"there are no {n} live requests after {LIMIT_S:g} s")
                time.sleep(0.1)
        yield
    finally:
        over.set()
        for client in clients:
            client.close()
        for thread in threads:
            thread.join(LIMIT_S)


def config(slots: int, tokens_per_s: float) -> str:
    """The demo model on the fake engine."""
    return f"""
[models.defaults]
slots = {slots}
keep_alive_s = -1
[fake]
enabled = true
tokens_per_s = {tokens_per_s}
"""


def measure(*, quick: bool) -> Outcome:
    n_runs, seconds = (2, 8.0) if quick else (5, 30.0)
    paints_s, keys_ms, rates, shares, rss, ticks_ms = [], [], [], [], [], []
    with daemon.running(config(N_STREAMS, 4.0)) as one, streams(one.address, N_STREAMS):
        with monitor(one.address) as terminal:
            terminal.until(PAINTED)  # brings the files into the page cache
        for _ in range(n_runs):
            with monitor(one.address) as terminal:
                paints_s.append(terminal.until(PAINTED))
                terminal.settle()
                terminal.drain(2.0)
                cpu_s, start_s = terminal.cpu_s(), time.monotonic()
                n_bytes = terminal.drain(seconds)
                took_s = time.monotonic() - start_s
                rates.append(n_bytes / 1024 / took_s)
                shares.append((terminal.cpu_s() - cpu_s) / took_s * 100)
                keys_ms += _keys(terminal)
                rss.append(terminal.rss_mb())
    with daemon.running(config(N_STREAMS, 1.0)) as one, streams(one.address, N_MANY), monitor(one.address) as terminal:
        terminal.until(PAINTED)
        terminal.drain(3.0)
        for _ in range(n_runs):
            cpu_s, start_s = terminal.cpu_s(), time.monotonic()
            terminal.drain(seconds / 3)
            ticks_ms.append((terminal.cpu_s() - cpu_s) / (time.monotonic() - start_s) * 1e3)
    return _outcome(paints_s, keys_ms, rates, shares, rss, ticks_ms)


def _keys(terminal: Terminal) -> list[float]:
    """With the view frozen nothing but keys paints; the first visit of a screen builds it, and counts, too."""
    terminal.press(" ")
    found = []
    for key in KEYS * 2:
        found.append(terminal.press(key))
    terminal.press(" ")
    return found


def _outcome(
    paints_s: list[float],
    keys_ms: list[float],
    rates: list[float],
    shares: list[float],
    rss: list[float],
    ticks_ms: list[float],
) -> Outcome:
    worst = percentile(keys_ms, 0.95)
    key = of_runs("monitor: key to screen, p95", [worst], "ms", at_most=BARS["key_ms"])
    size = f"{COLUMNS}x{LINES}"
    return Outcome(
        [
            of_runs("monitor: `inferd top` to first paint", paints_s, "s", at_most=BARS["paint_s"]),
            key,
            of_runs(f"monitor: terminal output, {size}, 1 Hz", rates, "KiB/s", at_most=BARS["kib_s"]),
            of_runs(f"monitor: of a core, {size}, 1 Hz", shares, "%", at_most=BARS["cpu"]),
            of_runs(f"monitor: CPU a picture, {N_MANY:,} requests", ticks_ms, "ms", at_most=BARS["tick_ms"]),
            of_runs("monitor: RSS", rss, "MB", at_most=BARS["rss_mb"]),
        ],
        [
            f"{N_STREAMS} live requests whose figures change each time; {len(keys_ms)} keys, of which some lead "
            f"to another screen: {spread(keys_ms)} ms. Output in true colour."
        ],
    )
