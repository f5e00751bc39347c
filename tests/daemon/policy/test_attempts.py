"""How often is too often."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from inferd.daemon.policy.attempts import MAX_PEERS, MOST, WINDOW_S, Attempts


def test_ten_a_minute_and_no_more() -> None:
    it = Attempts()
    assert [it.note("a", i * 1.0) for i in range(MOST + 2)] == [False] * MOST + [True] * 2
    assert not it.note("b", 12.0)
    assert not it.note("a", 12.0 + WINDOW_S)


@given(st.lists(st.floats(0, 20, allow_nan=False), max_size=60))
def test_it_is_too_often_when_so_many_came_within_the_window(steps_s: list[float]) -> None:
    it, now_s, before = Attempts(most=3), 0.0, list[float]()
    for step_s in steps_s:
        now_s += step_s
        recent = [at_s for at_s in before if now_s - at_s < WINDOW_S]
        assert it.note("a", now_s) is (len(recent) >= 3)
        before.append(now_s)


def test_the_peers_that_tried_longest_ago_are_forgotten() -> None:
    it = Attempts(most=1)
    for i in range(MAX_PEERS + 1):
        it.note(f"p{i}", 0.0)
    assert it.note(f"p{MAX_PEERS}", 1.0)
    assert not it.note("p0", 1.0)
