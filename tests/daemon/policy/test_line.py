"""Who waits, in which order, and what that adds up to."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from inferd.daemon.domain.request import Job, Priority
from inferd.daemon.policy.fair import Counters
from inferd.daemon.policy.line import Line, Ticket
from inferd.tests.daemon.policy.tools import BATCH, CHAT, NORMAL, job

if TYPE_CHECKING:
    from collections.abc import Iterable


def line(*, fifo: bool = False) -> Line:
    return Line({priority: Counters() for priority in Priority}, fifo=fifo)


def enter(it: Line, *jobs: Job, deadline_s: float = math.inf, pickable: bool = True) -> None:
    for one in jobs:
        it.add(one, Ticket(10, 10, deadline_s, pickable=pickable))


def first(it: Line, priority: Priority) -> Job:
    return it.heads(priority, 1)[0][1][2]


def test_heads_are_the_first_of_each_tenant() -> None:
    it, a1, a2, b = line(), job(tenant="a"), job(tenant="a"), job(tenant="b")
    enter(it, a2, a1, b)
    assert {entry[2] for _, entry in it.heads(NORMAL)} == {a1, b}
    assert it.heads(CHAT) == []


def test_one_whose_prompt_is_not_read_cannot_be_picked_but_has_a_place() -> None:
    it, unread, read = line(), job(), job()
    enter(it, unread, pickable=False)
    enter(it, read)
    assert first(it, NORMAL) is read
    assert it.order() == [unread, read]
    it.make_pickable(unread)
    assert first(it, NORMAL) is unread


def test_inside_a_tenant_the_earliest_deadline_goes_first() -> None:
    it, none, late, early = line(), job(), job(), job()
    enter(it, none)
    enter(it, late, deadline_s=9.0)
    enter(it, early, deadline_s=5.0)
    assert it.order() == [early, late, none]


def test_fifo_knows_neither_class_nor_tenant_nor_deadline() -> None:
    it, batch, chat = line(fifo=True), job(BATCH, tenant="a"), job(CHAT, tenant="b")
    enter(it, batch)
    enter(it, chat, deadline_s=1.0)
    assert first(it, CHAT) is batch


def test_tenants_take_turns_in_the_order_they_will_be_served() -> None:
    it, many, one = line(), [job(tenant="a") for _ in range(4)], job(tenant="b")
    enter(it, *many, one)
    assert it.order().index(one) == 1


def test_what_a_tenant_has_had_is_told_by_class() -> None:
    it = line()
    it._counters[NORMAL].charge("a", 7.0)
    assert (it.served(NORMAL, "a"), it.served(CHAT, "a"), it.served(NORMAL, "b")) == (7.0, 0.0, 0.0)


def test_one_that_comes_back_is_found_again() -> None:
    it, a, b = line(), job(), job()
    enter(it, a, b)
    ticket = it.remove(a)
    assert first(it, NORMAL) is b
    it.add(a, ticket)
    assert first(it, NORMAL) is a
    assert it.pickable[NORMAL] == 2


def test_the_oldest_is_known_whatever_its_class() -> None:
    it, old, new = line(), job(BATCH, arrived_s=1.0), job(CHAT, arrived_s=2.0)
    enter(it, new, old)
    assert it.oldest_s() == 1.0
    it.remove(old)
    assert it.oldest_s() == 2.0
    it.remove(new)
    assert it.oldest_s() is None


def test_a_corrected_ticket_changes_the_sums() -> None:
    it, one = line(), job()
    enter(it, one)
    it.correct(one, 500, 7)
    load = it.loads[NORMAL]["t"]
    assert (load.prompt_tokens, load.output_tokens, load.tokens) == (500, 7, 507)


@given(st.integers(0, 2**32), st.booleans())
def test_after_any_history_the_books_are_those_of_who_waits(seed: int, fifo: bool) -> None:
    draw, it = random.Random(seed), line(fifo=fifo)
    gone: list[tuple[Job, Ticket]] = []
    for _ in range(60):
        match draw.randrange(4):
            case 0:
                enter(it, job(draw.choice(list(Priority)), tenant=draw.choice("abc")), pickable=draw.random() < 0.5)
            case 1 if it.tickets:
                one = draw.choice(list(it))
                gone.append((one, it.remove(one)))
            case 2 if it.tickets:
                it.make_pickable(draw.choice(list(it)))
            case 3 if gone:
                it.add(*gone.pop())
                it._counters[draw.choice(list(Priority))].charge(draw.choice("abc"), draw.randrange(50))
        check(it)


def check(it: Line) -> None:
    assert sorted(map(id, it.order())) == sorted(map(id, it))
    for priority in Priority:
        mine = [one for one in it if it.where(one)[0] is priority]
        assert it.totals[priority].n == len(mine) == sum(load.n for load in it.loads[priority].values())
        pickable = [one for one in mine if it.tickets[one].pickable]
        assert it.pickable[priority] == len(pickable)
        assert [head for head in it.heads(priority, 2)] == sorted(it.heads(priority))[:2]
        assert heads_of(it, pickable) == {entry[2] for _, entry in it.heads(priority)}
    if not it.fifo:
        ranks = [list(Priority).index(one.request.priority) for one in it.order()]
        assert ranks == sorted(ranks)


def heads_of(it: Line, jobs: Iterable[Job]) -> set[Job]:
    """The slow way: the first by deadline and arrival of each tenant."""
    first: dict[str, Job] = {}
    for one in sorted(jobs, key=lambda j: (math.inf if it.fifo else it.tickets[j].deadline_s, j.arrival)):
        first.setdefault(it.where(one)[1], one)
    return set(first.values())


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from(Priority)), max_size=60), st.integers(1, 40))
def test_who_goes_from_class_to_class_for_ever_fills_no_heap_and_keeps_the_order(
    moves: list[tuple[int, Priority]], n_rounds: int
) -> None:
    it = line()
    jobs = [job(tenant="ab"[i % 2]) for i in range(6)]
    enter(it, *jobs)
    for i, priority in moves * n_rounds:
        ticket = it.remove(jobs[i])
        jobs[i].request = replace(jobs[i].request, priority=priority)
        it.add(jobs[i], ticket)
    for priority in Priority:
        of = [one for one in jobs if one.request.priority is priority]
        tenants = {one.request.tenant: one for one in reversed(of)}
        assert {entry[2] for _, entry in it.heads(priority)} == set(tenants.values())
        assert all(len(heap) <= 2 * len(jobs) + 64 for heap in it._heaps[priority].values())
        assert len(it._turns[priority]) <= 2 * len(jobs) + 64
        assert len(it._counters[priority]._lowest) <= 2 * len(jobs) + 64


def test_tenants_that_leave_a_class_leave_nothing_behind_in_it() -> None:
    it = line()
    for i in range(1000):
        one = job(BATCH, tenant=f"t{i}")
        enter(it, one)
        it.remove(one)
    assert len(it._heaps[BATCH]) <= 100
    assert len(it._turns[BATCH]) <= 100
