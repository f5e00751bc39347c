from __future__ import annotations

from inferd.daemon.domain.config import ClassOptions, Config, Memory, Queue, TenantLimits, Turns
from inferd.daemon.policy.reconfigure import reconfigure
from inferd.tests.daemon.policy.tools import BATCH, CHAT, job, preempted, ready, rejected, started


def test_who_comes_after_it_finds_the_new_limits() -> None:
    it = ready()
    it.on_request(job(CHAT), 0.0)
    reconfigure(it, Config(queue=Queue(max_requests=2)))
    assert not rejected(it.on_request(job(CHAT), 0.0))
    it.on_request(job(CHAT), 0.0)
    (_, why), *_ = rejected(it.on_request(job(CHAT), 0.0))
    assert why == "requests"


def test_tenants_have_the_new_limits() -> None:
    it = ready()
    it.on_request(job(CHAT), 0.0)
    reconfigure(it, Config(tenants={"greedy": TenantLimits(max_requests=1)}))
    assert not rejected(it.on_request(job(CHAT, tenant="greedy"), 0.0))
    (_, why), *_ = rejected(it.on_request(job(CHAT, tenant="greedy"), 0.0))
    assert why == "tenant_requests"


def test_what_waits_stays_under_a_limit_that_is_lower_now() -> None:
    it = ready()
    for _ in range(4):
        it.on_request(job(CHAT), 0.0)
    reconfigure(it, Config(queue=Queue(max_requests=1)))
    assert len(it.lanes["m"].waiting) == 3


def test_nobody_is_parked_any_more() -> None:
    it = ready()
    assert started(it.on_request(job(BATCH), 0.0))
    reconfigure(it, Config(scheduler=Turns(preempt=False)))
    assert not preempted(it.on_request(job(CHAT), 0.0))
    reconfigure(it, Config())
    assert preempted(it.on_tick(1.0))


def test_waits_and_thresholds_are_the_new_ones() -> None:
    it = ready()
    turns = Turns(interactive=ClassOptions(max_wait_s=9.0), min_resident_s=7.0)
    reconfigure(it, Config(scheduler=turns, memory=Memory(pressure=(1.0, 2.0, 3.0, 4.0))))
    assert it.rooms.max_wait_s[CHAT] == 9.0
    assert it.rooms.options.min_resident_s == 7.0
    it.on_pressure(3.5, 0.0)
    assert it.pressure.grade == 3
