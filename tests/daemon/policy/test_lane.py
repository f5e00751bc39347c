"""What one model's lane knows of itself."""

from __future__ import annotations

import pytest

from inferd.daemon.policy.place import HEADROOM_TOKENS, cells
from inferd.tests.daemon.policy.tools import BATCH, CHAT, NORMAL, job, pace, ready, scheduler


def test_cells_are_the_prompt_what_came_so_far_and_a_little_ahead() -> None:
    it = job(n_prompt=10)
    it.generated = [1, 2, 3]
    assert cells(it) == 13 + HEADROOM_TOKENS
    it.max_tokens = 5
    assert cells(it) == 13 + 5


def test_it_is_wanted_since_the_first_who_still_waits_or_since_it_went_cold() -> None:
    it = scheduler()
    lane = it.lanes["m"]
    assert lane.wanted_since_s() is None
    it.on_request(job(arrived_s=5.0), 5.0)
    it.on_lease("m", "lease", 3.0)
    assert lane.wanted_since_s() == 3.0
    it.places["m"].cold_s = 4.0
    assert lane.wanted_since_s() == 4.0


def test_its_highest_class_is_of_those_who_wait_or_run_and_a_lease_is_of_the_highest() -> None:
    it = ready()
    lane = it.lanes["m"]
    assert lane.highest_rank() is None
    it.on_request(job(NORMAL), 0.0)
    it.on_request(job(BATCH), 0.0)
    assert lane.highest_rank() == 1
    it.on_lease("m", "lease", 0.0)
    assert lane.highest_rank() == 0


def test_uses_fade() -> None:
    lane = scheduler().lanes["m"]
    for _ in range(10):
        lane.note_use(0.0)
    assert lane.uses_per_s(0.0) > lane.uses_per_s(600.0) > lane.uses_per_s(6000.0) > 0


def test_what_is_left_of_a_running_job() -> None:
    it, one = ready(), job(CHAT, n_prompt=100, max_tokens=50)
    pace(it, prefill_ms=1.0, decode_ms=2.0)
    it.on_request(one, 0.0)
    lane, one.started_s = it.lanes["m"], 0.0
    ticket = lane.running[one]
    assert lane.residual_ms(one, ticket, 0.0) == pytest.approx(100 + 100)
    assert lane.residual_ms(one, ticket, 0.06) == pytest.approx(40 + 100)
    assert lane.residual_ms(one, ticket, 9.0) == pytest.approx(100)
    one.first_token_s, one.generated = 9.0, [1] * 20
    assert lane.residual_ms(one, ticket, 9.0) == pytest.approx(60)
