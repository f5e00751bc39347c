"""The monitor in a real terminal (tmux), before a real daemon on the fake engine that 20 streams keep busy."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from inferd import Client, InferdError
from inferd.tests.e2e.daemons import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from inferd.tests.e2e.daemons import Daemon, Launcher

pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")

TEXT: Any = {"capture_output": True, "text": True, "check": True}
N_STREAMS = 20
CONFIG = """
[models.defaults]
slots = 4
context_tokens = 20_480
[fake]
enabled = true
tokens_per_s = 20
"""


class Tmux:
    """A server of our own with one window."""

    def __init__(self, folder: Path, *command: str, size: tuple[int, int] = (80, 24)) -> None:
        self._socket = str(folder / "tmux.sock")
        width, height = map(str, size)
        self._tmux("-f", "/dev/null", "new-session", "-d", "-s", "top", "-x", width, "-y", height, *command)

    def _tmux(self, *arguments: str) -> str:
        done = subprocess.run(["tmux", "-S", self._socket, *arguments], capture_output=True, text=True, check=True)
        return done.stdout

    def text(self) -> str:
        return self._tmux("capture-pane", "-t", "top", "-p")

    def press(self, *keys: str) -> None:
        for key in keys:
            self._tmux("send-keys", "-t", "top", key)

    def resize(self, width: int, height: int) -> None:
        self._tmux("resize-window", "-t", "top", "-x", str(width), "-y", str(height))

    def shows(self, *words: str) -> None:
        """Wait until all of them are on the screen."""
        try:
            until(lambda: all(word in self.text() for word in words))
        except AssertionError:
            raise AssertionError(f"{words} are not all in:\n{self.text()}") from None

    def close(self) -> None:
        with contextlib.suppress(subprocess.CalledProcessError):
            self._tmux("kill-server")


@contextlib.contextmanager
def top(folder: Path, address: str, *options: str) -> Iterator[Tmux]:
    """`inferd top` as a user starts it."""
    folder.mkdir()
    command = [sys.executable, "-m", "inferd.daemon.cli.app", "top", "--address", address, *options]
    window = Tmux(folder, *command)
    try:
        yield window
    finally:
        window.close()


@contextlib.contextmanager
def busy(address: str) -> Iterator[None]:
    """20 streams of three classes, for as long as the block lasts."""
    clients = [Client(address, tenant=f"tenant-{i}") for i in range(4)]
    classes = ("interactive", "normal", "batch")

    def stream(i: int) -> None:
        with contextlib.suppress(InferdError):
            prompt = [ord(char) for char in "fake:tokens=15000"]
            clients[i % 4].generate("small", prompt, priority=classes[i % 3], request_id=f"stream-{i}").text()

    threads = [threading.Thread(target=stream, args=(i,)) for i in range(N_STREAMS)]
    for thread in threads:
        thread.start()
    try:
        with Client(address) as client:
            until(lambda: len(client.snapshot().requests) == N_STREAMS)
        yield
    finally:
        for client in clients:
            client.close()
        for thread in threads:
            thread.join()


@pytest.fixture(scope="module")
def serving(launcher: Launcher) -> Daemon:
    return launcher.start(CONFIG, name="top")


def test_a_request_is_cancelled_from_the_keyboard(serving: Daemon, tmp_path: Path) -> None:
    ended: list[str] = []

    def victim() -> None:
        with Client(serving.address, tenant="victim") as client:
            try:
                prompt = [ord(char) for char in "fake:tokens=15000"]
                client.generate("small", prompt, priority="interactive", request_id="victim").text()
            except InferdError as error:
                ended.append(error.code)

    with busy(serving.address), top(tmp_path / "t", serving.address) as window:
        window.shows("serving", "Requests 20", "running", "queued")
        waiting = threading.Thread(target=victim)
        waiting.start()
        window.shows("Requests 21")
        window.press("/")
        window.shows("a regular expression")
        window.press("^victim", "Enter")  # of others it is said that they wait for it
        window.shows("1 of 21", "victim")
        until(lambda: window.text().count("^victim") == 1)  # the line one types in is closed
        window.press("x")
        until(lambda: "Cancel victim?" in window.text() or ended)
        if not ended:  # it runs already, so it is asked once
            window.press("y")
        waiting.join(60)
    assert ended == ["cancelled"]


def test_why_a_request_waits_is_two_keys_away(serving: Daemon, tmp_path: Path) -> None:
    with busy(serving.address), top(tmp_path / "t", serving.address) as window:
        window.shows("serving", "queued")
        window.press("2")
        window.shows("Waiting 16", "waits:", "all 4 slots of small are taken", "in line for small")


def test_a_restart_of_the_daemon_under_the_open_monitor(launcher: Launcher, tmp_path: Path) -> None:
    first = launcher.start(CONFIG, name="again")
    with top(tmp_path / "t", first.address) as window:
        window.shows("serving", "inferd run demo")
        assert first.terminate() == 0
        window.shows("lost", "trying again", "what you see is")
        second = launcher.start(CONFIG, name="again")
        assert second.address == first.address
        with busy(second.address):
            window.shows("serving", "live", "Requests 20")
        window.press("q")


def test_a_small_terminal_gets_a_card_and_a_larger_one_the_monitor(serving: Daemon, tmp_path: Path) -> None:
    with top(tmp_path / "t", serving.address) as window:
        window.shows("serving")
        window.resize(60, 15)
        window.shows("too small")
        window.resize(160, 48)
        window.shows("Throughput", "Devices", "Models", "Events")


def test_ascii_and_no_colour_reach_the_terminal(serving: Daemon, tmp_path: Path) -> None:
    with top(tmp_path / "t", serving.address, "--ascii", "--read-only") as window:
        window.shows("* serving", "read-only")
        assert window.text().isascii()


def test_who_ends_it_gets_the_terminal_back(serving: Daemon, tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    line = f"{sys.executable} -m inferd.daemon.cli.app top --address {serving.address}; echo ended with $?; sleep 60"
    window = Tmux(tmp_path / "t", line)
    try:
        window.shows("serving")
        pid = int(
            subprocess.run(["pgrep", "-f", f"inferd.tui --address {serving.address}$"], **TEXT).stdout.split()[-1]
        )
        os.kill(pid, signal.SIGTERM)
        window.shows("ended with 143")
        assert "Overview" not in window.text()
    finally:
        window.close()
