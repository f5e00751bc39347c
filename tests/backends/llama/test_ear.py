"""What is heard in mid-call waits for its end, and may bring it about."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from inferd.backends.llama import ear
from inferd.backends.llama.ear import LISTEN_S, Ear


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    it = SimpleNamespace(now_s=5.0)
    it.perf_counter = lambda: it.now_s
    monkeypatch.setattr(ear, "time", it)
    return it


def test_a_cancel_waits_for_the_end_of_the_call() -> None:
    it = Ear()
    assert not it.takes("a", 1)
    it.open(lambda: False, [("b", 1)])
    assert it.takes("a", 1)
    assert it.close() == [("a", 1)]
    assert it.close() == []
    assert not it.takes("a", 1)


def test_it_is_asked_often_and_listens_now_and_then(clock: SimpleNamespace) -> None:
    heard: list[float] = []

    def listen() -> bool:
        heard.append(clock.now_s)
        return False

    unwanted = Ear().open(listen, [("a", 1)])
    for _ in range(1000):
        assert not unwanted()
        clock.now_s += LISTEN_S / 100
    assert len(heard) in (10, 11)


@pytest.mark.parametrize(("cancelled", "breaks"), [("a", True), ("other", False)])
def test_only_who_is_in_the_call_breaks_it_off(clock: SimpleNamespace, cancelled: str, breaks: bool) -> None:
    it = Ear()
    unwanted = it.open(lambda: not it.takes(cancelled, 1), [("a", 1), ("b", 2)])
    assert unwanted() is breaks


def test_the_end_of_the_worker_breaks_it_off(clock: SimpleNamespace) -> None:
    assert Ear().open(lambda: True, [("a", 1)])()
