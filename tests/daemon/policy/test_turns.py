"""Whose turn it is, who makes way, and what somebody waits for: pure questions and answers."""

from __future__ import annotations

import msgspec
import pytest

from inferd.daemon.policy.turns import (
    PreemptQuestion,
    Running,
    TurnQuestion,
    Waiting,
    WaitQuestion,
    preempt,
    turn,
    wait,
)


def waiting(
    name: str, rank: int = 1, served: float = 0.0, deadline_s: float | None = None, arrival: int = 0
) -> Waiting:
    return Waiting(name, f"tenant of {name}", rank, served, deadline_s, arrival)


def ask(*candidates: Waiting, owed: tuple[int, ...] = ()) -> str | None:
    return turn(TurnQuestion("m", candidates, owed=owed))


def test_nobody_waits() -> None:
    assert ask() is None


def test_the_class_comes_first_then_service_then_deadline_then_arrival() -> None:
    assert ask(waiting("low", 2), waiting("high", 0, served=1e9)) == "high"
    assert ask(waiting("much", served=5.0), waiting("little", served=1.0, arrival=9)) == "little"
    assert ask(waiting("none"), waiting("due", deadline_s=3.0, arrival=9)) == "due"
    assert ask(waiting("second", arrival=2), waiting("first", arrival=1)) == "first"


def test_a_class_that_is_owed_its_share_goes_before() -> None:
    candidates = (waiting("chat", 0), waiting("normal", 1), waiting("batch", 2))
    assert ask(*candidates, owed=(2,)) == "batch"
    assert ask(*candidates, owed=(2, 1)) == "normal"


def running(name: str, rank: int, tokens: int = 10, parks: int = 0, *, owed: bool = False) -> Running:
    return Running(name, rank, tokens, parks, owed)


def ask_way(*rows: Running) -> str | None:
    return preempt(PreemptQuestion("asker", 0, rows, max_parks=3))


def test_the_lowest_class_makes_way_and_in_it_the_cheapest() -> None:
    rows = running("normal", 1, 1), running("big batch", 2, 500), running("small batch", 2, 20)
    assert ask_way(*rows) == "small batch"


def test_nobody_of_its_own_class_makes_way() -> None:
    assert ask_way(running("chat", 0)) is None


def test_who_made_way_often_enough_or_holds_a_floor_share_is_spared() -> None:
    assert ask_way(running("tired", 2, 1, parks=3), running("fresh", 2, 99)) == "fresh"
    assert ask_way(running("owed", 2, owed=True)) is None


QUESTION = WaitQuestion(
    request_id="r",
    prompt_read=True,
    superseding=False,
    ready=True,
    loading=False,
    closed=False,
    pressure=False,
    slots_free=1,
    cells_needed=10,
    cells_free=100,
    ahead=0,
)


@pytest.mark.parametrize(
    ("change", "answer"),
    [
        ({"prompt_read": False, "ready": False}, "prompt"),
        ({"superseding": True}, "predecessor"),
        ({"ready": False, "loading": True}, "load"),
        ({"ready": False, "closed": True}, "load"),
        ({"ready": False}, "room"),
        ({"ready": False, "pressure": True}, "pressure"),
        ({"slots_free": 0}, "slot"),
        ({"cells_free": 5}, "memory"),
        ({}, "turn"),
    ],
)
def test_what_it_waits_for(change: dict[str, bool], answer: str) -> None:
    assert wait(msgspec.structs.replace(QUESTION, **change)) == answer
