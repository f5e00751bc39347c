"""What every child process does first: ignore signals meant for the daemon, die with it, take the socket."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import socket

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
OOM_SCORE = 500  # of 1,000: where the machine runs out of memory, a model goes before anybody else's work


def settle(fd: int) -> socket.socket:
    """Call on the main thread before anything heavy; the socket at `fd` is the way to the daemon."""
    # Ctrl-C in a terminal reaches the whole group; only the daemon decides when a child ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    parent = os.getppid()
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # the daemon died before the line above took hold
        raise SystemExit(1)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    humble()
    return socket.socket(fileno=fd)


def humble() -> None:
    """Be the first that the kernel ends for memory, and leave no image of it behind: prompts are in there."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError, ValueError):
        with open("/proc/self/oom_score_adj", encoding="ascii") as file:
            score = int(file.read())
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
            file.write(f"{max(score, OOM_SCORE)}")
