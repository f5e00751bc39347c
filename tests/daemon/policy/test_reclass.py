"""A request goes over to another class: who is next changes at once, and what was on an account stays there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.daemon.domain.config import ClassOptions
from inferd.daemon.domain.decision import Evict, Preempt, Start
from inferd.daemon.domain.request import Priority
from inferd.daemon.policy.audit import check_integrity
from inferd.daemon.policy.explain import sentence
from inferd.tests.daemon.policy.tools import BATCH, CHAT, NORMAL, job, load, pace, preempted, ready, started

if TYPE_CHECKING:
    from inferd.daemon.domain.decision import Decision
    from inferd.daemon.domain.request import Job
    from inferd.daemon.policy.scheduler import Scheduler


def move(it: Scheduler, one: Job, priority: Priority, now_s: float = 1.0) -> list[Decision]:
    decisions = it.on_priority([one], priority, now_s)
    assert one.request.priority is priority
    check_integrity(it)
    return decisions


def behind(it: Scheduler, *jobs: Job, priority: Priority = CHAT) -> Job:
    """One runs, and these wait in the order in which they are given."""
    runs = job(priority)
    for one in (runs, *jobs):
        it.on_request(one, 0.0)
    return runs


# those who wait


def test_one_that_is_moved_up_is_next() -> None:
    it, first, second = ready(), job(BATCH), job(BATCH)
    runs = behind(it, first, second)
    assert move(it, second, NORMAL) == []
    assert it.lanes["m"].waiting == [second, first]
    assert it.on_released(runs, 2.0) == [Start(second, "m")]


def test_one_that_becomes_interactive_has_a_batch_job_make_way_at_once() -> None:
    it, waits = ready(), job(BATCH)
    runs = behind(it, waits, priority=BATCH)
    (decision,) = move(it, waits, CHAT)
    assert decision == Preempt(runs)
    assert isinstance(decision, Preempt)
    assert decision.asker == waits.id
    assert it.on_parked(runs, 2.0) == [Start(waits, "m")]


def test_one_that_is_moved_down_lets_the_others_go_first() -> None:
    it, first, second = ready(), job(NORMAL), job(NORMAL)
    runs = behind(it, first, second)
    move(it, first, BATCH)
    assert it.on_released(runs, 2.0) == [Start(second, "m")]


def test_its_place_in_the_new_class_is_that_of_its_arrival() -> None:
    it, early, middle, late = ready(), job(BATCH), job(NORMAL), job(NORMAL)
    behind(it, early, middle, late)
    move(it, early, NORMAL)
    assert it.lanes["m"].waiting == [early, middle, late]
    move(it, middle, BATCH)
    move(it, middle, NORMAL)
    assert it.lanes["m"].waiting == [early, middle, late]


def test_it_keeps_its_deadline() -> None:
    it, soon, later = ready(), job(BATCH, deadline_ms=50_000), job(NORMAL, deadline_ms=60_000)
    behind(it, later, soon)
    move(it, soon, NORMAL)
    assert it.lanes["m"].waiting == [soon, later]
    assert it.lanes["m"].line.with_deadline[soon].deadline_s == 50.0


def test_one_whose_prompt_is_not_read_still_cannot_start() -> None:
    it, unread = ready(slots=2), job(BATCH, n_prompt=None)
    it.on_request(unread, 0.0)
    assert move(it, unread, CHAT) == []
    assert it.why(unread, 1.0) == "prompt"
    unread.prompt = [1] * 5
    assert it.on_prepared(unread, 2.0) == [Start(unread, "m")]


def test_one_that_waits_for_its_predecessor_still_does() -> None:
    it, first, second = ready(slots=2), job(BATCH, supersede_key="k"), job(BATCH, supersede_key="k")
    it.on_request(first, 0.0)
    it.on_request(second, 0.0)
    assert move(it, second, CHAT) == []
    assert it.why(second, 1.0) == "predecessor"
    assert it.on_released(first, 2.0) == [Start(second, "m")]


def test_the_choices_of_a_call_move_together() -> None:
    it, first = ready(), job(BATCH)
    second = job(BATCH, parent_id=first.id)
    runs = behind(it, first, second, priority=BATCH)
    assert preempted(it.on_priority([first, second], CHAT, 1.0)) == [runs]
    assert it.lanes["m"].line.pickable == {CHAT: 2, NORMAL: 0, BATCH: 0}


def test_without_classes_nothing_comes_of_it() -> None:
    it, first, second = ready(policy="fifo"), job(BATCH), job(BATCH)
    runs = behind(it, first, second)
    assert move(it, second, CHAT) == []
    assert it.on_released(runs, 2.0) == [Start(first, "m")]


def test_the_queue_counts_it_as_before() -> None:
    it, waits = ready(), job(BATCH, n_prompt=30)
    behind(it, waits)
    before = it.desk.total.n, it.desk.total.tokens, it.desk.by_tenant["t"].tokens
    move(it, waits, NORMAL)
    assert (it.desk.total.n, it.desk.total.tokens, it.desk.by_tenant["t"].tokens) == before


# its forecast


def test_a_new_forecast_is_made_and_nothing_is_learnt_from_it() -> None:
    it, first, waits = ready(), job(NORMAL, max_tokens=100), job(BATCH, max_tokens=100)
    pace(it, decode_ms=10.0)
    runs = behind(it, first, waits)
    runs.first_token_s, runs.generated = 0.0, [1] * 50
    it.lanes["m"].flows.clear()
    before_ms = it.eta_ms(waits, 0.0)
    move(it, waits, CHAT, 0.5)
    after_ms = it.eta_ms(waits, 0.5)
    assert before_ms is not None
    assert after_ms is not None
    assert after_ms == pytest.approx((510.0, 510.0))
    assert after_ms[1] < before_ms[1] - 500
    learnt = [list(it.lanes["m"].pace.first_token[sure]._ratios) for sure in (True, False)]
    finish = list(it.lanes["m"].pace.finish._ratios)
    it.on_released(runs, 60.0)
    it.on_first_token(waits, 61.0)
    it.on_finished(waits, 1.0, 1.0, 62.0)
    assert [list(it.lanes["m"].pace.first_token[sure]._ratios) for sure in (True, False)] == learnt
    assert list(it.lanes["m"].pace.finish._ratios) == finish


def test_where_nothing_can_be_known_an_old_forecast_is_not_kept() -> None:
    it, waits = ready(), job(BATCH)
    pace(it)
    behind(it, waits)
    assert it.eta_ms(waits, 0.0) is not None
    it.on_closed("m", 100.0)
    move(it, waits, CHAT)
    assert it.eta_ms(waits, 1.0) is None


def test_its_work_is_asked_for_in_one_class_only() -> None:
    it, waits = ready(), job(BATCH, max_tokens=100)
    pace(it, decode_ms=10.0)
    behind(it, waits)
    flows = it.lanes["m"].flows
    others_ms = {priority: flow.rate(30.0) for priority, flow in flows.items() if priority is not BATCH}
    for n in range(10):
        move(it, waits, (NORMAL, BATCH)[n % 2], float(n))
    assert flows[NORMAL].rate(30.0) == pytest.approx(0.0, abs=1e-6)
    move(it, waits, CHAT, 30.0)
    assert flows[BATCH].rate(30.0) == pytest.approx(0.0, abs=1e-6)
    assert flows[CHAT].rate(30.0) > others_ms[CHAT]


def test_choices_that_wait_for_different_models_move_each_in_its_own_line() -> None:
    it = ready(host_bytes=100)
    load(it, "other")
    waiting = [job(BATCH, model, n_prompt=10) for model in ("m", "other")]
    running = [job(BATCH, model) for model in ("m", "other")]
    for one in (*running, *waiting):
        it.on_request(one, 0.0)
    decisions = it.on_priority(waiting, CHAT, 1.0)
    assert decisions == [Preempt(one) for one in running]
    check_integrity(it)


# those who run


def test_a_running_one_that_is_moved_down_makes_way_for_a_chat() -> None:
    it, chat = ready(), job(CHAT)
    runs = behind(it, chat)
    assert move(it, runs, BATCH) == [Preempt(runs)]
    assert it.on_parked(runs, 2.0) == [Start(chat, "m")]
    assert it.lanes["m"].line.where(runs)[0] is BATCH


def test_a_running_one_that_is_moved_up_makes_way_for_nobody() -> None:
    it, runs = ready(), job(BATCH)
    it.on_request(runs, 0.0)
    assert move(it, runs, CHAT) == []
    assert it.on_request(job(CHAT), 2.0) == []


def test_one_that_makes_way_already_waits_again_in_its_new_class() -> None:
    it, batch, chat, other = ready(), job(BATCH), job(CHAT), job(NORMAL)
    for one in (batch, chat, other):
        it.on_request(one, 0.0)
    assert batch in it.places["m"].parking
    assert move(it, batch, CHAT) == []
    assert it.on_parked(batch, 2.0) == [Start(batch, "m")]  # it came before the one that it was to make way for


def test_a_slot_that_was_a_floor_share_is_none_in_another_class() -> None:
    it = ready(normal=ClassOptions(floor_share=0.5, max_wait_s=1e9))
    low = job(NORMAL, max_tokens=5)
    chat = behind(it, low)
    chat.generated += [1] * 1000
    it.on_request(job(CHAT), 0.0)
    assert started(it.on_released(chat, 1.0)) == [low]
    assert it.on_request(job(CHAT), 1.0) == []
    assert preempted(move(it, low, BATCH)) == [low]


def test_a_model_of_a_lower_class_makes_way_at_once() -> None:
    it, runs, wants = ready(host_bytes=60), job(CHAT), job(CHAT, "other", arrived_s=1.0)
    it.on_request(runs, 0.0)
    assert it.on_request(wants, 1.0) == []
    (decision,) = move(it, runs, BATCH)
    assert decision == Evict("m")
    assert isinstance(decision, Evict)
    assert decision.model == "other"


# accounts


def test_what_it_was_charged_stays_and_what_comes_is_its_new_classs() -> None:
    it, runs = ready(), job(BATCH, n_prompt=10)
    it.on_request(runs, 0.0)
    runs.generated += [1] * 7
    move(it, runs, NORMAL)
    runs.generated += [1] * 5
    it.on_released(runs, 2.0)
    assert it.slots.counters[BATCH].served("t") == 10 + 2 * 7
    assert it.slots.counters[NORMAL].served("t") == 2 * 5


def test_a_refund_goes_to_the_account_that_paid() -> None:
    it, runs = ready(), job(BATCH, n_prompt=10)
    it.on_request(runs, 0.0)
    move(it, runs, NORMAL)
    it.on_started(runs, 8)
    assert it.slots.counters[BATCH]._credit == {"t": 8.0}
    assert it.slots.counters[NORMAL]._credit == {}


def test_a_prompt_is_paid_once_by_the_class_that_it_started_in() -> None:
    it, batch, chat = ready(), job(BATCH, n_prompt=10), job(CHAT, n_prompt=1)
    it.on_request(batch, 0.0)
    it.on_request(chat, 0.0)
    it.on_parked(batch, 1.0)
    move(it, batch, NORMAL)
    assert it.on_released(chat, 2.0) == [Start(batch, "m")]
    assert it.slots.counters[BATCH].served("t") == 10
    assert it.slots.counters[NORMAL].served("t") == 0


def test_a_tenant_that_comes_into_a_class_so_has_no_credit_there() -> None:
    it, mine, theirs = ready(), job(BATCH, tenant="late"), job(NORMAL, tenant="a")
    it.slots.counters[NORMAL].charge("a", 500.0)
    behind(it, theirs, mine)
    move(it, mine, NORMAL)
    assert it.slots.counters[NORMAL].served("late") == 500.0


# what is said of it


def test_it_can_be_explained() -> None:
    it, waits = ready(), job(BATCH)
    runs = behind(it, waits)
    move(it, waits, CHAT)
    move(it, runs, NORMAL)
    said = [sentence(record, waits.id) for record in it.journal.about(waits.id)]
    assert "moved from batch to interactive by an operator" in said
    said = [sentence(record, runs.id) for record in it.journal.about(runs.id)]
    assert "moved from interactive to normal by an operator, while it has a slot" in said


@given(st.lists(st.tuples(st.integers(0, 11), st.sampled_from(Priority)), max_size=30), st.integers(0, 2**16))
def test_after_any_moves_all_are_served_as_if_they_had_come_in_those_classes(
    moves: list[tuple[int, Priority]], seed: int
) -> None:
    """With one tenant and no accounts between the classes, the order is that of class, then of arrival."""
    it, jobs = ready(preempt=False), [job(list(Priority)[(seed >> i) % 3]) for i in range(12)]
    runs = behind(it, *jobs)
    for which, priority in moves:
        if jobs[which].request.priority is not priority:
            move(it, jobs[which], priority)
    order = list(Priority)
    assert it.lanes["m"].waiting == sorted(jobs, key=lambda one: (order.index(one.request.priority), one.arrival))
    served = []
    while it.lanes["m"].line:
        (start,) = started(it.on_released(runs, 1.0))
        served.append(start)
        runs = start
    assert sorted(served, key=lambda one: one.arrival) == jobs
