"""What every child process does first: ignore signals meant for the daemon, die with it, take the socket."""

from __future__ import annotations

import ctypes
import os
import signal
import socket

_PR_SET_PDEATHSIG = 1


def settle(fd: int) -> socket.socket:
    """Call on the main thread before anything heavy; the socket at `fd` is the way to the daemon."""
    # Ctrl-C in a terminal reaches the whole group; only the daemon decides when a child ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # the daemon died before the line above took hold
        raise SystemExit(1)
    return socket.socket(fileno=fd)
