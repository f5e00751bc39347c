"""Which tokens hold, whatever the clocks do."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.daemon.domain.access import Role, Token
from inferd.daemon.policy.tokens import SKEW_S, Now, Tokens

T0 = Now(1e9, 100.0)
YEAR_S = 365 * 86_400.0


def token(name: str = "ada", ttl_s: float | None = None, digest: str = "a") -> Token:
    expires = None if ttl_s is None else T0.unix_s + ttl_s
    sha256 = digest * 64
    return Token(
        id=digest * 8,
        name=name,
        role=Role.USER,
        tenant="t",
        sha256=sha256,
        created_unix_s=T0.unix_s,
        expires_unix_s=expires,
    )


def left_s(ttl_s: float | None, unix_s: float, steady_s: float) -> float:
    """How long a token that was made at T0 holds so much later."""
    it = Tokens()
    it.add(token(ttl_s=ttl_s), T0)
    held = it.find("a" * 64)
    assert held is not None
    return held.left_s(Now(T0.unix_s + unix_s, T0.steady_s + steady_s))


def test_it_is_found_by_its_hash_alone() -> None:
    it = Tokens()
    it.add(token(), T0)
    found = it.find("a" * 64)
    assert found is not None
    assert found.token.name == "ada"
    assert it.find("b" * 64) is None
    assert it.find("a" * 8) is None


def test_without_an_end_it_holds_for_good() -> None:
    assert left_s(None, 100 * YEAR_S, 100 * YEAR_S) == left_s(None, -YEAR_S, 1.0) == math.inf


@given(st.floats(-2 * YEAR_S, 2 * YEAR_S), st.floats(0, 1e6), st.floats(1.0, 1e6))
def test_a_clock_that_jumps_never_makes_it_hold_for_longer(jump_s: float, later_s: float, ttl_s: float) -> None:
    left = left_s(ttl_s, later_s + jump_s, later_s)
    if left > 0:
        assert left <= ttl_s - later_s + 1e-3
        assert later_s + jump_s >= -SKEW_S - 1e-3


def test_it_ends_on_time() -> None:
    assert left_s(60.0, 59.0, 59.0) == pytest.approx(1.0)
    assert left_s(60.0, 60.0, 60.0) <= 0


def test_a_clock_that_was_set_to_before_it_was_made_ends_it() -> None:
    assert left_s(60.0, -SKEW_S - 1.0, 1.0) <= 0
    assert left_s(60.0, -1.0, 1.0) > 0  # as clocks are corrected


def test_a_name_that_two_have_means_neither() -> None:
    it = Tokens()
    one, two = token("ada", digest="a"), token("ada", digest="b")
    it.add(one, T0)
    assert it.named("ada") == one
    it.add(two, T0)
    assert it.named("ada") is None
    assert it.named(two.id) == two
    it.remove(one)
    assert it.named("ada") == two
    assert len(it) == 1


def test_those_whose_time_is_over_are_dropped() -> None:
    it = Tokens()
    it.add(token("short", 60.0, "a"), T0)
    it.add(token("long", 600.0, "b"), T0)
    it.add(token("ever", None, "c"), T0)
    it.drop_expired(Now(T0.unix_s + 60.0, T0.steady_s + 60.0))
    assert [held.token.name for held in it] == ["long", "ever"]
