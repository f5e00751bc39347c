"""How a child ended, or whether it did."""

from __future__ import annotations

import contextlib
import os
import signal
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended."""

    code: int  # exit status, or minus the signal
    expected: bool  # it was told to
    tail: tuple[str, ...]  # its last log lines; for the log, never for a client
    held: bool = False  # by the kernel: SIGKILL has not ended it, and its memory is not free

    @property
    def reason(self) -> str:
        """Fit for a client: "signal SIGABRT", "exit status 1"."""
        if self.code == -signal.SIGILL:
            return "signal SIGILL: the engine was built for another processor"
        if self.code < 0:
            with contextlib.suppress(ValueError):
                return f"signal {signal.Signals(-self.code).name}"
        return f"exit status {self.code}"


def is_dead(pid: int) -> bool:
    """Of a child of ours, reaped or not."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True
