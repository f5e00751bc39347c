"""Who may stay, for how long one waits, and what can never be."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from inferd.daemon.domain.decision import Evict, Load
from inferd.daemon.policy.ledger import Ledger
from inferd.daemon.policy.rooms import LEAD_S, START_S, NoRoom
from inferd.tests.daemon.policy.tools import (
    BATCH,
    CHAT,
    FOREVER,
    NORMAL,
    add,
    job,
    load,
    pace,
    ready,
    reserve,
    scheduler,
)

if TYPE_CHECKING:
    from inferd.daemon.policy.scheduler import Scheduler


def stays(it: Scheduler, model: str = "m", now_s: float = 100.0, asks: str = "other") -> str:
    """Why one does not make way for another."""
    question = it.rooms.question(it.places[asks], now_s)
    return next(holder.stays for holder in question.holders if holder.model == model)


def test_an_idle_model_may_go_and_a_busy_one_of_the_same_class_not() -> None:
    it = ready(host_bytes=60)
    assert stays(it) == ""
    it.on_request(job(CHAT), 100.0)
    it.on_request(job(CHAT, "other", arrived_s=100.0), 100.0)
    assert stays(it) == "busy"


@pytest.mark.parametrize(("theirs", "mine", "why"), [(BATCH, CHAT, ""), (CHAT, NORMAL, "busy"), (NORMAL, CHAT, "")])
def test_classes_decide_before_the_wait_is_over(theirs, mine, why) -> None:  # type: ignore[no-untyped-def]
    it = ready(host_bytes=60, min_resident_s=0.0)
    it.on_request(job(theirs), 100.0)
    wants = job(mine, "other", arrived_s=100.0)
    lane = it.lanes["other"]
    lane.line.add(wants, it.desk.ticket(lane, wants))
    assert stays(it) == why


def test_a_load_that_was_measured_counts_and_else_its_size() -> None:
    it = scheduler()
    assert it.rooms.reload_s(it.places["m"]) == pytest.approx(START_S + 50 / 500e6)
    it.lanes["m"].pace.load_s.add(3.0)
    assert it.rooms.reload_s(it.places["m"]) == 3.0


def test_a_swap_begins_so_early_that_it_is_over_in_time() -> None:
    it = ready(host_bytes=60)
    it.lanes["other"].pace.load_s.add(0.4)
    it.on_request(job(CHAT), 0.0)
    it.on_request(job(CHAT, "other", arrived_s=10.0), 10.0)
    assert it.wake_s(10.0) == pytest.approx(10.0 + 2.0 - LEAD_S - 0.4)


def test_models_that_take_long_to_load_are_in_use_at_least_half_of_the_time() -> None:
    it = ready(host_bytes=60)
    it.lanes["other"].pace.load_s.add(30.0)
    it.on_request(job(CHAT), 0.0)
    it.on_request(job(CHAT, "other", arrived_s=10.0), 10.0)
    assert it.wake_s(10.0) == pytest.approx(40.0)


def test_a_model_stays_until_it_is_well_beyond_the_prompts_of_what_it_runs() -> None:
    it = ready(host_bytes=60)
    pace(it, prefill_ms=10.0, decode_ms=1.0)
    it.on_request(job(CHAT, n_prompt=1000), 0.0)
    it.on_request(job(CHAT, "other", arrived_s=0.0), 0.0)
    assert stays(it, now_s=19.9) == "young"
    assert it.wake_s(5.0) == pytest.approx(20.0)
    assert it.on_tick(20.0) == [Evict("m")]


def test_a_busy_model_stays_until_the_wait_is_over() -> None:
    it = ready(host_bytes=60)
    lane, busy = it.lanes["other"], it.places["m"]
    lane.pace.load_s.add(0.4)
    it.on_request(job(CHAT), 0.0)
    assert it.rooms.stays_until_s(lane, busy) is None  # nobody waits
    it.on_request(job(CHAT, "other", arrived_s=10.0), 10.0)
    until_s = it.rooms.stays_until_s(lane, busy)
    assert until_s == pytest.approx(10.0 + 2.0 - LEAD_S - 0.4)
    assert until_s is not None
    assert stays(it, now_s=until_s - 0.01) == "busy"
    assert it.on_tick(until_s) == [Evict("m")]


def test_a_model_that_is_young_stays_beyond_the_wait() -> None:
    it = ready(host_bytes=60, min_resident_s=50.0)
    it.on_request(job(CHAT), 0.0)
    it.on_request(job(CHAT, "other", arrived_s=0.0), 0.0)
    assert it.rooms.stays_until_s(it.lanes["other"], it.places["m"]) == 50.0
    assert stays(it, now_s=49.9) == "young"
    assert it.on_tick(50.0) == [Evict("m")]


def test_asking_changes_nothing() -> None:
    it = ready(host_bytes=60)
    it.on_request(job(CHAT), 0.0)
    place = it.places["other"]
    before = (dict(it.rooms.ledger.reservations), place.granted.copy(), place.loading, len(it.journal))
    first, again = it.rooms.question(place, 5.0), it.rooms.question(place, 5.0)
    assert first == again
    assert before == (it.rooms.ledger.reservations, place.granted, place.loading, len(it.journal))


def test_what_drains_is_waited_for_and_nobody_else_makes_way() -> None:
    it = scheduler(host_bytes=110)
    load(it, "m")
    load(it, "other")
    add(it, "third", {"host": 50}, 10.0)
    it.on_closed("m", FOREVER)
    assert it.on_request(job(model="third"), 1.0) == []
    it.rooms.ledger.release(it.rooms.ledger.reservations["m"])
    assert it.on_cold("m", 2.0) == [Load("third")]


def test_a_prompt_helper_of_a_cold_model_makes_way() -> None:
    it = scheduler(host_bytes=60)
    it.rooms.ledger.reserve("other/prompt-1", {"host": 20})
    assert it.on_request(job(), 1.0) == [Evict("other")]
    it.rooms.ledger.release(it.rooms.ledger.reservations["other/prompt-1"])
    assert it.on_freed("other", 2.0) == [Load("m")]


def test_no_room_says_what_could_be_free_at_most() -> None:
    it = scheduler(host_bytes=60)
    add(it, "m", {"host": 50}, 10.0, pinned=True)
    load(it, "m")
    with pytest.raises(NoRoom) as caught:
        it.rooms.check_possible(it.rooms.options_of(it.lanes["other"], 0.0))
    assert (caught.value.short.needed_bytes, caught.value.short.free_bytes) == (50, 10)


def test_a_device_that_is_no_pool_has_no_room() -> None:
    it = scheduler()
    add(it, "other", {"gpu7": 1}, 10.0)
    assert isinstance(it.rooms.ledger, Ledger)
    with pytest.raises(NoRoom):
        it.rooms.claim(it.lanes["other"], 0.0)


def test_a_model_that_was_swapped_out_lets_the_other_one_work_as_long_as_its_load_took() -> None:
    it, runs, wants = ready(host_bytes=60), job(NORMAL), job(NORMAL, "other", arrived_s=1.0)
    it.lanes["m"].pace.load_s.value = it.lanes["other"].pace.load_s.value = 5.0
    it.on_request(runs, 0.0)
    it.on_request(wants, 1.0)
    assert it.on_tick(20.0) == [Evict("m")]  # it never had a turn before
    it.on_closed("m", FOREVER)
    it.on_parked(runs, 20.0)
    it.rooms.ledger.release(it.rooms.ledger.reservations["m"])
    assert it.on_cold("m", 21.0) == [Load("other")]
    reserve(it, "other")
    it.on_ready("other", 1, 1000, 5.0, 26.0)
    assert stays(it, "other", 30.9, asks="m") == "busy"  # its patience of 5 s is over, the other's 5 s are not
    assert it.wake_s(30.0) == pytest.approx(31.0)
    assert it.on_tick(31.0) == [Evict("other")]
