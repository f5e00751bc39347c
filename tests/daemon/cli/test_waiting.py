"""The line that says what an answer waits for."""

from __future__ import annotations

import io
import threading
from typing import Any

import pytest

from inferd import Client
from inferd.daemon.cli.waiting import Waiting, sentence
from inferd.protos import inferd_pb2 as pb
from inferd.protos.answer import Answer


class Terminal(io.StringIO):
    """Tells when a wanted text has been written."""

    def __init__(self, wanted: str = "", tty: bool = True) -> None:
        super().__init__()
        self.wanted, self.tty, self.seen = wanted, tty, threading.Event()

    def isatty(self) -> bool:
        return self.tty

    def write(self, text: str) -> int:
        if self.wanted and self.wanted in text:
            self.seen.set()
        return super().write(text)


def waiting_answer(position: int | None, why: str | None) -> Answer:
    answer = Answer(pb.GenerateRequest(model="demo"))
    answer.queued, answer.waits_for = position, why
    return answer


@pytest.mark.parametrize(
    ("position", "why", "text"),
    [
        (3, "slot", "queued, 3 before you"),
        (0, "slot", "queued, you are next"),
        (2, "memory", "queued for KV memory, 2 before you"),
        (1, "room", "queued until another model makes way, 1 before you"),
        (0, "prompt", "reading the prompt"),
    ],
)
def test_what_a_position_means(position: Any, why: Any, text: Any) -> None:
    assert sentence(position, why) == text


def test_an_eta_is_said_once_when_both_ends_look_alike() -> None:
    assert sentence(0, "slot", (1200.0, 3400.0)) == "queued, you are next, in about 1.2 s to 3.4 s"
    assert sentence(0, "slot", (1201.0, 1203.0)) == "queued, you are next, in about 1.2 s"


def test_the_line_goes_when_the_answer_comes(daemon: Any) -> None:
    terminal = Terminal()
    with Client(daemon.address) as client:
        line = Waiting(client, "demo", terminal)
        line.update(waiting_answer(1, "slot"))
        assert "queued, 1 before you" in terminal.getvalue()
        line.update(waiting_answer(None, None))
        assert terminal.getvalue().endswith("\r\x1b[K")
        length = len(terminal.getvalue())
        line.clear()
    assert len(terminal.getvalue()) == length


def test_a_load_shows_its_progress(daemon: Any) -> None:
    daemon.seen = pb.Snapshot(models=[pb.ModelState(name="demo", state="loading", load_progress=0.43)])
    terminal = Terminal("loading demo... 43%")
    with Client(daemon.address) as client:
        line = Waiting(client, "demo", terminal)
        line.update(waiting_answer(0, "load"))
        assert terminal.seen.wait(5)
        line.clear()
        assert daemon.ended.wait(5)
    assert terminal.getvalue().endswith("\r\x1b[K")


def test_a_pipe_gets_nothing(daemon: Any) -> None:
    pipe = Terminal(tty=False)
    with Client(daemon.address) as client:
        Waiting(client, "demo", pipe).update(waiting_answer(1, "slot"))
        Waiting(client, "demo", pipe).update(waiting_answer(1, "load"))
    assert pipe.getvalue() == ""
    assert daemon.asked == []
