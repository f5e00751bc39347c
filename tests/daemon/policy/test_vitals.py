from __future__ import annotations

from inferd.daemon.policy.vitals import STALL_S, Vitals
from inferd.tests.daemon.policy.tools import CHAT, job, ready, scheduler


def test_who_could_be_served_and_is_not_for_long_has_stalled() -> None:
    it, vitals = ready(), Vitals()
    forgotten, lane = job(CHAT), it.lanes["m"]
    ticket = it.desk.ticket(lane, forgotten)
    it.desk.enter(forgotten, ticket)
    lane.line.add(forgotten, ticket)
    lane.line.make_pickable(forgotten)
    assert vitals.look(it.lanes.values(), 5.0) == []
    assert vitals.look(it.lanes.values(), 5.0 + STALL_S - 0.1) == []
    assert vitals.look(it.lanes.values(), 5.0 + STALL_S) == ["m"]
    it.on_tick(20.0)  # somebody looks
    assert vitals.look(it.lanes.values(), 20.0) == []


def test_who_waits_for_good_reasons_has_not() -> None:
    it, vitals = ready(), Vitals()
    for priority in (CHAT, CHAT):  # one slot
        it.on_request(job(priority), 0.0)
    it.on_request(job(CHAT, "other"), 0.0)  # it is not loaded, and has no room
    for now_s in range(0, 100, 5):
        assert vitals.look(it.lanes.values(), float(now_s)) == []


def test_a_prompt_that_is_still_being_read_is_no_stall() -> None:
    it, vitals = ready(), Vitals()
    it.on_request(job(CHAT, n_prompt=None), 0.0)
    assert vitals.look(it.lanes.values(), 0.0) == vitals.look(it.lanes.values(), 100.0) == []


def test_nothing_to_do_is_none_either() -> None:
    assert Vitals().look(scheduler().lanes.values(), 1.0) == []
