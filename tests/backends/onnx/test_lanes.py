from __future__ import annotations

import gc
import select
import threading
import weakref
from typing import Any, cast

import numpy as np
import pytest

from inferd.backends.onnx.lanes import Call, Lanes
from inferd.backends.onnx.refusal import InputRefused
from inferd.backends.onnx.window import Item


class Slow:
    """A session whose runs last until they are let go, or broken off."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.threads: set[int] = set()
        self.refuses = False
        self.entered = threading.Semaphore(0)

    def new_options(self) -> dict[str, bool]:
        return {}

    def run(self, feeds: Any, names: Any, options: dict[str, bool]) -> list[str]:
        self.threads.add(threading.get_ident())
        self.entered.release()
        while not self.go.wait(0.002):
            if options.get("terminate"):
                raise InputRefused("terminated")
        if self.refuses:
            raise InputRefused("no")
        return ["out"]

    def break_off(self, options: dict[str, bool]) -> None:
        options["terminate"] = True


@pytest.fixture
def slow() -> Slow:
    return Slow()


@pytest.fixture
def lanes() -> Any:
    made = Lanes(2)
    yield made
    made.close()


def call(session: Any, *, wide: bool = False) -> Call:
    return Call([Item("a", 3, "k")], session, {}, ["y"], wide, 0.0)


def wait(lanes: Lanes) -> list[Call]:
    """What has ended by the time that we are woken."""
    assert select.select([lanes.wake_fd], [], [], 10)[0]
    return lanes.done()


def test_calls_run_side_by_side(slow: Slow, lanes: Lanes) -> None:
    calls = [call(slow), call(slow)]
    for one in calls:
        lanes.start(one)
    assert lanes.n_free == 0
    assert all(slow.entered.acquire(timeout=10) for _ in calls)
    assert not lanes.done()
    slow.go.set()
    ended: list[Call] = []
    while len(ended) < 2:
        ended += wait(lanes)
    assert {id(one) for one in ended} == {id(one) for one in calls}
    assert all(one.outputs == ["out"] and one.n_rows == 3 for one in ended)
    assert len(slow.threads) == 2
    assert lanes.n_free == 2


def test_one_with_all_threads_is_alone(slow: Slow, lanes: Lanes) -> None:
    lanes.start(call(slow, wide=True))
    assert lanes.n_free == 0
    slow.go.set()
    assert len(wait(lanes)) == 1
    assert lanes.n_free == 2


def test_what_nobody_wants_ends(slow: Slow, lanes: Lanes) -> None:
    one = call(slow)
    lanes.start(one)
    one.break_off()
    one.break_off()
    (ended,) = wait(lanes)
    assert (ended.broken_off, ended.refusal) == (True, "terminated")


def test_a_refusal_is_kept_for_its_requests(slow: Slow, lanes: Lanes) -> None:
    slow.refuses = True
    slow.go.set()
    assert lanes.run(call(slow)).refusal == "no"
    assert slow.threads == {threading.get_ident()}
    lanes.start(call(slow))
    assert wait(lanes)[0].refusal == "no"


def test_fewer_lanes_are_free_when_others_want_the_cores(slow: Slow, lanes: Lanes) -> None:
    lanes.start(call(slow))
    lanes.n = 1
    assert lanes.n_free == 0
    slow.go.set()
    wait(lanes)
    assert lanes.n_free == 1


def test_the_end_does_not_wait_for_long_calls(slow: Slow) -> None:
    made = Lanes(1)
    made.start(call(slow))
    made.close()
    assert made.running[0].refusal == "terminated"


def test_an_idle_thread_keeps_no_call(slow: Slow, lanes: Lanes) -> None:
    slow.go.set()
    array = np.zeros(4, np.float32)
    kept = weakref.ref(array)
    lanes.start(Call([Item("a", 1, "k")], cast("Any", slow), {"x": array}, ["y"], False, 0.0))
    del array
    wait(lanes)
    gc.collect()
    assert kept() is None
