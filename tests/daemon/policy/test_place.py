"""What one place of a model knows of itself."""

from __future__ import annotations

from inferd.daemon.policy.place import HEADROOM_TOKENS, cells
from inferd.tests.daemon.policy.tools import CHAT, add, job, load, ready, scheduler


def test_an_empty_place_takes_any_prompt_and_a_busy_one_what_its_cells_allow() -> None:
    it = ready(slots=2, kv_cells=200)
    place, large = it.places["m"], job(n_prompt=190)
    assert place.takes(large)
    it.on_request(job(n_prompt=100), 0.0)
    assert place.cells_free() == 200 - 100 - HEADROOM_TOKENS
    assert not place.takes(large)
    assert place.takes(job(n_prompt=36))


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
