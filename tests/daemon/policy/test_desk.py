"""Tickets, forecasts and promises."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from inferd.daemon.policy.forecast import FLOW_S, Flow
from inferd.tests.daemon.policy.tools import BATCH, CHAT, NORMAL, job, pace, ready, scheduler

if TYPE_CHECKING:
    from inferd.daemon.policy.line import Ticket
    from inferd.daemon.policy.scheduler import Scheduler


def forecast(it: Scheduler, priority=NORMAL, tenant: str = "t", **fields) -> Ticket:  # type: ignore[no-untyped-def]
    """The ticket that a request of 100 tokens out would get now."""
    lane, one = it.lanes["m"], job(priority, tenant=tenant, **fields)
    ticket = it.desk.ticket(lane, one)
    it.desk.forecast(lane, one, ticket, 0.0)
    return ticket


def busy(n: int, priority=NORMAL, tenant: str = "t", **options) -> Scheduler:  # type: ignore[no-untyped-def]
    """One slot, a second for each request: one runs, the others wait."""
    it = ready(**options)
    pace(it, decode_ms=10.0)
    for _ in range(n):
        it.on_request(job(priority, tenant=tenant, max_tokens=100), 0.0)
    return it


def test_nothing_is_forecast_of_a_model_that_was_never_measured() -> None:
    it, waits = ready(), job()
    assert forecast(it).forecast_ms is None
    it.on_request(job(), 0.0)
    it.on_request(waits, 0.0)
    assert it.eta_ms(waits, 0.0) is None


def test_a_free_slot_needs_no_waiting() -> None:
    it = busy(0)
    ticket = forecast(it)
    assert ticket.at_once
    assert ticket.forecast_ms == pytest.approx(10.0)
    assert ticket.forecast_end_ms == pytest.approx(1000.0)


def test_all_of_its_own_tenant_and_of_higher_classes_are_before() -> None:
    it = busy(3)
    assert forecast(it).forecast_ms == pytest.approx(3010.0)
    it.on_request(job(CHAT, max_tokens=100), 0.0)
    it.on_request(job(BATCH, max_tokens=100), 0.0)
    it.lanes["m"].flows.clear()  # as if the higher class had come long ago
    assert forecast(it).forecast_ms == pytest.approx(4010.0)


def test_higher_classes_that_keep_coming_make_the_wait_longer() -> None:
    it = busy(1)
    it.lanes["m"].flows[CHAT] = flow = Flow(-1e6)
    flow.add(0.5 * 1000.0 * FLOW_S, 0.0)  # half of the slot
    assert forecast(it).forecast_ms == pytest.approx(2010.0)
    assert forecast(it, CHAT).forecast_ms == pytest.approx(10.0)  # nobody is above it
    flow.add(10 * 1000.0 * FLOW_S, 0.0)  # more than there is
    assert forecast(it).forecast_ms == pytest.approx(1000 / 0.10 + 10)  # its floor share
    fifo = busy(1, policy="fifo")
    fifo.lanes["m"].flows[CHAT] = flow
    assert forecast(fifo).forecast_ms == pytest.approx(1010.0)


def test_a_neighbour_gets_no_more_before_it_than_its_own_tenant() -> None:
    it = busy(5, tenant="greedy")
    assert forecast(it, tenant="modest").forecast_ms == pytest.approx(1000 + 1000 + 10)


def test_an_interactive_request_counts_on_those_who_make_way() -> None:
    it = busy(5, BATCH)
    assert forecast(it, CHAT).forecast_ms == pytest.approx(10.0)
    it = busy(5, BATCH, preempt=False)
    assert forecast(it, CHAT).forecast_ms == pytest.approx(1010.0)


def test_prompts_are_computed_one_after_another() -> None:
    it = ready(slots=8)
    pace(it, prefill_ms=1.0, decode_ms=1.0)
    for _ in range(3):
        it.on_request(job(n_prompt=1000, max_tokens=10), 0.0)
    assert forecast(it, n_prompt=500).forecast_ms == pytest.approx(3 * 1000 + 500 + 1)


def test_nobody_is_counted_on_who_made_way_too_often() -> None:
    it = busy(1, BATCH)
    for ticket in it.lanes["m"].running.values():
        ticket.parks = 3
    assert forecast(it, CHAT).forecast_ms == pytest.approx(1010.0)


def test_only_earlier_deadlines_are_before_a_deadline() -> None:
    it = busy(1)
    for deadline_ms in (90_000, 50_000):
        it.on_request(job(max_tokens=100, deadline_ms=deadline_ms), 0.0)
    it.on_request(job(max_tokens=100), 0.0)
    assert forecast(it, deadline_ms=60_000).forecast_ms == pytest.approx(2010.0)


def test_a_cold_model_is_loaded_first() -> None:
    it = scheduler()
    pace(it, decode_ms=10.0)
    it.lanes["m"].pace.load_s.add(2.0)
    assert forecast(it).forecast_ms is None  # it may have to wait for others to make way
    it.on_load("m", 0.0)
    assert forecast(it).forecast_ms == pytest.approx(2010.0)


def test_the_books_are_empty_when_all_have_left() -> None:
    it = ready()
    jobs = [job(tenant=f"t{i % 3}") for i in range(9)]
    for one in jobs:
        it.on_request(one, 0.0)
    for one in jobs[1:]:
        it.on_withdrawn(one, 1.0)
    assert it.desk.total.n == it.desk.total.tokens == 0
    assert it.desk.by_tenant == {}


def test_what_an_earlier_daemon_got_for_a_request_is_not_charged_again_and_teaches_nothing() -> None:
    it, goes_on = ready(), job()
    goes_on.generated, goes_on.n_kept = [1] * 50, 50
    ticket = it.desk.ticket(it.lanes["m"], goes_on)
    assert (ticket.charged_tokens, ticket.resumed) == (50, True)
    fresh = it.desk.ticket(it.lanes["m"], job())
    assert (fresh.charged_tokens, fresh.resumed) == (0, False)
