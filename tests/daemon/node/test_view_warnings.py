"""Each warning has a code, how much it matters, its cause and the way out; devices and models are in test_view."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from inferd.daemon.node.view_warnings import FULL, PRESSED, SEVERITIES, warnings
from inferd.daemon.policy.pressure import Grade
from inferd.tests.daemon.node.test_machine import machine

if TYPE_CHECKING:
    from collections.abc import Callable

    from inferd.tests.daemon.node.house import House


def codes(house: House) -> dict[str, str]:
    """Code -> message; every row is whole, and the worst come first."""
    rows = warnings(house.node, machine())
    assert all(row.message and row.remedy for row in rows)
    order = [SEVERITIES.index(row.severity) for row in rows]
    assert order == sorted(order)
    return {row.code: row.message for row in rows}


async def test_all_is_well(house: House) -> None:
    assert codes(house) == {}


def _stall(house: House) -> None:
    house.node.health.stalled = ("alpha",)


def _lose(house: House) -> None:
    house.node.health.lost = ("alpha",)


def _refuse(house: House) -> None:
    house.node.health.config_error = "`queue`: alpha is no queue"


def _restart(house: House) -> None:
    house.node.health.needs_restart = ("server.address alpha",)


@pytest.mark.parametrize(
    ("happens", "code"),
    [
        (_stall, "scheduler_stalled"),
        (_lose, "model_lost"),
        (_refuse, "config_refused"),
        (_restart, "needs_restart"),
    ],
)
async def test_what_is_wrong_is_named(house: House, happens: Callable[[House], None], code: str) -> None:
    happens(house)
    seen = codes(house)
    assert set(seen) == {code}
    assert "alpha" in seen[code]


async def test_tokens_that_nobody_can_read(house: House) -> None:
    house.node.keyring.unreadable = True
    assert "no token holds" in codes(house)["tokens_unreadable"]


async def test_draining(house: House) -> None:
    house.node.controls.drain(True)
    assert set(codes(house)) == {"draining"}


async def test_a_queue_that_is_nearly_full(house: House) -> None:
    desk = house.node.scheduler.desk
    desk.total.n = int(FULL * desk.limits.max_requests) + 1
    assert "2,048" in codes(house)["queue_nearly_full"]
    desk.total.n = 0


@pytest.mark.parametrize("grade", [grade for grade in Grade if grade])
async def test_pressure_on_memory_says_what_is_not_done_any_more(house: House, grade: Grade) -> None:
    house.node.scheduler.pressure.grade = grade
    assert PRESSED[grade.name.lower()] in codes(house)["memory_pressure"]
    house.node.scheduler.pressure.grade = Grade.NORMAL
