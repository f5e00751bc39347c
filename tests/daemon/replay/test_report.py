"""Figures made of outcomes."""

from __future__ import annotations

import json

import pytest

from inferd.daemon.domain.request import Priority
from inferd.daemon.replay.arrivals import Arrival
from inferd.daemon.replay.fairness import Book
from inferd.daemon.replay.report import DONE, LOST, Outcome, Result, percentile, report, spread

CHAT, BATCH = Priority.INTERACTIVE, Priority.BATCH


def done(
    at_s: float, ttft_ms: float, end_ms: float, priority: Priority = CHAT, deadline_ms: int | None = None
) -> Outcome:
    arrival = Arrival(at_s, 10, 5, priority=priority, deadline_ms=deadline_ms)
    return Outcome(arrival, DONE, queue_ms=0.0, ttft_ms=ttft_ms, end_ms=end_ms, output_tokens=5)


def refused(at_s: float, reason: str, priority: Priority = BATCH, retry_after_ms: int | None = 1000) -> Outcome:
    arrival = Arrival(at_s, 10, 5, priority=priority)
    return Outcome(arrival, "overloaded", reason, retry_after_ms, end_ms=0.0)


def result(*outcomes: Outcome) -> Result:
    book = Book()
    for outcome in outcomes:
        book.arrive((outcome.arrival.priority.value, outcome.arrival.tenant), 10, 5)
    return Result(list(outcomes), book)


def test_percentiles_are_nearest_ranks() -> None:
    assert [percentile(range(1, 101), share) for share in (0.5, 0.95, 0.99, 1.0)] == [50, 95, 99, 100]
    assert percentile([7.0], 0.01) == 7.0
    assert percentile([], 0.5) is None
    assert spread([]).p95 is None


def test_every_ending_is_counted_once() -> None:
    missed = Outcome(Arrival(1.0, 1, 1), "deadline", queue_ms=5.0, end_ms=100.0)
    missed_waiting = Outcome(Arrival(1.0, 1, 1), "deadline", end_ms=100.0)
    crashed = Outcome(Arrival(1.0, 1, 1), "worker_crashed", queue_ms=5.0, end_ms=100.0)
    lost = Outcome(Arrival(1.0, 1, 1))
    all_kinds = (done(0.0, 1, 2), refused(2.0, "wait"), missed, missed_waiting, crashed, lost)
    total = report(result(*all_kinds)).total
    assert (total.done, total.refused, total.missed, total.failed, total.lost) == (1, 1, 2, 1, 1)
    assert lost.ended == LOST


def test_goodput_is_what_met_the_target_of_its_class_and_its_deadline() -> None:
    outcomes = (
        done(0.0, 900, 5000),
        done(1.0, 1100, 5000),
        done(2.0, 900, 5000, deadline_ms=4000),
        done(3.0, 9000, 10_000, BATCH),
        refused(4.0, "wait"),
    )
    found = report(result(*outcomes), {CHAT: 1.0})
    assert [(one.name, one.goodput_per_s, one.target_s) for one in found.classes] == [
        ("interactive", 1 / 4, 1.0),
        ("batch", 1 / 4, None),
    ]
    assert found.total.goodput_per_s == 2 / 4
    assert found.total.target_s is None


def test_refusals_by_reason_and_those_that_do_not_say_when_to_come_back() -> None:
    too_long = Outcome(Arrival(0.0, 1, 1), "prompt_too_long", end_ms=0.0)
    found = report(result(refused(0, "wait"), refused(0, "wait"), refused(1, "shed", retry_after_ms=None), too_long))
    assert found.refused_by == {"wait": 2, "shed": 1, "prompt_too_long": 1}
    assert found.without_retry == 1


def test_coverage_counts_those_who_were_told() -> None:
    told = [done(float(i), 100.0 * i, 2000) for i in range(1, 5)]
    for outcome in told:
        outcome.eta_ms = (150.0, 350.0)
    found = report(result(*told, done(9.0, 200, 300)))
    assert (found.eta_told, found.eta_covered) == (4, 0.5)
    assert report(result(done(0.0, 1, 2))).eta_covered is None


def test_output_tokens_are_counted_until_the_last_end() -> None:
    assert report(result(done(0.0, 1, 2000), done(1.0, 1, 9000))).output_tokens_per_s == pytest.approx(1.0)


def test_nothing_at_all_is_a_report_too() -> None:
    found = report(Result([], Book()))
    assert (found.total.requests, found.classes, found.span_s) == (0, (), 0.0)


def test_the_twin_is_json() -> None:
    shown = json.loads(json.dumps(report(result(done(0.0, 1, 2), refused(1.0, "wait"))).twin()))
    assert shown["classes"][0]["ttft_ms"] == {"p50": 1, "p95": 1, "p99": 1}
    assert {"total", "refused_by", "preemptions", "evictions", "eta_covered", "gap_tokens"} <= set(shown)
