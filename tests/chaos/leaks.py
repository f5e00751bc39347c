"""What a process holds beside its memory, counted before and after: files, threads, children, and what lies about."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

SHM = Path("/dev/shm")


@dataclass(frozen=True, slots=True)
class Holdings:
    """At one moment."""

    files: int  # open
    threads: int
    children: int
    zombies: int
    lying: frozenset[str]  # files in /dev/shm, and in the folders that were named

    def beyond(self, base: Holdings, *, files: int = 0, threads: int = 0) -> list[str]:
        """What is here and was not there, but for so many that may be."""
        found = []
        for what, here, there in (
            ("open files", self.files, base.files + files),
            ("threads", self.threads, base.threads + threads),
            ("children", self.children, base.children),
            ("zombies", self.zombies, base.zombies),
        ):
            if here > there:
                found.append(f"{here - there} more {what}")
        return [*found, *(f"{path} lies about" for path in sorted(self.lying - base.lying))]


def holdings(pid: int, *folders: Path) -> Holdings:
    """Of a process that is there."""
    states = Counter(_state(child) for child in children(pid))
    files = len(os.listdir(f"/proc/{pid}/fd"))
    threads = len(os.listdir(f"/proc/{pid}/task"))
    lying = frozenset(str(path) for folder in (SHM, *folders) if folder.is_dir() for path in folder.iterdir())
    return Holdings(files, threads, sum(states.values()), states["Z"], lying)


def children(pid: int) -> list[int]:
    """Pids, of zombies too."""
    found: list[int] = []
    with contextlib.suppress(FileNotFoundError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(FileNotFoundError):
                found += map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split())
    return found


def _state(pid: int) -> str:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return "gone"
