"""Workers in virtual time: what they say, and when."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.backends.messages import Delta, Event, Finished, Stopped
from inferd.daemon.replay.engine import Costs, StepWorker, StreamWorker, Work, Worker, worker

STREAMS = Costs(prefill_tokens_per_s=1000.0, decode_tokens_per_s=50.0)
STEPS = Costs(prefill_tokens_per_s=1000.0, step_s=0.010, row_s=0.002)


def run(it: Worker, *works: Work) -> list[tuple[float, Event]]:
    """(when, what) until it is idle; works join at their times."""
    seen: list[tuple[float, Event]] = []
    coming = sorted(works, key=lambda work: work.joined_s)
    while coming or it.next_s() < math.inf:
        now_s = min(it.next_s(), coming[0].joined_s if coming else math.inf)
        seen += [(now_s, event) for event in it.events(now_s)]
        while coming and coming[0].joined_s <= now_s:
            it.submit(coming.pop(0))
    return seen


def tokens(seen: list[tuple[float, Event]], job: str) -> list[tuple[Any, int, int]]:
    """(when, index, how many)"""
    return [(at, e.index, len(e.tokens)) for at, e in seen if isinstance(e, Delta) and e.job == job]


def end(seen: list[tuple[float, Event]], job: str) -> tuple[float, Finished]:
    (found,) = [(at, e) for at, e in seen if isinstance(e, Finished) and e.job == job]
    return found


def test_costs_name_their_worker() -> None:
    assert isinstance(worker(STREAMS), StreamWorker)
    assert isinstance(worker(Costs()), StreamWorker)
    assert isinstance(worker(STEPS), StepWorker)


# streams


def test_prompts_are_computed_one_after_another_beside_streams() -> None:
    seen = run(StreamWorker(STREAMS), Work("a", 1, 0.0, 100, 3), Work("b", 1, 0.0, 200, 1))
    assert tokens(seen, "a")[0] == (pytest.approx(0.1), 0, 1)
    assert tokens(seen, "b") == [(pytest.approx(0.3), 0, 1)]
    at_s, ended = end(seen, "a")
    assert at_s == pytest.approx(0.14)
    assert (ended.prefill_ms, ended.decode_ms) == pytest.approx((100.0, 40.0))
    assert end(seen, "b")[1].prefill_ms == pytest.approx(200.0)


def test_all_streams_keep_one_beat() -> None:
    seen = run(StreamWorker(STREAMS), Work("a", 1, 0.0, 105, 3))
    assert [at for at, *_ in tokens(seen, "a")] == pytest.approx([0.105, 0.14])  # the beat is at 0.10, 0.12, 0.14


def test_tokens_are_counted_at_every_look() -> None:
    it = StreamWorker(STREAMS)
    it.submit(Work("a", 1, 0.0, 100, 50, n_before=7))
    looks = [it.events(at_s) for at_s in (0.05, 0.1, 0.139, 0.14, 0.2)]
    assert [[len(e.tokens) for e in look if isinstance(e, Delta)] for look in looks] == [[], [1], [1], [1], [3]]
    assert looks[1] == [Delta("a", 1, 7, [0], "")]


def test_without_rates_everything_comes_at_once() -> None:
    seen = run(StreamWorker(Costs()), Work("a", 1, 5.0, 100, 30))
    assert seen[0] == (5.0, Delta("a", 1, 0, [0] * 30, ""))
    assert end(seen, "a")[0] == 5.0


def test_a_cancel_in_mid_prompt_is_answered_at_once_and_the_next_prompt_begins() -> None:
    it = StreamWorker(STREAMS)
    it.submit(Work("a", 1, 0.0, 1000, 5))
    it.submit(Work("b", 1, 0.0, 100, 1))
    it.cancel("a", 1, 0.2)
    assert it.next_s() == 0.2
    assert it.events(0.2) == [Stopped("a", 1, 0)]
    assert it.next_s() == pytest.approx(0.3)


def test_a_cancelled_stream_says_how_far_it_came() -> None:
    it = StreamWorker(STREAMS)
    it.submit(Work("a", 2, 0.0, 100, 50, n_before=4))
    it.events(0.1)
    it.cancel("a", 2, 0.145)
    it.cancel("a", 1, 0.145)
    it.cancel("nobody", 1, 0.145)
    assert it.events(0.145) == [Delta("a", 2, 5, [0, 0], ""), Stopped("a", 2, 7)]
    assert it.next_s() == math.inf


# steps


def test_a_step_takes_longer_the_more_streams_it_has() -> None:
    alone = run(StepWorker(STEPS), Work("a", 1, 0.0, 100, 11))
    assert end(alone, "a")[0] == pytest.approx(0.010 + 0.1 + 10 * 0.012)
    both = run(StepWorker(STEPS), *(Work(job, 1, 0.0, 100, 11) for job in "ab"))
    between = [after - before for (before, *_), (after, *_) in pairwise(tokens(both, "b"))]
    assert between == pytest.approx([0.014] * 9 + [0.012])  # `a` came a step before


def test_a_long_prompt_is_computed_in_chunks_beside_the_streams() -> None:
    seen = run(StepWorker(STEPS), Work("a", 1, 0.0, 12, 100), Work("b", 1, 0.001, 1024, 1))
    gaps = {round(after - before, 6) for (before, *_), (after, *_) in pairwise(tokens(seen, "a"))}
    assert gaps == {0.524, 0.012}
    assert tokens(seen, "b")[0][0] == pytest.approx(0.022 + 2 * 0.524)


def test_who_comes_during_a_step_joins_the_next_one() -> None:
    seen = run(StepWorker(STEPS), Work("a", 1, 0.0, 1, 5), Work("b", 1, 0.0111, 1, 1))
    first_s, second_s = tokens(seen, "a")[1][0], tokens(seen, "a")[2][0]
    assert tokens(seen, "b")[0][0] == second_s > first_s


def test_a_cancel_is_heard_at_the_end_of_the_step() -> None:
    it = StepWorker(STEPS)
    it.submit(Work("a", 1, 0.0, 1, 5))
    it.cancel("a", 1, 0.005)
    it.cancel("a", 9, 0.005)
    assert it.events(0.006) == []
    assert it.events(it.next_s())[-1] == Stopped("a", 1, 1)
    assert it.next_s() == math.inf


def test_an_answer_that_is_done_is_not_stopped_any_more() -> None:
    it = StepWorker(STEPS)
    it.submit(Work("a", 1, 0.0, 1, 1))
    it.cancel("a", 1, 0.005)
    assert [type(event) for event in it.events(it.next_s())] == [Delta, Finished]


# both

works = st.lists(
    st.tuples(st.floats(0, 2), st.integers(1, 3000), st.integers(1, 60)).map(lambda t: (round(t[0], 3), *t[1:])),
    min_size=1,
    max_size=8,
)


@given(works, st.sampled_from([STREAMS, STEPS, Costs(), Costs(decode_tokens_per_s=7.0), Costs(row_s=0.001)]))
def test_every_request_gets_all_its_tokens_in_order(asked: list[tuple[float, int, int]], costs: Costs) -> None:
    jobs = [Work(str(i), 1, joined_s, n_in, n_out) for i, (joined_s, n_in, n_out) in enumerate(asked)]
    seen = run(worker(costs), *jobs)
    assert [at for at, _ in seen] == sorted(at for at, _ in seen)
    for i, (joined_s, n_in, n_out) in enumerate(asked):
        got = tokens(seen, str(i))
        assert sum(n for *_, n in got) == n_out
        assert [index for _, index, _ in got] == [sum(n for *_, n in got[:k]) for k in range(len(got))]
        at_s, ended = end(seen, str(i))
        assert at_s >= got[-1][0] >= joined_s + n_in * costs.prompt_token_s - 1e-9
        assert ended.completion_tokens == n_out
