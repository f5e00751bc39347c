"""A worker that not even SIGKILL ends, as in state D: frozen by its cgroup, where version 1 of that is to be had."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from inferd.tests.e2e.daemons import LIMIT_S, alive, ask, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from inferd.tests.e2e.daemons import Launcher

FREEZER = Path("/sys/fs/cgroup/freezer")  # that of version 2 lets SIGKILL through
CONFIG = """
[fake]
enabled = true
tokens_per_s = 50
[server]
drain_s = 1.0
"""
N_TOKENS = 300  # for 6 s
END_LIMIT_S = 20.0  # `drain_s`, 2 s to end by itself, and 10 s after SIGKILL; systemd would wait for 45 s

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not os.access(FREEZER / "cgroup.procs", os.W_OK), reason="no freezer of cgroup v1 is ours"
)


class Freezer:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def freeze(self, pid: int) -> None:
        (self.folder / "cgroup.procs").write_text(f"{pid}")
        (self.folder / "freezer.state").write_text("FROZEN")
        until(lambda: (self.folder / "freezer.state").read_text() == "FROZEN\n")

    def thaw(self) -> None:
        (self.folder / "freezer.state").write_text("THAWED")


@pytest.fixture
def freezer() -> Iterator[Freezer]:
    one = Freezer(FREEZER / f"inferd-{os.getpid()}")
    one.folder.mkdir()
    yield one
    one.thaw()
    until(lambda: not (one.folder / "cgroup.procs").read_text())
    one.folder.rmdir()


def test_its_work_goes_on_in_the_next_one_and_the_daemon_ends_in_time(launcher: Launcher, freezer: Freezer) -> None:
    daemon = launcher.start(CONFIG, name="f")
    stream = daemon.inference.Generate(ask(f"fake:tokens={N_TOKENS}"), timeout=LIMIT_S)
    next(message for message in stream if message.HasField("delta"))
    pid = daemon.worker_pid("small")
    freezer.freeze(pid)
    until(lambda: "worker_held" in [warning.code for warning in daemon.snapshot().warnings])
    assert alive(pid)
    said = [token for message in stream for token in message.delta.tokens]
    assert len(said) > N_TOKENS - 50
    again = daemon.worker_pid("small")
    assert again != pid
    freezer.freeze(again)
    daemon.close()
    start_s = time.monotonic()
    daemon.process.terminate()
    assert daemon.process.wait(LIMIT_S) == 0
    assert time.monotonic() - start_s < END_LIMIT_S
    assert alive(pid)
    assert alive(again)
    freezer.thaw()
    until(lambda: not (alive(pid) or alive(again)))
