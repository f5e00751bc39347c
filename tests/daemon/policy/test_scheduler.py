"""Events in, decisions out: one test for each rule. Any history of events is in test_scheduler_machine.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from inferd.daemon.domain.config import ClassOptions, Queue, TenantLimits
from inferd.daemon.domain.decision import Cancel, Evict, Load, Preempt, Refuse, Reject, Start, Unload
from inferd.daemon.domain.errors import Code, InferdError
from inferd.daemon.policy.ledger import Shortfall
from inferd.daemon.policy.pressure import CALM_S
from inferd.daemon.policy.rooms import no_room
from inferd.tests.daemon.policy.tools import (
    BATCH,
    CHAT,
    FOREVER,
    NORMAL,
    add,
    job,
    load,
    pace,
    preempted,
    ready,
    rejected,
    reserve,
    scheduler,
    started,
)

if TYPE_CHECKING:
    from inferd.daemon.policy.scheduler import Scheduler

# order


def test_a_ready_model_starts_a_prepared_job_at_once() -> None:
    it, first = ready(), job()
    assert it.on_request(first, 1.0) == [Start(first, "m")]


def test_a_job_waits_until_a_slot_is_free() -> None:
    it, first, second = ready(), job(), job()
    it.on_request(first, 1.0)
    assert it.on_request(second, 1.0) == []
    assert it.why(second, 1.0) == "slot"
    assert it.on_released(first, 2.0) == [Start(second, "m")]


def test_interactive_starts_before_normal_and_normal_before_batch() -> None:
    it, busy = ready(preempt=False), job(CHAT)
    batch, normal, chat = job(BATCH), job(NORMAL), job(CHAT)
    for waiting in (busy, batch, normal, chat):
        it.on_request(waiting, 1.0)
    assert it.on_released(busy, 2.0) == [Start(chat, "m")]
    assert it.on_released(chat, 3.0) == [Start(normal, "m")]
    assert it.on_released(normal, 4.0) == [Start(batch, "m")]


def test_inside_a_tenant_the_first_that_came_starts_first() -> None:
    it, busy = ready(), job(CHAT)
    line = [job(BATCH) for _ in range(5)]
    for waiting in (busy, *line):
        it.on_request(waiting, 1.0)
    seen = [busy]
    for _ in line:
        seen += started(it.on_released(seen[-1], 2.0))
    assert seen[1:] == line


def test_the_ticket_is_taken_at_arrival_and_not_when_the_prompt_is_read() -> None:
    it, busy, early, late = ready(), job(), job(n_prompt=None), job(n_prompt=None)
    for waiting in (busy, early, late):
        it.on_request(waiting, 1.0)
    late.prompt, early.prompt = [1], [1]
    assert it.on_prepared(late, 2.0) == []
    assert it.on_prepared(early, 2.0) == []
    assert it.on_released(busy, 3.0) == [Start(early, "m")]


def test_a_job_whose_prompt_is_not_read_holds_nobody_back() -> None:
    it, unread, read = ready(), job(CHAT, n_prompt=None), job(BATCH)
    assert it.on_request(unread, 1.0) == []
    assert it.why(unread, 1.0) == "prompt"
    assert it.on_request(read, 1.0) == [Start(read, "m")]


def test_tenants_of_a_class_take_turns_by_what_they_have_had() -> None:
    it, busy = ready(), job(tenant="a")
    first, second = job(tenant="a"), job(tenant="a")
    modest = job(tenant="b")
    for waiting in (busy, first, second, modest):
        it.on_request(waiting, 1.0)
    assert it.on_released(busy, 2.0) == [Start(first, "m")]
    assert it.on_released(first, 3.0) == [Start(modest, "m")]


def test_what_a_request_generates_is_charged_to_its_tenant() -> None:
    it, busy = ready(), job(tenant="a", n_prompt=1)
    a, b = job(tenant="a"), job(tenant="b")
    for waiting in (busy, a, b):
        it.on_request(waiting, 1.0)
    busy.generated += [1] * 50
    assert it.on_released(busy, 2.0) == [Start(b, "m")]
    assert it.slots.counters[NORMAL].served("a") == 1 + 2 * 50


def test_the_earliest_deadline_goes_first_inside_a_tenant() -> None:
    it, busy, late, early = ready(), job(), job(deadline_ms=9000), job(deadline_ms=5000)
    for waiting in (busy, late, early):
        it.on_request(waiting, 0.0)
    assert it.on_released(busy, 1.0) == [Start(early, "m")]


def test_one_that_was_withdrawn_is_not_started() -> None:
    it, busy, gone, next_one = ready(), job(), job(), job()
    for waiting in (busy, gone, next_one):
        it.on_request(waiting, 1.0)
    assert it.on_withdrawn(gone, 2.0) == []
    assert it.on_released(busy, 3.0) == [Start(next_one, "m")]


def test_first_in_first_out_knows_no_class() -> None:
    it, busy, batch, chat = ready(policy="fifo"), job(), job(BATCH), job(CHAT, tenant="other")
    for waiting in (busy, batch, chat):
        it.on_request(waiting, 1.0)
    assert it.on_released(busy, 2.0) == [Start(batch, "m")]


# floors


def test_batch_gets_its_floor_share_of_what_is_served() -> None:
    it, waits = ready(preempt=False, batch=ClassOptions(floor_share=0.05, max_wait_s=1e9)), job(BATCH, max_tokens=20)
    runs, n = job(CHAT), 0
    it.on_request(runs, 0.0)
    it.on_request(waits, 0.0)
    while runs is not waits:
        n += 1
        runs.generated += [1] * 50
        it.on_request(job(CHAT), float(n))
        (runs,) = started(it.on_released(runs, float(n)))
    price, served = 10 + 2 * 20, 10 + 2 * 50
    assert n == pytest.approx(price / (0.05 * served), abs=1)


def test_a_class_that_got_no_slot_for_its_longest_wait_gets_one() -> None:
    it, chat, waits = ready(preempt=False), job(CHAT), job(BATCH)
    it.on_request(chat, 0.0)
    it.on_request(waits, 0.0)
    following = job(CHAT)
    it.on_request(following, 59.0)
    assert it.on_released(chat, 59.9) == [Start(following, "m")]
    it.on_request(job(CHAT), 60.0)
    assert it.on_released(following, 60.1) == [Start(waits, "m")]


# making way


def test_an_interactive_job_that_finds_no_slot_has_a_batch_job_parked() -> None:
    it, batch, chat = ready(), job(BATCH), job(CHAT)
    it.on_request(batch, 1.0)
    assert it.on_request(chat, 2.0) == [Preempt(batch)]
    assert it.on_tick(2.5) == []  # once
    assert it.on_parked(batch, 3.0) == [Start(chat, "m")]
    assert it.on_released(chat, 4.0) == [Start(batch, "m")]


def test_one_is_parked_for_each_interactive_job_that_waits() -> None:
    it, batch, chats = ready(slots=2), [job(BATCH) for _ in range(2)], [job(CHAT) for _ in range(3)]
    for one in batch:
        it.on_request(one, 1.0)
    assert [len(preempted(it.on_request(chat, 2.0))) for chat in chats] == [1, 1, 0]


def test_normal_jobs_park_nobody() -> None:
    it, batch = ready(), job(BATCH)
    it.on_request(batch, 1.0)
    assert it.on_request(job(NORMAL), 2.0) == []


def test_nobody_is_parked_more_often_than_allowed() -> None:
    it, batch = ready(max_parks=2), job(BATCH)
    it.on_request(batch, 1.0)
    for _ in range(2):
        chat = job(CHAT)
        assert it.on_request(chat, 2.0) == [Preempt(batch)]
        it.on_parked(batch, 2.0)
        assert it.on_released(chat, 3.0) == [Start(batch, "m")]
    assert it.on_request(job(CHAT), 4.0) == []


def test_a_parked_job_goes_back_to_its_old_place_and_pays_its_prompt_once() -> None:
    it, first, second = ready(), job(), job()
    it.on_request(first, 1.0)
    it.on_request(second, 1.0)
    before = it.slots.counters[NORMAL].served("t")
    assert it.on_parked(first, 2.0) == [Start(first, "m")]
    assert it.slots.counters[NORMAL].served("t") == before
    assert it.lanes["m"].waiting[0] is second


# cells


def test_a_job_waits_for_kv_cells_and_holds_back_its_juniors() -> None:
    it = ready(slots=4, kv_cells=200)
    running, big, small = job(n_prompt=100), job(n_prompt=100), job(n_prompt=1)
    assert it.on_request(running, 1.0) == [Start(running, "m")]
    assert it.on_request(big, 1.0) == []
    assert it.why(big, 1.0) == "memory"
    assert it.on_request(small, 1.0) == []
    assert it.on_released(running, 2.0) == [Start(big, "m"), Start(small, "m")]


def test_a_job_alone_may_take_what_it_needs() -> None:
    it, huge = ready(kv_cells=50), job(n_prompt=50)
    assert it.on_request(huge, 1.0) == [Start(huge, "m")]


# superseding


def test_the_newest_of_a_key_takes_the_place_of_the_others() -> None:
    it = ready()
    first, second, third = (job(supersede_key="k") for _ in range(3))
    assert it.on_request(first, 1.0) == [Start(first, "m")]
    (cancel,) = it.on_request(second, 1.0)
    assert isinstance(cancel, Cancel)
    assert (cancel.job, cancel.error.code) == (first, Code.SUPERSEDED)
    assert it.why(second, 1.0) == "predecessor"
    assert [d.job for d in it.on_request(third, 1.0) if isinstance(d, Cancel)] == [second]
    it.on_withdrawn(second, 1.0)
    assert it.on_released(first, 2.0) == [Start(third, "m")]


def test_it_waits_for_its_predecessor_even_when_a_slot_is_free() -> None:
    it, first, second = ready(slots=4), job(supersede_key="k"), job(supersede_key="k")
    it.on_request(first, 1.0)
    assert started(it.on_request(second, 1.0)) == []
    assert it.on_released(first, 2.0) == [Start(second, "m")]


# the door


def test_a_full_queue_refuses_and_says_when_to_come_back() -> None:
    it, refused = scheduler(max_requests=2), job()
    it.on_request(job(), 1.0)
    it.on_request(job(model="other"), 1.0)
    (decision,) = it.on_request(refused, 1.0)
    assert isinstance(decision, Reject)
    assert decision.error.code is Code.QUEUE_FULL
    assert decision.error.retry_after_ms is not None
    assert decision.error.details == {"waiting": 2, "limit": 2, "reason": "requests"}


def test_one_tenant_cannot_fill_the_queue_of_others() -> None:
    it = scheduler(per_tenant=1)
    it.on_request(job(tenant="greedy"), 1.0)
    greedy = job(tenant="greedy")
    assert rejected(it.on_request(greedy, 1.0)) == [(greedy, "tenant_requests")]
    assert rejected(it.on_request(job(tenant="modest"), 1.0)) == []


def test_the_queue_is_bounded_in_tokens_too() -> None:
    it = scheduler(queue=Queue(max_tokens=250, max_tokens_per_tenant=150))
    assert rejected(it.on_request(job(tenant="a", n_prompt=20), 1.0)) == []
    greedy, late = job(tenant="a", n_prompt=20), job(tenant="c", n_prompt=20)
    assert rejected(it.on_request(greedy, 1.0)) == [(greedy, "tenant_tokens")]
    assert rejected(it.on_request(job(tenant="b", n_prompt=20), 1.0)) == []
    assert rejected(it.on_request(late, 1.0)) == [(late, "tokens")]


def test_a_tenant_may_have_limits_of_its_own() -> None:
    own = {"small": TenantLimits(max_requests=1), "large": TenantLimits(max_tokens=10_000)}
    it = scheduler(queue=Queue(max_requests_per_tenant=2, max_tokens_per_tenant=250))
    it.desk.tenants = own
    for tenant, n_let_in, reason in (("small", 1, "tenant_requests"), ("other", 2, "tenant_requests")):
        jobs = [job(tenant=tenant, n_prompt=20) for _ in range(n_let_in + 1)]
        refused = [rejected(it.on_request(one, 1.0)) for one in jobs]
        assert refused == [[]] * n_let_in + [[(jobs[-1], reason)]]
    large = [job(tenant="large", n_prompt=500) for _ in range(2)]
    assert [rejected(it.on_request(one, 1.0)) for one in large] == [[], []]


def test_a_prompt_is_estimated_at_the_door_and_corrected_when_it_is_read() -> None:
    it, unread = scheduler(), job(n_prompt=None)
    it.on_request(unread, 1.0)
    assert it.desk.total.prompt_tokens == 12  # of 40 bytes
    unread.prompt = [1] * 30
    it.on_prepared(unread, 1.0)
    assert it.desk.total.prompt_tokens == 30
    assert it.lanes["m"].pace.expected_prompt(40) == 30


def test_running_jobs_do_not_count_as_waiting() -> None:
    it = ready(max_requests=1)
    it.on_request(job(), 1.0)
    assert it.on_request(job(), 1.0) == []


def test_a_deadline_that_cannot_be_met_is_refused_at_once() -> None:
    it = ready()
    pace(it, decode_ms=10.0)
    it.on_request(job(max_tokens=100), 0.0)  # a second of work
    it.on_request(job(max_tokens=100), 0.0)
    hopeless, possible = job(max_tokens=100, deadline_ms=1500), job(max_tokens=100, deadline_ms=2500)
    assert rejected(it.on_request(hopeless, 0.0)) == [(hopeless, "deadline")]
    assert rejected(it.on_request(possible, 0.0)) == []
    assert it.lanes["m"].waiting[0] is possible


def test_nobody_is_let_in_before_one_who_would_then_miss_the_deadline() -> None:
    it = ready()
    pace(it, decode_ms=10.0)
    it.on_request(job(max_tokens=100), 0.0)
    promised, pushing = job(max_tokens=100, deadline_ms=2500), job(max_tokens=100, deadline_ms=2400)
    assert rejected(it.on_request(promised, 0.0)) == []
    assert rejected(it.on_request(pushing, 0.0)) == [(pushing, "crowded")]


def test_a_class_that_waits_no_longer_than_so_is_told_when_it_would() -> None:
    it = ready(batch=ClassOptions(first_token_limit_s=1.5))
    pace(it, decode_ms=10.0)
    it.on_request(job(BATCH, max_tokens=100), 0.0)
    assert rejected(it.on_request(job(BATCH, max_tokens=100), 0.0)) == []
    late = job(BATCH, max_tokens=100)
    assert rejected(it.on_request(late, 0.0)) == [(late, "wait")]


def test_what_was_forecast_is_compared_with_what_came() -> None:
    it = ready()
    pace(it, decode_ms=10.0)
    first, second = job(max_tokens=100), job(max_tokens=100)
    it.on_request(first, 0.0)
    it.on_request(second, 0.0)
    low, high = it.eta_ms(second, 0.0) or (0, 0)
    assert low == pytest.approx(1010.0)
    assert high == pytest.approx(1010.0)
    low, high = it.eta_ms(second, 0.5) or (0, 0)
    assert low == pytest.approx(510.0)
    assert high == pytest.approx(510.0)
    it.on_released(first, 2.0)
    it.on_first_token(second, 2.02)
    assert it.lanes["m"].pace.first_token[False]._ratios[-1] == pytest.approx(2.0)


# memory


def test_the_first_request_loads_its_model_once() -> None:
    it, first = scheduler(), job(n_prompt=None)
    assert it.on_request(first, 1.0) == [Load("m")]
    assert it.on_request(job(), 1.0) == []
    assert it.on_load("m", 1.0) == []
    assert it.why(first, 1.0) == "prompt"


def test_those_who_waited_start_when_the_model_is_ready() -> None:
    it, batch, chat = scheduler(), job(BATCH), job(CHAT)
    it.on_request(batch, 1.0)
    it.on_request(chat, 1.0)
    assert it.why(batch, 1.0) == "load"
    assert it.on_ready("m", 1, 1000, 1.0, 2.0) == [Start(chat, "m")]


def test_a_model_that_can_never_fit_is_refused_with_both_numbers() -> None:
    it, first = scheduler(host_bytes=40), job()
    reject, refuse = it.on_request(first, 1.0)
    assert isinstance(reject, Reject)
    assert reject.error.code is Code.NO_ROOM
    assert reject.error.details == {"pool": "host", "needed_bytes": 50, "free_bytes": 40}
    assert refuse == Refuse("m", reject.error)
    assert not it.lanes["m"].line


def test_an_idle_model_makes_way() -> None:
    it, wants = ready(host_bytes=60), job(model="other")
    assert it.on_request(wants, 1.0) == [Evict("m")]
    it.on_closed("m", FOREVER)
    assert it.on_request(job(model="other"), 1.0) == []
    assert it.why(wants, 1.0) == "load"
    it.rooms.ledger.release(it.rooms.ledger.reservations["m"])
    assert it.on_cold("m", 2.0) == [Load("other")]


def test_a_busy_model_of_the_same_class_makes_way_after_the_longest_wait() -> None:
    it, runs, wants = ready(host_bytes=60), job(CHAT), job(CHAT, "other", arrived_s=1.0)
    it.on_request(runs, 0.0)
    assert it.on_request(wants, 1.0) == []
    assert it.why(wants, 1.0) == "room"
    wake_s = it.wake_s(1.0)
    assert wake_s is not None
    assert 1.5 < wake_s <= 3.0
    assert it.on_tick(wake_s - 0.01) == []
    assert it.on_tick(wake_s) == [Evict("m")]


def test_a_busy_model_of_a_lower_class_makes_way_at_once_and_of_a_higher_class_does_not() -> None:
    it, runs = ready(host_bytes=60), job(NORMAL)
    it.on_request(runs, 0.0)
    assert it.on_request(job(BATCH, "other", arrived_s=1.0), 1.0) == []
    assert it.on_tick(11.0) == []
    assert it.on_request(job(CHAT, "other", arrived_s=11.0), 11.0) == [Evict("m")]


def test_after_its_longest_wait_a_batch_request_has_even_a_chat_model_swapped() -> None:
    it = ready(host_bytes=60)
    it.on_request(job(CHAT), 0.0)
    it.on_request(job(BATCH, "other", arrived_s=1.0), 1.0)
    assert it.on_tick(59.0) == []
    assert it.on_tick(61.0) == [Evict("m")]


def test_a_model_stays_for_its_shortest_time() -> None:
    it = ready(host_bytes=60, min_resident_s=5.0)
    wants = job(CHAT, "other", arrived_s=1.0)
    assert it.on_request(wants, 1.0) == []
    assert it.wake_s(1.0) is not None
    assert it.on_tick(4.9) == []
    assert it.on_tick(5.0) == [Evict("m")]


def test_the_one_that_was_swapped_out_waits_as_long_before_it_comes_back() -> None:
    it, runs, wants = ready(host_bytes=60), job(CHAT), job(CHAT, "other", arrived_s=1.0)
    it.on_request(runs, 0.0)
    it.on_request(wants, 1.0)
    assert it.on_tick(3.0) == [Evict("m")]
    it.on_closed("m", FOREVER)
    it.on_parked(runs, 3.1)
    it.rooms.ledger.release(it.rooms.ledger.reservations["m"])
    assert it.on_cold("m", 3.2) == [Load("other")]
    reserve(it, "other")
    assert it.on_ready("other", 1, 1000, 0.1, 3.3) == [Start(wants, "other")]
    assert it.on_tick(4.1) == []
    assert it.on_released(wants, 4.6) == [Evict("other")]


def test_a_pinned_or_leased_model_does_not_make_way() -> None:
    it = scheduler(host_bytes=60)
    add(it, "m", {"host": 50}, 10.0, pinned=True)
    load(it, "m")
    assert rejected(it.on_request(job(model="other"), 1.0))[0][1] == "no_room"
    it = ready(host_bytes=60)
    it.on_lease("m", "lease", 1.0)
    wants = job(model="other", arrived_s=1.0)
    assert it.on_request(wants, 1.0) == []
    assert it.on_tick(100.0) == []
    assert it.on_lease_ended("m", "lease", 101.0) == [Evict("m")]


def test_a_lease_loads_its_model_and_keeps_it_beyond_the_keep_alive() -> None:
    it = scheduler()
    assert it.on_lease("m", "lease", 0.0) == [Load("m")]
    reserve(it, "m")
    it.on_ready("m", 1, 1000, 0.1, 1.0)
    assert it.on_tick(100.0) == []
    it.on_lease_ended("m", "lease", 100.0)
    assert it.on_tick(110.0) == [Unload("m")]


def test_two_models_that_both_want_the_last_room_do_not_both_get_it() -> None:
    it = ready(host_bytes=60)
    add(it, "third", {"host": 50}, 10.0)
    it.on_request(job(CHAT), 0.0)
    it.on_request(job(CHAT, "other", arrived_s=0.0), 0.0)
    it.on_request(job(CHAT, "third", arrived_s=0.0), 0.0)
    assert it.on_tick(10.0) == [Evict("m")]
    it.on_closed("m", FOREVER)
    it.rooms.ledger.release(it.rooms.ledger.reservations["m"])
    assert it.on_cold("m", 11.0) == [Load("other")]
    assert it.why(next(iter(it.lanes["third"].line)), 11.0) == "room"


def test_a_model_that_does_not_load_serves_none_who_wait() -> None:
    it, jobs = scheduler(), [job(), job(n_prompt=None)]
    for waiting in jobs:
        it.on_request(waiting, 1.0)
    it.on_closed("m", FOREVER)
    error = InferdError(Code.MODEL_CORRUPT, "x")
    assert rejected(it.on_load_failed("m", error, 2.0)) == [(waiting, "model_corrupt") for waiting in jobs]


def test_a_closed_model_starts_nothing_and_is_loaded_again_for_those_who_wait() -> None:
    it, running, waits = ready(), job(), job()
    it.on_request(running, 1.0)
    it.on_closed("m", FOREVER)
    assert it.on_request(waits, 2.0) == []
    assert it.on_released(running, 3.0) == []
    it.rooms.ledger.release(it.rooms.ledger.reservations["m"])
    assert it.on_cold("m", 4.0) == [Load("m")]


def test_a_model_nobody_waits_for_stays_cold() -> None:
    it = ready()
    it.on_closed("m", FOREVER)
    assert it.on_cold("m", 1.0) == []


def test_a_changed_model_may_not_be_in_use() -> None:
    it = ready()
    with pytest.raises(AssertionError):
        add(it, "m", {"host": 1}, 1.0)


# pressure


def test_under_pressure_nothing_is_loaded_and_then_batch_is_sent_away() -> None:
    it, batch, chat = scheduler(), job(BATCH), job(CHAT)
    it.on_pressure(25.0, 0.0)
    assert it.on_request(batch, 0.0) == []
    assert it.on_request(chat, 0.0) == []
    assert it.why(chat, 0.0) == "pressure"
    assert rejected(it.on_pressure(45.0, 1.0)) == [(batch, "shed")]
    assert it.on_pressure(0.0, 2.0) == []
    it.on_pressure(0.0, 2.0 + CALM_S)
    it.on_pressure(0.0, 2.0 + 2 * CALM_S)
    assert it.on_tick(30.0) == [Load("m")]


def test_a_model_whose_last_request_was_sent_away_is_idle_since_then() -> None:
    it, unread = ready(), job(BATCH, n_prompt=None)
    it.on_request(unread, 1.0)
    assert rejected(it.on_pressure(45.0, 2.0)) == [(unread, "shed")]
    assert it.places["m"].idle_since_s == 2.0


# keep-alive


def test_an_idle_model_is_unloaded_after_its_keep_alive_and_not_before() -> None:
    it = ready()
    assert it.on_tick(9.9) == []
    assert it.on_tick(10.0) == [Unload("m")]


def test_idleness_counts_from_the_end_of_the_last_job() -> None:
    it, only = ready(), job()
    it.on_request(only, 5.0)
    assert it.on_tick(100.0) == []
    it.on_released(only, 100.0)
    assert it.on_tick(109.0) == []
    assert it.on_tick(110.0) == [Unload("m")]


def test_a_job_whose_prompt_is_being_read_keeps_its_model() -> None:
    it = ready()
    it.on_request(job(n_prompt=None), 5.0)
    assert it.on_tick(1000.0) == []


def test_a_negative_keep_alive_is_for_ever() -> None:
    it = scheduler()
    load(it, "other")
    assert it.on_tick(1e9) == []


def test_a_pinned_model_stays_when_it_is_idle_until_it_is_unpinned() -> None:
    it = ready()
    it.lanes["m"].pinned = True
    assert it.on_tick(1e6) == []
    it.lanes["m"].pinned = False
    assert it.on_tick(1e6) == [Unload("m")]


def test_a_model_that_drains_is_not_unloaded_again() -> None:
    it = ready()
    it.on_closed("m", FOREVER)
    assert it.on_tick(1e9) == []


# words


def test_a_refusal_for_memory_names_the_pool() -> None:
    message = no_room("m", Shortfall("host", 3 << 30, 1 << 20)).message
    assert message == "m needs 3,072 MiB of memory, but only 1 MiB are free"
    assert "memory on gpu0" in no_room("m", Shortfall("gpu0", 1, 1)).message


def test_every_decision_can_be_made_again_from_its_record() -> None:
    from inferd.daemon.policy.journal import recompute
    from inferd.tests.daemon.policy.tools import as_json

    it: Scheduler = ready(host_bytes=60)
    batch, chat = job(BATCH), job(CHAT)
    for one in (batch, chat, job(CHAT, "other", arrived_s=0.0)):
        it.on_request(one, 0.0)
        it.why(one, 0.0)
    it.on_tick(10.0)
    kinds = {record.kind for record in it.journal}
    assert kinds == {"admit", "queue", "start", "preempt", "evict"}
    for record in it.journal:
        answer = as_json(record.answer)
        assert as_json(recompute(record.kind, record.question)) == answer
        assert as_json(recompute(record.kind, as_json(record.question))) == answer


# what reviews and accidents taught


def test_a_class_that_waited_its_longest_is_not_parked_at_once() -> None:
    it, chat, waits = ready(), job(CHAT), job(BATCH)
    it.on_request(chat, 0.0)
    it.on_request(waits, 0.0)
    it.on_request(job(CHAT), 60.0)
    assert it.on_released(chat, 60.1) == [Start(waits, "m")]


def test_what_a_class_got_while_nobody_else_wanted_it_is_no_debt() -> None:
    it, runs = ready(), job(BATCH)
    it.on_request(runs, 0.0)
    it.on_request(job(BATCH), 0.0)
    runs.generated += [1] * 100_000
    it.on_tick(1.0)
    assert it.lanes["m"].owed_tokens[BATCH] == 0.0


def test_one_that_is_superseded_and_sent_away_in_one_breath_ends_once() -> None:
    it = scheduler(host_bytes=60)
    load(it, "other")
    it.on_request(job(CHAT, "other"), 0.0)
    old, new = job(supersede_key="k", arrived_s=0.0), job(supersede_key="k", arrived_s=1.0)
    it.on_request(old, 0.0)
    it.rooms.ledger.observe("host", 60, {})  # somebody else took it
    decisions = it.on_request(new, 1.0)
    kinds = [type(decision) for decision in decisions]
    assert kinds.index(Reject) < kinds.index(Cancel)


def test_a_grant_holds_what_drains_too() -> None:
    it = scheduler(host_bytes=110)
    load(it, "m")
    load(it, "other")
    add(it, "large", {"host": 90}, 10.0)
    it.on_closed("m", FOREVER)
    assert it.on_request(job(model="large", arrived_s=1.0), 1.0) == [Evict("other")]
    assert it.places["large"].granted == {"m", "other"}
    it.on_closed("other", FOREVER)
    it.on_request(job(model="other", arrived_s=2.0), 2.0)
    it.rooms.ledger.release(it.rooms.ledger.reservations["other"])
    assert it.on_cold("other", 3.0) == []  # it does not take back what it gave
    it.rooms.ledger.release(it.rooms.ledger.reservations["m"])
    assert it.on_cold("m", 4.0) == [Load("large")]


def test_a_text_that_waits_for_its_model_has_room_made_for_its_reader_too() -> None:
    it = scheduler(host_bytes=110)
    add(it, "m", {"host": 50}, 10.0, helper_bytes=20)
    load(it, "other")
    assert it.on_request(job(n_prompt=None), 1.0) == [Evict("other")]


def test_jobs_that_are_over_are_not_kept() -> None:
    it = ready()
    for i in range(1000):
        one = job()
        it.on_request(one, float(i))
        it.on_released(one, float(i))
    assert len(it.lanes["m"].line._arrivals) < 100


def test_a_model_that_makes_way_is_not_unloaded_for_being_idle_as_well() -> None:
    it = ready(host_bytes=60, min_resident_s=5.0)
    add(it, "other", {"host": 50})
    it.places["m"].idle_since_s = -7.0  # its keep-alive ends while somebody waits until it may go
    assert it.on_request(job(model="other"), 0.0) == []
    assert it.on_tick(5.0) == [Evict("m")]


def test_who_waits_for_the_end_of_the_same_model_is_not_kept_waiting_by_the_other() -> None:
    it = ready(host_bytes=100)
    for name in ("small", "large"):
        add(it, name, {"host": 60})
    it.on_closed("m", FOREVER)
    first, second = job(model="small"), job(model="large")
    assert it.on_request(first, 1.0) == it.on_request(second, 1.0) == []
    it.places["large"].granted = {"m"}  # both were promised what it holds
    it.rooms.ledger.release(it.rooms.ledger.reservations["m"])
    assert it.on_cold("m", 2.0) == [Load("small")]
    assert not it.places["large"].granted
