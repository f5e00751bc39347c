"""What is said of a child that ended, and whether one did."""

from __future__ import annotations

import os
import subprocess

import pytest

from inferd.backends.exit import Exit, is_dead


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (-6, "signal SIGABRT"),
        (-4, "signal SIGILL: the engine was built for another processor"),
        (-9, "signal SIGKILL"),
        (0, "exit status 0"),
        (1, "exit status 1"),
        (-99, "exit status -99"),
    ],
)
def test_an_exit_has_a_reason_fit_for_a_client(code: int, reason: str) -> None:
    assert Exit(code, False, ()).reason == reason


def test_a_child_is_dead_before_and_after_it_is_reaped() -> None:
    with subprocess.Popen(["/bin/sleep", "60"]) as child:
        assert not is_dead(child.pid)
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert is_dead(child.pid)
    assert is_dead(child.pid)
