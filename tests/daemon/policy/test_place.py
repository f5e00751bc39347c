"""What one place of a model knows of itself."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from inferd.daemon.domain.decision import Preempt
from inferd.daemon.domain.inputs import Inputs
from inferd.daemon.policy.place import HEADROOM_TOKENS, cells, cells_together
from inferd.tests.daemon.policy.tools import BATCH, CHAT, add, job, load, ready, scheduler


def test_an_empty_place_takes_any_prompt_and_a_busy_one_what_its_cells_allow() -> None:
    it = ready(slots=2, kv_cells=200)
    place, large = it.places["m"], job(n_prompt=190)
    assert place.takes(large)
    it.on_request(job(n_prompt=100), 0.0)
    assert place.cells_free() == 200 - 100 - HEADROOM_TOKENS
    assert not place.takes(large)
    assert place.takes(job(n_prompt=36))


def test_who_lets_go_of_a_slot_has_made_way_if_it_was_told_to() -> None:
    it, told, ended = ready(slots=2), job(BATCH), job(CHAT)
    it.on_request(told, 0.0)
    it.on_request(ended, 0.0)
    assert it.on_request(job(CHAT), 0.0) == [Preempt(told)]
    place = it.places["m"]
    assert (place.let_go(told).parks, place.let_go(ended).parks) == (1, 0)
    assert not place.running
    assert not place.parking


def test_inputs_that_are_embedded_keep_no_cells() -> None:
    it = ready(slots=2, kv_cells=200)
    it.on_request(job(n_prompt=5000, inputs=Inputs(["x"])), 0.0)
    assert it.places["m"].cells_free() == 200
    assert it.places["m"].takes(job(n_prompt=9000, inputs=Inputs(["x"])))


def test_jobs_that_begin_alike_need_the_cells_of_their_beginning_once() -> None:
    shared = list(range(1000, 1150))
    jobs = [job(tokens=[*shared, i]) for i in range(4)]
    stranger = job(tokens=[*shared, 9])
    stranger.cache_salt = "another"
    assert cells_together(jobs) == 150 + 4 * (1 + HEADROOM_TOKENS)
    assert cells_together([*jobs, stranger]) == 300 + 5 * (1 + HEADROOM_TOKENS)
    for shares in (True, False):
        it = ready(slots=8, kv_cells=400, shares_prefixes=shares)
        for one in jobs[:2]:
            it.on_request(one, 0.0)
        place = it.places["m"]
        assert place.takes(jobs[2]) is shares
        assert place.takes(stranger) is shares
        assert place.takes(job(n_prompt=190)) is False
        assert place.cells_free() == 400 - 2 * (151 + HEADROOM_TOKENS)


@given(st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=6), min_size=1, max_size=6))
def test_cells_together_are_those_of_distinct_beginnings(prompts: list[list[int]]) -> None:
    jobs = [job(tokens=tokens, max_tokens=1) for tokens in prompts]
    distinct = {tuple(tokens[: i + 1]) for tokens in prompts for i in range(len(tokens))}
    assert cells_together(jobs) == len(distinct) + len(jobs)


def test_a_short_answer_needs_no_headroom_beyond_itself() -> None:
    assert cells(job(n_prompt=10, max_tokens=3)) == 13


def test_a_place_is_up_from_the_decision_to_load_it_on() -> None:
    it = scheduler(host_bytes=60)
    place = it.places["m"]
    assert not place.up
    add(it, "small", {"host": 20})
    load(it, "small")
    it.on_request(job(CHAT), 1.0)  # `small` makes way
    assert (place.loading, place.up) == (False, True)


def test_an_idle_place_says_when_it_goes_and_one_that_stays_does_not() -> None:
    it = ready()
    place = it.places["m"]
    it.on_tick(5.0)
    assert place.unload_in_s(7.0) == 10.0 - 7.0
    assert place.unload_in_s(12.0) == -2.0
    it.lanes["m"].pinned = True
    assert place.unload_in_s(7.0) is None
    assert not place.idle_too_long(1e9)
    it.lanes["m"].pinned, it.lanes["m"].keep_alive_s = False, -1.0
    assert place.unload_in_s(7.0) is None
    it.lanes["m"].keep_alive_s = 10.0
    it.on_request(job(), 8.0)
    assert place.unload_in_s(8.0) is None
    assert scheduler().places["m"].unload_in_s(0.0) is None
