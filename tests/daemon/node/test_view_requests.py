"""Rows of requests: how far each has come."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from inferd.daemon.domain.request import Priority
from inferd.daemon.node.stream import Resumed
from inferd.tests.daemon.node.house import ENDLESS, SLOW, House, first_text
from inferd.tests.daemon.node.test_view import look

if TYPE_CHECKING:
    from collections.abc import Callable

    from inferd.daemon.domain.snapshot import RequestRow

    Open = Callable[..., House]


def row(house: House, request_id: str, after_s: float = 0.0) -> RequestRow:
    return next(row for row in look(house, after_s=after_s).requests if row.id == request_id)


async def test_one_that_runs(open_house: Open) -> None:
    house = open_house(options={"context_tokens": 512}, tokens_per_s=SLOW)
    stream = house.submit(ENDLESS, max_tokens=400)
    await first_text(stream)
    it = row(house, stream.job.id)
    assert (it.state, it.why, it.why_text, it.prompt_tokens) == ("running", "", "", len(ENDLESS))
    assert it.ttft_ms is not None
    assert 0 < it.ttft_ms <= it.age_ms
    assert it.tokens >= 1
    assert (it.max_tokens, it.cached_tokens, it.devices, it.moves, it.task) == (400, 0, ("cpu",), 0, "generate")
    assert (it.position, it.eta_low_ms, it.eta_high_ms, it.deadline_in_ms) == (None, None, None, None)


async def test_one_that_waits(open_house: Open) -> None:
    house = open_house(options={"slots": 1}, tokens_per_s=SLOW)
    await first_text(house.submit(ENDLESS))
    first = house.submit(tenant="other", deadline_ms=60_000)
    second = house.submit(tenant="other", deadline_ms=90_000)
    it = row(house, first.job.id, after_s=1.0)
    assert (it.state, it.tenant, it.ttft_ms, it.tokens_per_s) == ("queued", "other", None, 0.0)
    assert it.why == first.job.why != ""
    first.job.why = "turn"  # as it was told last
    it = row(house, first.job.id, after_s=1.0)
    assert (it.why, it.why_text) == ("prompt", "its prompt is being read")
    assert (it.position, it.devices, it.moves) == (0, (), 0)
    assert row(house, second.job.id).position == 1
    assert it.deadline_in_ms == pytest.approx(60_000 - it.age_ms)
    assert row(house, first.job.id, after_s=1000.0).deadline_in_ms == 0.0


async def test_an_eta_is_there_once_something_was_measured(open_house: Open) -> None:
    house = open_house(options={"slots": 1}, tokens_per_s=SLOW)
    for _ in range(3):
        await house.answer("fake:tokens=20", max_tokens=20)
    await first_text(house.submit("fake:tokens=200", max_tokens=200))
    waits = house.submit(max_tokens=5)
    it = row(house, waits.job.id)
    assert it.eta_low_ms is not None
    assert it.eta_high_ms is not None
    assert 0 < it.eta_low_ms < it.eta_high_ms


async def test_one_that_lost_its_slot_counts_that_and_expects_no_first_token(open_house: Open) -> None:
    house = open_house(options={"slots": 1}, tokens_per_s=SLOW)
    for _ in range(3):
        await house.answer("fake:tokens=20", max_tokens=20)
    batch = house.submit(ENDLESS, priority=Priority.BATCH, max_tokens=500)
    await first_text(batch)
    chat = house.submit(ENDLESS, priority=Priority.INTERACTIVE, max_tokens=500)
    await first_text(chat)
    it = row(house, batch.job.id)
    assert (it.state, it.moves, it.position, it.devices) == ("queued", 1, 0, ())
    assert (batch.job.why, it.why) == ("", "slot"), "nobody has told it yet"
    assert (it.eta_low_ms, it.max_tokens) == (None, 500)
    assert it.ttft_ms is not None
    assert row(house, chat.job.id).moves == 0
    house.node.cancel(chat.job.id)
    while not any(isinstance(event, Resumed) for event in await batch.take()):
        pass
    assert (row(house, batch.job.id).state, row(house, batch.job.id).moves) == ("running", 1)
