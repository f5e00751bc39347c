from __future__ import annotations

import threading
from typing import Any

import pytest

from inferd.backends.onnx.calls import LONG_MS, BrokenOff, Caller
from inferd.backends.onnx.session import InputRefused


class Slow:
    """A session whose run lasts until it is let go, or broken off."""

    def __init__(self) -> None:
        self.go, self.broken = threading.Event(), False
        self.threads: list[int] = []

    def run(self, feeds: Any, outputs: Any) -> list[str]:
        self.threads.append(threading.get_ident())
        assert self.go.wait(10)
        if self.broken:
            raise InputRefused("terminated")
        return ["out"]

    def break_off(self) -> None:
        self.broken = True
        self.go.set()


@pytest.fixture
def slow() -> Slow:
    return Slow()


def test_a_short_call_stays_in_its_thread(slow: Slow) -> None:
    slow.go.set()
    caller: Any = Caller(slow)  # type: ignore[arg-type]
    assert caller.call({}, [], lambda: False, LONG_MS / 2) == ["out"]
    assert slow.threads == [threading.get_ident()]


def test_a_long_call_listens_meanwhile(slow: Slow) -> None:
    caller: Any = Caller(slow)  # type: ignore[arg-type]
    asked = 0

    def unwanted() -> bool:
        nonlocal asked
        asked += 1
        if asked == 2:
            slow.go.set()
        return False

    assert caller.call({}, [], unwanted, None) == ["out"]
    assert asked >= 2
    assert slow.threads != [threading.get_ident()]
    caller.close()


def test_what_nobody_wants_is_broken_off(slow: Slow) -> None:
    caller: Any = Caller(slow)  # type: ignore[arg-type]
    with pytest.raises(BrokenOff):
        caller.call({}, [], lambda: True, None)
    caller.close()


def test_a_refusal_is_one_also_in_a_long_call(slow: Slow) -> None:
    caller: Any = Caller(slow)  # type: ignore[arg-type]
    slow.broken = True
    slow.go.set()
    with pytest.raises(InputRefused):
        caller.call({}, [], lambda: False, None)
    caller.close()
