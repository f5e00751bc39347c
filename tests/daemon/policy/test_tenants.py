"""Accounts of tenants: nothing is lost of those who are here, and no more are kept than may be."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from inferd.daemon.policy import tenants as module
from inferd.daemon.policy.meter import WINDOW_S
from inferd.daemon.policy.tenants import MAX_TENANTS, Tenants


def names(it: Tenants) -> list[str]:
    return [name for name, _ in it]


def test_what_ended_is_kept_and_rows_go_by_name() -> None:
    it = Tenants()
    it.on_request("web", 1.0)
    it.on_request("ada", 2.0)
    it.of("web").prompt_tokens += 7
    it.on_over("web", 30)
    it.on_request("web", 3.0)
    it.on_over("web", 12)
    assert names(it) == ["ada", "web"]
    web = it.of("web")
    assert (web.prompt_tokens, web.generation_tokens, web.live, web.seen_s) == (7, 42, 0, 3.0)


def test_who_is_turned_away_is_seen_too() -> None:
    it = Tenants()
    it.on_refused("web", 5.0)
    it.on_request("web", 6.0)
    it.on_refused("web", 7.0)
    account = it.of("web")
    assert (account.refused, account.live, account.seen_s) == (2, 1, 7.0)
    assert len(it) == 1


def test_nobody_is_kept_for_being_asked_for() -> None:
    it = Tenants()
    it.of("web").stalls += 1
    assert len(it) == 0


def test_of_too_many_those_that_had_something_last_are_kept() -> None:
    it = Tenants()
    for i in range(MAX_TENANTS + 10):
        it.on_refused(f"t{i:04}", float(i))
    assert names(it) == [f"t{i:04}" for i in range(10, MAX_TENANTS + 10)]
    it.on_refused("t0010", 1e6)  # it comes again, so another one is the oldest
    it.on_refused("new", 1e6)
    assert "t0010" in names(it)
    assert "t0011" not in names(it)


def test_those_with_live_requests_stay_however_many_they_are() -> None:
    it = Tenants()
    for i in range(MAX_TENANTS + 10):
        it.on_request(f"t{i}", 0.0)
    it.on_refused("stranger", 1.0)
    assert len(it) == MAX_TENANTS + 10
    it.on_over("t0", 5)  # there are too many without it
    assert len(it) == MAX_TENANTS + 9


def test_rates_are_means_over_the_window_and_count_what_is_not_over() -> None:
    it = Tenants()
    it.on_request("web", 0.0)
    assert it.rates_per_s("web") == (0.0, 0.0)
    it.on_tick(0.0, {})
    assert it.rates_per_s("web") == (0.0, 0.0)
    it.of("web").prompt_tokens += 100
    it.on_tick(2.0, {"web": 30})
    assert it.rates_per_s("web") == (50.0, 15.0)
    it.on_over("web", 40)
    it.on_tick(4.0, {})
    assert it.rates_per_s("web") == (25.0, 10.0)
    assert it.rates_per_s("nobody") == (0.0, 0.0)


def test_silence_brings_a_rate_to_zero_and_the_window_forgets() -> None:
    it = Tenants()
    it.on_request("web", 0.0)
    it.on_over("web", 50)
    it.on_tick(0.0, {})
    for second in range(1, 100):
        it.on_tick(float(second), {})
    assert it.rates_per_s("web") == (0.0, 0.0)
    assert len(it._marks) <= WINDOW_S + 2


def test_one_that_was_forgotten_in_between_has_no_negative_rate() -> None:
    it = Tenants()
    it.on_request("web", 0.0)
    it.on_over("web", 1000)
    it.on_tick(0.0, {})
    for i in range(MAX_TENANTS):
        it.on_refused(f"t{i}", 1.0)
    it.on_request("web", 2.0)
    it.on_tick(2.0, {"web": 3})
    assert it.rates_per_s("web") == (0.0, 0.0)


@given(st.lists(st.tuples(st.sampled_from("abcde"), st.sampled_from(["comes", "ends", "refused"]), st.integers(0, 9))))
def test_sums_are_right_while_there_is_room(steps: list[tuple[str, str, int]]) -> None:
    it, live, tokens, refused = Tenants(), Counter[str](), Counter[str](), Counter[str]()
    for at_s, (tenant, what, n) in enumerate(steps):
        if what == "comes":
            it.on_request(tenant, float(at_s))
            live[tenant] += 1
        elif what == "refused":
            it.on_refused(tenant, float(at_s))
            refused[tenant] += 1
        elif live[tenant]:
            it.on_over(tenant, n)
            live[tenant] -= 1
            tokens[tenant] += n
    for tenant, account in it:
        assert (account.live, account.generation_tokens) == (live[tenant], tokens[tenant])
        assert account.refused == refused[tenant]
    assert {tenant for tenant, n in live.items() if n} <= set(names(it))


@given(st.lists(st.tuples(st.integers(0, 30), st.booleans()), max_size=60))
def test_there_are_never_too_many(steps: list[tuple[int, bool]]) -> None:
    most, module.MAX_TENANTS = module.MAX_TENANTS, 4
    try:
        it, live = Tenants(), Counter[str]()
        for number, comes in steps:
            tenant = str(number)
            if comes:
                it.on_request(tenant, 0.0)
                live[tenant] += 1
            elif live[tenant]:
                it.on_over(tenant, 1)
                live[tenant] -= 1
            else:
                it.on_refused(tenant, 0.0)
            n_live = sum(n > 0 for n in live.values())
            assert len(it) <= max(4, n_live)
    finally:
        module.MAX_TENANTS = most
