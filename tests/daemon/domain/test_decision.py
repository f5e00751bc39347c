"""Decisions are values: equal when they say the same, and nobody can change one on its way."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from typing import get_args

import pytest

from inferd.daemon.domain import decision
from inferd.daemon.domain.decision import Decision, Evict, Load, Preempt, Unload
from inferd.tests.daemon.policy.tools import job as new_job


def test_the_union_names_every_decision_of_the_file() -> None:
    made = {it for it in vars(decision).values() if isinstance(it, type) and it.__module__ == decision.__name__}
    assert set(get_args(Decision)) == made


def test_decisions_that_say_the_same_are_equal() -> None:
    assert Load("a") == Load("a")
    assert Load("a") != Load("b")
    assert len({Load("a"), Unload("a"), Load("a")}) == 2


def test_whom_somebody_makes_way_for_is_told_and_decides_nothing() -> None:
    assert Evict("a", "b") == Evict("a")
    assert Preempt(job := new_job(), "r") == Preempt(job)


def test_a_decision_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        Load("a").place = "b"  # type: ignore[misc]
