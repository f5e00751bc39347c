from __future__ import annotations

import contextlib
import os
import socket
from typing import TYPE_CHECKING

import pytest

from inferd.daemon.system.service_manager import ServiceManager

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Make = Callable[..., ServiceManager]


class Systemd:
    """The other end."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.socket.setblocking(False)

    def heard(self) -> list[list[str]]:
        found = []
        while True:
            try:
                found.append(self.socket.recv(4096).decode().split("\n"))
            except BlockingIOError:
                return found


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    other = Systemd(str(tmp_path / "n"))
    yield other
    other.socket.close()


@pytest.fixture
def manager(systemd: Systemd) -> Iterator[Callable[..., ServiceManager]]:
    with contextlib.ExitStack() as stack:

        def make(**environ: str) -> ServiceManager:
            found = ServiceManager({"NOTIFY_SOCKET": systemd.socket.getsockname(), **environ})
            return stack.enter_context(contextlib.closing(found))

        yield make


def test_a_life_as_systemd_hears_it(systemd: Systemd, manager: Make) -> None:
    told = manager()
    told.ready()
    told.status("2 models")
    told.reloading()
    told.ready()
    told.stopping(30.5)
    heard = systemd.heard()
    assert [lines[0] for lines in heard] == ["READY=1", "STATUS=2 models", "RELOADING=1", "READY=1", "STOPPING=1"]
    assert heard[2][1].startswith("MONOTONIC_USEC=")
    assert heard[4][1] == "EXTEND_TIMEOUT_USEC=30500000"


def test_a_status_is_told_when_it_is_another_one(systemd: Systemd, manager: Make) -> None:
    told = manager()
    for text in ("a", "a", "b"):
        told.status(text)
    assert systemd.heard() == [["STATUS=a"], ["STATUS=b"]]


def test_signs_of_life_are_sent_as_often_as_needed(systemd: Systemd, manager: Make) -> None:
    told = manager(WATCHDOG_USEC="15000000", WATCHDOG_PID=str(os.getpid()))
    assert told.beat_s == 5.0
    for now_s in (0.0, 1.0, 4.9, 5.0, 5.1, 10.0):
        told.alive(now_s)
    assert systemd.heard() == [["WATCHDOG=1"]] * 3


@pytest.mark.parametrize(
    "environ", [{}, {"WATCHDOG_USEC": "x"}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "9", "WATCHDOG_PID": "1"}]
)
def test_where_nobody_watches_no_sign_is_sent(systemd: Systemd, manager: Make, environ: dict[str, str]) -> None:
    told = manager(**environ)
    told.alive(1.0)
    assert systemd.heard() == []


def test_an_abstract_socket(manager: Make) -> None:
    other = Systemd(f"\0inferd-test-{os.getpid()}")
    manager(NOTIFY_SOCKET=f"@inferd-test-{os.getpid()}").ready()
    assert other.heard() == [["READY=1"]]
    other.socket.close()


def test_started_by_hand_nothing_happens() -> None:
    told = ServiceManager({})
    told.ready()
    told.alive(1.0)
    told.close()


def test_a_manager_that_is_gone_or_full_stops_nobody(systemd: Systemd, manager: Make, tmp_path: Path) -> None:
    manager(NOTIFY_SOCKET=str(tmp_path / "none")).ready()
    told = manager()
    for i in range(10_000):
        told.status(str(i))
    assert systemd.heard()
