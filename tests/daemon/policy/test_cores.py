"""Who computes on how many threads."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from inferd.daemon.policy.cores import share

wants = st.dictionaries(st.text(min_size=1, max_size=3), st.integers(1, 64), max_size=6)


def test_who_is_alone_has_what_its_owner_set() -> None:
    assert share({}, 4) == {}
    assert share({"a": 2}, 4) == {"a": 2}
    assert share({"a": 8}, 4) == {"a": 8}


def test_two_divide_the_cores() -> None:
    assert share({"a": 2, "b": 2}, 2) == {"a": 1, "b": 1}
    assert share({"a": 16, "b": 16}, 16) == {"a": 8, "b": 8}


def test_who_wants_less_leaves_the_rest_to_the_others() -> None:
    assert share({"a": 2, "b": 16}, 16) == {"a": 2, "b": 14}
    assert share({"a": 2, "b": 3}, 16) == {"a": 2, "b": 3}


def test_threads_that_stay_are_no_longer_there_to_share() -> None:
    assert share({"a": 4}, 4, n_fixed=2) == {"a": 2}
    assert share({"a": 4}, 4, n_fixed=4) == {"a": 1}


@given(wants, st.integers(1, 64), st.integers(0, 64))
def test_everybody_computes_and_no_core_is_promised_twice(wanted: dict[str, int], n_cores: int, n_fixed: int) -> None:
    given = share(wanted, n_cores, n_fixed)
    assert all(1 <= given[name] <= wanted[name] for name in wanted)
    if len(wanted) > 1:
        assert sum(given.values()) <= max(n_cores - n_fixed, len(wanted))
