"""Shares: between tenants, and between classes."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.daemon.domain.config import ClassOptions
from inferd.daemon.domain.decision import Preempt, Start
from inferd.daemon.domain.request import Phase
from inferd.daemon.policy.fair import service
from inferd.tests.daemon.policy.tools import BATCH, CHAT, NORMAL, job, ready, started

if TYPE_CHECKING:
    from inferd.daemon.domain.request import Job, Priority


def serve(it, n: int, arrivals, tokens: int = 20):  # type: ignore[no-untyped-def]
    """One slot, `n` requests served to their end; `arrivals(i)` come before each. -> served tokens by tenant."""
    served: dict[str, float] = {}
    running: Job | None = None
    for i in range(n):
        for new in arrivals(i):
            begun = started(it.on_request(new, float(i)))
            running = begun[0] if begun else running
        if running is None:
            continue
        running.generated += [1] * tokens
        tenant = running.request.tenant
        served[tenant] = served.get(tenant, 0.0) + service(len(running.prompt or ()), tokens)
        begun = started(it.on_released(running, float(i)))
        running = begun[0] if begun else None
    return served


def test_two_tenants_that_offer_ten_to_one_are_served_one_to_one() -> None:
    it = ready(max_requests=100_000, per_tenant=100_000)
    served = serve(it, 400, lambda _: [job(tenant="greedy") for _ in range(10)] + [job(tenant="modest")])
    assert served["greedy"] == pytest.approx(served["modest"], rel=0.1)


def test_a_share_that_one_leaves_goes_to_the_other() -> None:
    it = ready(max_requests=100_000, per_tenant=100_000)
    served = serve(it, 400, lambda i: [job(tenant="greedy")] + ([job(tenant="modest")] if i % 10 == 0 else []))
    assert served["modest"] == pytest.approx(40 * service(10, 20))
    assert served["greedy"] == pytest.approx(360 * service(10, 20))


@given(st.integers(0, 2**32), st.integers(2, 5))
def test_backlogged_tenants_stay_within_the_bound(seed: int, n_tenants: int) -> None:
    """Sheng et al., theorem 4.4: with one request in the batch, 2 x max(w_p x prompt, w_q x output)."""
    draw = random.Random(seed)
    it = ready(max_requests=100_000, per_tenant=100_000)
    tenants = [f"t{i}" for i in range(n_tenants)]
    backlog = [job(tenant=t, n_prompt=draw.randrange(1, 200)) for t in tenants for _ in range(60)]
    draw.shuffle(backlog)
    largest = max(service(len(j.prompt or ()), 20) for j in backlog)
    served = serve(it, 50, lambda i: backlog if i == 0 else [])
    assert max(served.get(t, 0.0) for t in tenants) - min(served.get(t, 0.0) for t in tenants) <= 2 * largest


@pytest.mark.parametrize(("priority", "share"), [(BATCH, 0.05), (NORMAL, 0.10)])
def test_a_lower_class_gets_its_floor_share_under_endless_chat(priority: Priority, share: float) -> None:
    options: dict[str, Any] = {priority.value: ClassOptions(floor_share=share, max_wait_s=1e9)}
    it = ready(preempt=False, max_requests=100_000, per_tenant=100_000, **options)

    def arrivals(_: int) -> list[Job]:
        return [job(CHAT, tenant="chat", max_tokens=20), job(priority, tenant="low", max_tokens=20)]

    served = serve(it, 600, arrivals)
    assert served["low"] / sum(served.values()) == pytest.approx(share / (1 + share), rel=0.25)


def test_who_runs_on_its_floor_share_is_not_parked() -> None:
    it = ready(batch=ClassOptions(floor_share=0.5, max_wait_s=1e9))
    chat, low = job(CHAT, n_prompt=1000), job(BATCH, max_tokens=5)
    it.on_request(chat, 0.0)
    it.on_request(low, 0.0)
    chat.generated += [1] * 100
    it.on_request(job(CHAT), 0.0)
    assert started(it.on_released(chat, 1.0)) == [low]
    assert it.on_request(job(CHAT), 1.0) == []
    assert low not in it.places["m"].parking


def test_one_that_was_cancelled_is_not_told_to_make_way_and_its_slot_is_waited_for() -> None:
    it, cancelled, other = ready(slots=2), job(BATCH, n_prompt=1), job(BATCH)
    it.on_request(cancelled, 0.0)
    it.on_request(other, 0.0)
    cancelled.move(Phase.CANCELLED)
    first, second = job(CHAT), job(CHAT)
    assert it.on_request(first, 1.0) == []
    assert it.on_request(second, 1.0) == [Preempt(other)]
    assert it.on_released(cancelled, 2.0) == [Start(first, "m")]


def test_what_is_left_of_a_share_goes_with_the_last_who_waited() -> None:
    it = ready()
    running = started(it.on_request(job(CHAT), 0.0))
    batch = job(BATCH)
    it.on_request(batch, 0.0)
    running[0].generated += [1] * 10_000
    assert started(it.on_released(running[0], 1.0)) == [batch]
    assert BATCH not in it.lanes["m"].owed_tokens
