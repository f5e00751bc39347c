"""Service by tenant, and how far it is from fair."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.backends.messages import SamplingParams
from inferd.daemon.domain.request import Priority, Request
from inferd.daemon.replay.fairness import Book, jain, max_min, who

if TYPE_CHECKING:
    from inferd.daemon.replay.fairness import Who

A, B, C = ("batch", "a"), ("batch", "b"), ("batch", "c")
CHAT = ("interactive", "a")


def backlogged(*tenants: Who) -> Book:
    """Each has many requests waiting."""
    book = Book()
    for tenant in tenants:
        for _ in range(10):
            book.arrive(tenant, 100, 50)
    return book


def test_a_tenant_counts_by_class() -> None:
    assert who(Request("r", "m", SamplingParams(max_tokens=1), Priority.BATCH, "a")) == A


def test_a_prompt_is_served_at_its_start_and_an_output_token_counts_twice() -> None:
    book = backlogged(A)
    book.start(A, 100)
    book.grow(A, 30)
    assert (book.served[A], book.demand[A]) == (160.0, 2000.0)


def test_what_is_computed_again_is_nobodys_service() -> None:
    book = backlogged(A)
    book.start(A, 100)
    book.grow(A, 5)
    book.stop(A, 105, waits=True)
    book.start(A, 100, 5, again=True)
    assert book.served[A] == 110.0
    assert book.most_running == 105


def test_the_gap_is_the_largest_difference_while_both_wait() -> None:
    book = backlogged(A, B)
    for tenant, n_tokens, at_s in ((A, 10, 1.0), (B, 30, 2.0), (A, 5, 3.0)):
        book.grow(tenant, n_tokens)
        book.look(at_s)
    assert book.gap is not None  # from 20 for a to 40 for b
    assert (book.gap.weighted_tokens, book.gap.at_s, book.gap.ahead, book.gap.behind) == (60.0, 2.0, "b", "a")


def test_what_is_told_between_two_looks_happens_at_once() -> None:
    book = backlogged(A, B)
    book.grow(A, 1000)
    book.grow(B, 1000)
    book.look(1.0)
    assert book.gap is None


def test_service_before_both_waited_does_not_count() -> None:
    book = backlogged(A)
    book.grow(A, 1000)
    book.look(1.0)
    book.arrive(B, 100, 50)
    book.grow(A, 1)
    book.look(2.0)
    book.leave(B)
    book.grow(A, 1000)
    book.look(3.0)
    assert book.gap is not None
    assert book.gap.weighted_tokens == 2.0


def test_classes_are_not_compared() -> None:
    book = backlogged(A, CHAT)
    book.grow(CHAT, 1000)
    book.look(1.0)
    assert book.gap is None


def test_the_bound_is_that_of_the_theorem() -> None:
    book = backlogged(A)
    book.start(A, 100)
    book.grow(A, 20)
    assert book.bound() == 2 * 2.0 * 120
    book = Book()
    book.arrive(A, 900, 1)
    assert book.bound() == 2 * 900.0


@pytest.mark.parametrize(
    ("values", "index"), [([1, 1, 1], 1.0), ([1, 0, 0], 1 / 3), ([2, 1], 0.9), ([], 1.0), ([0, 0], 1.0)]
)
def test_jains_index(values: list[float], index: float) -> None:
    assert jain(values) == pytest.approx(index)


def test_a_tenant_that_asks_for_little_and_gets_it_is_served_fairly() -> None:
    book = backlogged(A, B)  # 2,000 weighted tokens each
    book.arrive(C, 10, 5)
    book.start(C, 10)
    book.grow(C, 5)
    for tenant in (A, B):
        book.grow(tenant, 400)
    book.end_of_arrivals()
    assert book.jain("batch") == pytest.approx(1.0)
    book.grow(A, 400)
    assert book.jain() == pytest.approx(1.0)  # what comes after the last arrival is not asked
    book.end_of_arrivals()
    assert book.jain() < 0.95


demands = st.dictionaries(st.sampled_from([A, B, C, CHAT]), st.floats(0, 1e6), min_size=1)


@given(demands, st.floats(0, 1e6))
def test_max_min_parts(demand: dict[Who, float], total: float) -> None:
    fair = max_min(demand, total)
    assert all(0 <= fair[one] <= demand[one] for one in demand)
    assert sum(fair.values()) == pytest.approx(min(total, sum(demand.values())), abs=1e-6)
    short = [fair[one] for one in demand if fair[one] < demand[one]]
    assert max(short, default=0.0) == pytest.approx(min(short, default=0.0))  # who gets less than asked gets the same
    assert max(fair.values()) <= max(short, default=1e6) * (1 + 1e-9)
