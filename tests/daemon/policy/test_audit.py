"""An auditor that finds nothing wrong in a false book is no auditor."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from inferd.daemon.domain.request import Priority
from inferd.daemon.policy.audit import check_integrity
from inferd.tests.daemon.policy.tools import job, ready

if TYPE_CHECKING:
    from collections.abc import Callable

    from inferd.daemon.policy.scheduler import Scheduler


def overfull(it: Scheduler) -> None:
    it.places["m"].running[job()] = next(iter(it.places["m"].running.values()))


def doubled(it: Scheduler) -> None:
    running = next(iter(it.places["m"].running.items()))
    it.lanes["m"].line.add(*running)


def elsewhere(it: Scheduler) -> None:
    it.places["other"].running |= it.places["m"].running


def miscounted(it: Scheduler) -> None:
    it.desk.total.n += 1


def ghost(it: Scheduler) -> None:
    it.places["m"].parking.add(job())


def granted(it: Scheduler) -> None:
    it.places["m"].granted.add("other")


def forgotten(it: Scheduler) -> None:
    del it.places["other"]


def misplaced(it: Scheduler) -> None:
    waits = next(iter(it.lanes["m"].line))
    waits.request = replace(waits.request, priority=Priority.BATCH)


def overlooked(it: Scheduler) -> None:
    it.lanes["m"].line.pickable[Priority.NORMAL] = 0


def unfair(it: Scheduler) -> None:
    it.slots.counters[Priority.NORMAL].leave("t")


SPOILERS = [overfull, doubled, elsewhere, miscounted, ghost, granted, forgotten, misplaced, overlooked, unfair]


@pytest.mark.parametrize("spoil", SPOILERS)
def test_every_false_entry_is_found(spoil: Callable[[Scheduler], None]) -> None:
    it = ready()
    it.on_request(job(), 0.0)
    it.on_request(job(), 0.0)
    check_integrity(it)
    spoil(it)
    with pytest.raises(AssertionError):
        check_integrity(it)
