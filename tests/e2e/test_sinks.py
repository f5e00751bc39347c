"""A daemon whose log nobody takes: it serves, and it ends."""

from __future__ import annotations

import contextlib
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from inferd.tests.e2e.daemons import LIMIT_S, Daemon, command, environment, is_serving, until

if TYPE_CHECKING:
    from inferd.tests.e2e.daemons import Launcher


@pytest.mark.parametrize("broken", [False, True], ids=["full", "broken"])
def test_a_log_that_nobody_takes_stops_nothing(launcher: Launcher, broken: bool) -> None:
    config, socket = launcher.folder / "sink.toml", launcher.folder / "sink.sock"
    config.write_text("[fake]\nenabled = true\n")
    end, sink = os.pipe()
    if broken:
        os.close(end)
    else:
        os.set_blocking(sink, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(sink, bytes(4096))
        os.set_blocking(sink, True)
    arguments = ("--config", config, "--models", launcher.models, "--address", f"unix:{socket}", "--log-level", "debug")
    process = subprocess.Popen(command(*arguments), stdout=sink, stderr=sink, env=environment(launcher.folder))
    os.close(sink)
    until(lambda: process.poll() is not None or (socket.exists() and is_serving(f"unix:{socket}")))
    daemon = Daemon(process, socket, launcher.folder / "none")
    with daemon.client:
        for _ in range(20):
            assert len(daemon.client.generate("small", "fake:tokens=5").text().split()) == 5
        assert daemon.terminate() == 0
    daemon.channel.close()
    assert process.wait(LIMIT_S) == 0
    if not broken:
        os.close(end)
