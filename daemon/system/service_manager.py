"""What systemd is told: sd_notify(3), one datagram a message, on the socket that it names in the environment."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

SOCKET, WATCHDOG_USEC, WATCHDOG_PID = "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"
BEATS = 3  # within the time after which systemd gives a service up


class ServiceManager:
    """Nobody listens where the daemon is started by hand; then all of this does nothing."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        name = environ.get(SOCKET, "")
        # A name that begins with @ is in the abstract namespace, where it begins with a zero.
        self._address = "\0" + name[1:] if name.startswith("@") else name
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) if name else None
        if self._socket is not None:
            self._socket.setblocking(False)  # a manager that hangs must not stop the daemon
        self.beat_s = _beat_s(environ)
        self._last_beat_s: float | None = None
        self._status = ""

    def ready(self) -> None:
        """It serves, for the first time or after a reload."""
        self._tell("READY=1")

    def reloading(self) -> None:
        """What follows is `ready`, also when the new config was refused."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self, seconds: float) -> None:
        """It may take so long, which may be longer than the unit foresees."""
        self._tell("STOPPING=1", f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    def status(self, text: str) -> None:
        """One line for `systemctl status`; told when it is another one."""
        if text != self._status:
            self._status = text
            self._tell(f"STATUS={text}")

    def alive(self, now_s: float) -> None:
        """The scheduler has just had its turn. Cheap to call often: only so many are sent as are needed."""
        if self.beat_s is not None and (self._last_beat_s is None or now_s - self._last_beat_s >= self.beat_s):
            self._last_beat_s = now_s
            self._tell("WATCHDOG=1")

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _tell(self, *lines: str) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.sendto("\n".join(lines).encode(), self._address)


def _beat_s(environ: Mapping[str, str]) -> float | None:
    """Between two signs of life; None where nobody waits for them, or for those of another process."""
    if environ.get(WATCHDOG_PID, str(os.getpid())) != str(os.getpid()):
        return None
    try:
        limit_us = int(environ.get(WATCHDOG_USEC, ""))
    except ValueError:
        return None
    return limit_us / 1e6 / BEATS if limit_us > 0 else None
