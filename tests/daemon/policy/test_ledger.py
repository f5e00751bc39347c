"""Who holds which bytes: nothing is lost, nothing is counted twice, and no pool is given away twice."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from inferd.daemon.policy.ledger import Ledger, Reservation, Shortfall

OWNERS = ("a", "b", "c")
POOLS = {"host": (1000, 100), "gpu0": (500, 0)}  # capacity, margin
FIGURE = st.integers(0, 1200)
AMOUNTS = st.dictionaries(st.sampled_from(sorted(POOLS)), st.integers(0, 600))


def ledger() -> Ledger:
    made = Ledger()
    for name, (capacity, margin) in POOLS.items():
        made.add_pool(name, capacity, margin)
    return made


def test_headroom_is_what_neither_margin_nor_others_nor_models_take() -> None:
    it = ledger()
    assert it.headroom_bytes("host") == 900
    it.reserve("a", {"host": 300})
    assert it.headroom_bytes("host") == 600
    it.observe("host", 50)
    assert it.headroom_bytes("host") == 550  # the model is not visible yet, and somebody else takes 50


def test_a_budget_bounds_what_models_take_of_a_larger_pool() -> None:
    it = Ledger()
    it.add_pool("host", 1000, 100, 300)
    assert it.headroom_bytes("host") == 300
    it.reserve("a", {"host": 200})
    it.observe("host", 700, {"a": 150})
    assert it.headroom_bytes("host") == 100
    it.observe("host", 800, {"a": 150})
    assert it.headroom_bytes("host") == 50  # others have taken the rest


def test_a_model_that_took_more_than_booked_counts_with_what_it_took() -> None:
    it = ledger()
    it.reserve("a", {"host": 300})
    it.observe("host", 450, {"a": 400})
    assert it.headroom_bytes("host") == 900 - 50 - 400


def test_a_model_that_is_still_growing_counts_with_what_it_booked() -> None:
    it = ledger()
    it.reserve("a", {"host": 300})
    it.observe("host", 150, {"a": 100})
    assert it.headroom_bytes("host") == 900 - 50 - 300


def test_bytes_of_a_process_that_holds_nothing_are_somebody_elses() -> None:
    it = ledger()
    it.observe("host", 200, {"a": 200})
    assert it.pools["host"].foreign == 200


def test_what_a_model_held_is_free_at_once_when_it_is_released() -> None:
    it = ledger()
    held = it.reserve("a", {"host": 300})
    it.observe("host", 450, {"a": 400})
    it.release(held)
    assert it.headroom_bytes("host") == 850


def test_a_reservation_is_all_or_nothing() -> None:
    it = ledger()
    with pytest.raises(Shortfall) as caught:
        it.reserve("a", {"host": 800, "gpu0": 501})
    assert (caught.value.pool, caught.value.needed_bytes, caught.value.free_bytes) == ("gpu0", 501, 500)
    assert (it.headroom_bytes("host"), it.reservations) == (900, {})


def test_the_last_byte_can_be_taken_and_none_beyond() -> None:
    it = ledger()
    it.reserve("a", {"host": 900})
    assert it.shortfall({"host": 0}) is None
    short = it.shortfall({"host": 1})
    assert short is not None
    assert short.free_bytes == 0


def test_an_overdrawn_pool_offers_nothing_rather_than_less() -> None:
    it = ledger()
    it.observe("host", 1200)
    assert it.headroom_bytes("host") == -300
    short = it.shortfall({"host": 1})
    assert short is not None
    assert short.free_bytes == 0


def test_a_pool_that_does_not_exist_has_no_room() -> None:
    short = ledger().shortfall({"gpu9": 1})
    assert short is not None
    assert (short.pool, short.free_bytes) == ("gpu9", 0)


def test_nobody_reserves_twice_and_nothing_is_released_twice() -> None:
    it = ledger()
    held = it.reserve("a", {"host": 1})
    with pytest.raises(AssertionError, match="a holds a reservation already"):
        it.reserve("a", {"host": 1})
    it.release(held)
    with pytest.raises(AssertionError, match="a does not hold this reservation"):
        it.release(held)


def test_only_the_holder_of_the_reservation_releases_it() -> None:
    it = ledger()
    held = it.reserve("a", {"host": 1, "gpu0": 2})
    assert held.total_bytes == 3
    with pytest.raises(AssertionError, match="does not hold this reservation"):
        it.release(Reservation("a", {"host": 1, "gpu0": 2}))
    assert it.booked_bytes("gpu0") == 2, "a wrong release took the right one's bytes"


class LedgerMachine(RuleBasedStateMachine):
    """Any history of reserving, releasing and reading, beside a book kept by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = ledger()
        self.held: dict[str, Reservation] = {}
        self.used = dict.fromkeys(POOLS, 0)
        self.seen: dict[str, dict[str, int]] = {name: {} for name in POOLS}

    @rule(owner=st.sampled_from(OWNERS), bytes_on=AMOUNTS)
    def reserve(self, owner: str, bytes_on: dict[str, int]) -> None:
        if owner in self.held:
            return
        before = {name: self.ledger.headroom_bytes(name) for name in POOLS}
        fits = all(n <= max(0, before[name]) for name, n in bytes_on.items())
        try:
            self.held[owner] = self.ledger.reserve(owner, bytes_on)
        except Shortfall as error:
            short: Shortfall | None = error
        else:
            short = None
            assert all(self.ledger.headroom_bytes(name) >= 0 for name, n in bytes_on.items() if n)
        assert (short is None) == fits
        if short is not None:
            assert short.needed_bytes > short.free_bytes == max(0, before[short.pool])

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        owner = data.draw(st.sampled_from(sorted(self.held)))
        foreign = {name: pool.foreign for name, pool in self.ledger.pools.items()}
        self.ledger.release(self.held.pop(owner))
        for name, seen in self.seen.items():
            self.used[name] = max(0, self.used[name] - seen.pop(owner, 0))
            if sum(seen.values()) <= self.used[name]:
                assert self.ledger.pools[name].foreign == foreign[name], "others changed by our release"

    @rule(name=st.sampled_from(sorted(POOLS)), used=FIGURE, by=st.dictionaries(st.sampled_from(OWNERS), FIGURE))
    def observe(self, name: str, used: int, by: dict[str, int]) -> None:
        self.ledger.observe(name, used, by)
        self.used[name] = used
        self.seen[name] = {owner: n for owner, n in by.items() if owner in self.held}

    @invariant()
    def booked_is_what_is_held(self) -> None:
        assert set(self.ledger.reservations) == set(self.held)
        for name in POOLS:
            assert self.ledger.booked_bytes(name) == sum(r.bytes_on.get(name, 0) for r in self.held.values())

    @invariant()
    def headroom_obeys_its_formula(self) -> None:
        for name, (capacity, margin) in POOLS.items():
            seen = self.seen[name]
            foreign = max(0, self.used[name] - sum(seen.values()))
            ours = sum(max(r.bytes_on.get(name, 0), seen.get(owner, 0)) for owner, r in self.held.items())
            assert self.ledger.headroom_bytes(name) == capacity - margin - foreign - ours


TestLedgerMachine = LedgerMachine.TestCase
TestLedgerMachine.settings = settings(max_examples=50, stateful_step_count=25, deadline=None)


def test_what_the_kernel_holds_is_nobodys_and_not_free() -> None:
    ledger = Ledger()
    ledger.add_pool("host", 100, 0)
    first = ledger.reserve("m", {"host": 60})
    ledger.observe("host", 55, {"m": 50})
    held = ledger.hold(first, 123)
    assert ledger.held == {"!held-1": 123}
    assert ledger.headroom_bytes("host") == 35
    ledger.observe("host", 55, {})  # it is dead but for a thread
    assert ledger.headroom_bytes("host") == 35
    assert ledger.bytes_of("m") == {}
    ledger.release(ledger.reserve("m", {"host": 35}))
    ledger.release(held)
    ledger.observe("host", 5, {})
    assert (ledger.held, ledger.headroom_bytes("host")) == ({}, 95)
