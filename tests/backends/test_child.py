"""A settled child: deaf to Ctrl-C, and dead with its parent."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from inferd.backends.child import OOM_SCORE

CHILD = """
import sys
from inferd.backends.child import settle
sock = settle(int(sys.argv[1]))
sock.sendall(b"ready")
while data := sock.recv(16):
    sock.sendall(data)
"""
PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", sys.argv[2], sys.argv[1]], pass_fds=[int(sys.argv[1])])
child.wait()
"""


def test_signals_for_the_daemon_do_not_end_it() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        child = subprocess.Popen([sys.executable, "-c", CHILD, str(theirs.fileno())], pass_fds=(theirs.fileno(),))
        theirs.close()
        assert ours.recv(16) == b"ready"
        os.kill(child.pid, signal.SIGINT)
        os.kill(child.pid, signal.SIGTERM)
        ours.sendall(b"still here")
        assert ours.recv(16) == b"still here"
        ours.close()
        assert child.wait(10) == 0


def test_it_gains_no_rights_and_goes_first() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        child = subprocess.Popen([sys.executable, "-c", CHILD, str(theirs.fileno())], pass_fds=(theirs.fileno(),))
        theirs.close()
        assert ours.recv(16) == b"ready"
        status = Path(f"/proc/{child.pid}/status").read_text()
        score = int(Path(f"/proc/{child.pid}/oom_score_adj").read_text())
        core = next(line for line in Path(f"/proc/{child.pid}/limits").read_text().splitlines() if "core" in line)
        ours.close()
        assert child.wait(10) == 0
    assert "NoNewPrivs:\t1\n" in status
    assert score >= OOM_SCORE
    assert core.split()[4:6] == ["0", "0"]


def test_it_does_not_outlive_its_parent() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        fd = theirs.fileno()
        parent = subprocess.Popen([sys.executable, "-c", PARENT, str(fd), CHILD], pass_fds=(fd,))
        theirs.close()
        assert ours.recv(16) == b"ready"
        parent.kill()
        parent.wait()
        ours.settimeout(10)
        assert ours.recv(16) == b""  # both ends of the child are gone
