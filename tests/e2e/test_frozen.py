"""A worker that not even SIGKILL ends, as in state D: frozen by its cgroup, where version 1 of that is to be had."""

from __future__ import annotations

import contextlib
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
END_LIMIT_S = 10.0  # `drain_s`, and what follows; systemd would wait for 45 s

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


def test_the_others_are_served_and_the_daemon_ends_in_time(launcher: Launcher, freezer: Freezer) -> None:
    daemon = launcher.start(CONFIG, name="f")
    stream = daemon.inference.Generate(ask("fake:tokens=2000"), timeout=LIMIT_S)
    next(message for message in stream if message.HasField("delta"))
    pid = daemon.worker_pid("small")
    freezer.freeze(pid)
    until(lambda: "is ended" in daemon.log.read_text())  # by SIGKILL, in vain
    assert alive(pid)
    assert daemon.client.generate("other", "fake:tokens=3").text()
    daemon.close()
    start_s = time.monotonic()
    daemon.process.terminate()
    assert daemon.process.wait(LIMIT_S) == 0
    assert time.monotonic() - start_s < END_LIMIT_S
    with contextlib.suppress(Exception):
        stream.cancel()
    assert alive(pid)
    freezer.thaw()
    until(lambda: not alive(pid))
