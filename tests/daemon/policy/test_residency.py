"""The cheapest sufficient set of victims, against trying every set."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.daemon.policy.residency import (
    EXACT_UP_TO,
    EvictQuestion,
    Holder,
    evict,
    reuse_probability,
    shortage,
)


def holder(model: str, n_bytes: int, cost: float = 1.0, stays: str = "") -> Holder:
    return Holder(model, {"host": n_bytes}, cost, stays)


def ask(need: int, free: int, *holders: Holder) -> tuple[str, ...] | None:
    return evict(EvictQuestion("new", {"host": need}, {"host": free}, holders))


def test_nobody_goes_when_it_fits() -> None:
    assert ask(10, 10, holder("a", 100)) == ()


def test_the_cheapest_one_that_is_large_enough_goes() -> None:
    assert ask(50, 0, holder("small", 10, 0.1), holder("dear", 60, 9.0), holder("cheap", 60, 2.0)) == ("cheap",)


def test_two_small_ones_go_when_that_is_cheaper() -> None:
    assert ask(50, 0, holder("a", 25, 1.0), holder("b", 25, 1.0), holder("big", 60, 3.0)) == ("a", "b")


def test_of_equal_cost_the_fewest_go() -> None:
    assert ask(50, 0, holder("a", 25, 1.0), holder("b", 25, 1.0), holder("big", 60, 2.0)) == ("big",)


@pytest.mark.parametrize("why", ["pinned", "leased", "busy", "young", "loading"])
def test_one_that_must_stay_never_goes(why: str) -> None:
    assert ask(50, 0, holder("a", 60, 0.0, why)) is None
    assert ask(50, 0, holder("a", 60, 0.0, why), holder("b", 60, 5.0)) == ("b",)


def test_every_pool_must_be_satisfied() -> None:
    on_gpu = Holder("gpu", {"gpu0": 50, "host": 5}, 1.0)
    on_host = Holder("cpu", {"host": 50}, 1.0)
    need, free = {"gpu0": 40, "host": 40}, {"gpu0": 0, "host": 0}
    assert evict(EvictQuestion("new", need, free, (on_gpu, on_host))) == ("cpu", "gpu")
    assert evict(EvictQuestion("new", need, free, (on_gpu,))) is None


def test_an_unknown_pool_has_nothing_free() -> None:
    assert shortage({"gpu9": 5}, {}) == {"gpu9": 5}
    assert shortage({"host": 5}, {"host": -3}) == {"host": 8}


def test_a_model_that_is_used_often_is_surely_used_again() -> None:
    assert reuse_probability(0.0) == 0.0
    assert reuse_probability(1.0) > 0.99
    assert reuse_probability(0.001) < reuse_probability(0.002)


def brute_force(question: EvictQuestion) -> tuple[str, ...] | None:
    """Every set of those that may go, as bits of a number: its cost and what it frees, all at once."""
    able = sorted((h for h in question.holders if not h.stays), key=lambda h: h.model)
    cost = np.zeros(1)
    freed = {pool: np.zeros(1) for pool in question.need}
    for holder in able:  # the sets without it, then those with it: costs are added in the order of the names
        cost = np.concatenate((cost, cost + holder.cost))
        for pool, n in freed.items():
            freed[pool] = np.concatenate((n, n + holder.bytes_on.get(pool, 0)))
    enough = np.all([question.free[p] + freed[p] >= n for p, n in question.need.items()] or [cost >= 0], axis=0)
    if not enough.any():
        return None
    least = cost[enough].min()
    sets = [bits for bits in np.flatnonzero(enough & (cost == least)).tolist()]
    names = [tuple(h.model for i, h in enumerate(able) if bits >> i & 1) for bits in sets]
    return min(names, key=lambda chosen: (len(chosen), chosen))


def random_question(draw: random.Random, most: int) -> EvictQuestion:
    pools = ["host", "gpu0"][: draw.choice((1, 1, 2))]
    holders = tuple(
        Holder(
            f"m{i}",
            {pool: draw.randrange(0, 40) for pool in pools if draw.random() < 0.9},
            draw.choice((0.0, 1.0, 2.0, draw.randrange(1, 50) / 8)),
            draw.choice(("", "", "", "pinned", "busy")),
        )
        for i in range(draw.randrange(0, most + 1))
    )
    need = {pool: draw.randrange(0, 120) for pool in pools}
    return EvictQuestion("new", need, {pool: draw.randrange(0, 60) for pool in pools}, holders)


def test_it_is_what_trying_every_set_finds() -> None:
    """2,000 instances of up to 8 models; the bench does 10,000 of up to 12."""
    draw = random.Random(1)
    for _ in range(2000):
        question = random_question(draw, most=8)
        assert evict(question) == brute_force(question), question


@given(st.integers(0, 2**32), st.integers(EXACT_UP_TO + 1, 60))
def test_with_many_models_a_sufficient_set_is_found_and_nobody_goes_in_vain(seed: int, n: int) -> None:
    draw = random.Random(seed)
    holders = [holder(f"m{i}", draw.randrange(1, 40), draw.random()) for i in range(n)]
    need = draw.randrange(1, sum(h.bytes_on["host"] for h in holders) + 1)
    victims = ask(need, 0, *holders)
    assert victims is not None
    sizes = {h.model: h.bytes_on["host"] for h in holders}
    freed = sum(sizes[name] for name in victims)
    assert freed >= need
    assert all(freed - sizes[name] < need for name in victims)
