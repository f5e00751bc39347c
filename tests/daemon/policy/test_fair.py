"""Virtual token counters, alone and against the bound of the paper."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from inferd.daemon.policy.fair import MAX_TENANTS, OUTPUT_WEIGHT, PROMPT_WEIGHT, Counters, service


def test_an_output_token_counts_twice_a_prompt_token() -> None:
    assert service(10, 5) == 10 * PROMPT_WEIGHT + 5 * OUTPUT_WEIGHT == 20


def test_who_comes_back_is_lifted_to_the_lowest_who_wait() -> None:
    counters = Counters()
    for tenant, tokens in (("a", 100.0), ("b", 300.0)):
        counters.join(tenant)
        counters.charge(tenant, tokens)
    counters.join("new")
    assert counters.served("new") == 100.0


def test_who_has_had_more_than_the_others_keeps_it() -> None:
    counters = Counters()
    counters.join("a")
    counters.charge("greedy", 500.0)
    counters.join("greedy")
    assert counters.served("greedy") == 500.0


def test_what_was_charged_and_not_taken_up_makes_later_charges_less() -> None:
    counters = Counters()
    assert counters.charge("a", 100.0) == 100.0
    counters.credit("a", 60.0)
    assert [counters.charge("a", 50.0), counters.charge("a", 50.0), counters.charge("a", 5.0)] == [0.0, 40.0, 5.0]
    assert counters.served("a") == 145.0


def test_who_was_away_has_no_credit() -> None:
    counters = Counters()
    counters.join("a")
    counters.charge("a", 100.0)
    counters.credit("b", 60.0)
    counters.join("b")
    assert counters.charge("b", 10.0) == 10.0


def test_with_nobody_waiting_the_last_one_who_left_sets_the_level() -> None:
    counters = Counters()
    counters.join("a")
    counters.charge("a", 70.0)
    counters.leave("a")
    counters.join("b")
    assert counters.served("b") == 70.0


def test_only_the_last_request_of_a_tenant_makes_it_leave() -> None:
    counters = Counters()
    counters.join("a")
    counters.join("a")
    counters.leave("a")
    counters.charge("a", 10.0)
    counters.join("b")
    assert counters.served("b") == 10.0


def test_counters_of_those_who_are_gone_do_not_add_up_for_ever() -> None:
    counters = Counters()
    for i in range(3 * MAX_TENANTS):
        counters.join(f"t{i}")
        counters.charge(f"t{i}", float(i % 7))
        counters.leave(f"t{i}")
    assert len(counters._served) <= 2 * MAX_TENANTS


@given(
    costs=st.lists(st.tuples(st.integers(1, 50), st.integers(1, 50)), min_size=2, max_size=6),
    n_turns=st.integers(10, 200),
)
def test_the_gap_between_two_backlogged_tenants_stays_within_the_bound(
    costs: list[tuple[int, int]], n_turns: int
) -> None:
    """Theorem 4.4 of the paper, one request at a time: 2 x max(w_p x longest prompt, w_q x most output tokens)."""
    counters = Counters()
    tenants = {f"t{i}": cost for i, cost in enumerate(costs)}
    for tenant in tenants:
        counters.join(tenant)
    served = dict.fromkeys(tenants, 0.0)
    for _ in range(n_turns):
        tenant = min(tenants, key=lambda t: (counters.served(t), t))
        amount = service(*tenants[tenant])
        counters.charge(tenant, amount)
        served[tenant] += amount
        largest = max(service(*cost) for cost in costs)
        assert max(served.values()) - min(served.values()) <= 2 * largest


def test_who_comes_and_goes_above_the_lowest_adds_up_to_nothing() -> None:
    counters = Counters()
    counters.join("low")
    counters.charge("high", 100.0)
    for _ in range(1000):
        counters.join("high")
        counters.leave("high")
    assert len(counters._lowest) <= 70
    counters.charge("low", 50.0)
    counters.join("new")
    assert counters.served("new") == 50.0
