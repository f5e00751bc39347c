"""What the kernel says of one of our processes."""

from __future__ import annotations

import os
from typing import NamedTuple

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_FIELDS = (b"RssAnon", b"RssFile", b"RssShmem")  # of /proc/PID/status, in KiB


class Rss(NamedTuple):
    """Resident bytes of one process, by what is behind them."""

    anon: int  # its own: heap, stacks, copies of weights, KV on the host
    file: int  # mapped files, shared with whoever else maps them: weights, libraries
    shmem: int  # memory without a file that others may map too

    @property
    def total(self) -> int:
        return sum(self)


def rss(pid: int) -> Rss | None:
    """From /proc/PID/status. None when the process is gone, or dead and not reaped yet."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            lines = dict(line.split(b":", 1) for line in file if b":" in line)
        return Rss(*(int(lines[field].split()[0]) * 1024 for field in _FIELDS))
    except (OSError, KeyError, IndexError, ValueError):
        return None


class Activity(NamedTuple):
    """Of a process: what it is at, and what all its threads have used so far."""

    state: str  # the kernel's letter: S asleep, T stopped by a signal, t by a debugger; "" when it is gone
    cpu_ticks: int
    major_faults: int  # pages that were read from a disk as it touched them
    resident_pages: int


def activity(pid: int) -> Activity:
    """From /proc/PID/stat (proc_pid_stat(5): fields 3, 14 and 15, 12, 24)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b") ")[2].split()
        return Activity(fields[0].decode(), int(fields[11]) + int(fields[12]), int(fields[9]), int(fields[21]))
    except (OSError, IndexError):
        return Activity("", 0, 0, 0)


def memory_bytes(pid: int) -> tuple[int, int] | None:
    """(resident, of that private): mapped files are in the first only. None when the process is gone."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            fields = file.read().split()
        return int(fields[1]) * _PAGE_BYTES, (int(fields[1]) - int(fields[2])) * _PAGE_BYTES
    except (OSError, IndexError, ValueError):
        return None
