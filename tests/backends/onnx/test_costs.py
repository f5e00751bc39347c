from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from inferd.backends.onnx.costs import AGAIN_EVERY, Costs, bucket_of

if TYPE_CHECKING:
    from collections.abc import Callable


def learn(costs: Costs, ms_of: Callable[[int], float], n_waiting: int = 32, n_calls: int = 60, bucket: int = 16) -> int:
    """What is chosen in the end, when calls of n rows take `ms_of(n)`."""
    n = 0
    for _ in range(n_calls):
        n = costs.best_rows(bucket, n_waiting)
        costs.note(bucket, n, ms_of(n))
    return costs.best_rows(bucket, n_waiting)


def test_where_rows_are_free_all_share_a_call() -> None:
    assert learn(Costs(32), lambda n: 10.0) == 32


def test_where_they_gain_nothing_each_has_its_own() -> None:
    assert learn(Costs(32), lambda n: 3.0 * n) == 1


def test_where_they_cost_more_each_has_its_own() -> None:
    assert learn(Costs(32), lambda n: 3.0 * n**1.2) == 1


def test_the_smallest_call_with_the_gain_is_taken() -> None:
    assert learn(Costs(32), lambda n: 4.0 + 1.0 * max(n, 4)) in (16, 32)
    assert learn(Costs(32), lambda n: 2.0 * max(n, 8)) == 8


def test_no_more_than_wait_are_chosen() -> None:
    costs = Costs(32)
    learn(costs, lambda n: 10.0)
    assert [costs.best_rows(16, n) for n in (1, 2, 3, 5, 31)] == [1, 2, 2, 4, 16]


def test_lengths_are_learnt_apart() -> None:
    costs = Costs(8)
    assert learn(costs, lambda n: 10.0, bucket=16) == 8
    assert learn(costs, lambda n: 10.0 * n, bucket=128) == 1


def test_one_slow_first_call_does_not_decide() -> None:
    costs, seen = Costs(8), set[int]()

    def ms(n: int) -> float:
        first = n not in seen
        seen.add(n)
        return 100.0 if first else 10.0

    assert learn(costs, ms) == 8


def test_what_was_best_is_measured_against_its_neighbours_now_and_then() -> None:
    costs = Costs(8)
    learn(costs, lambda n: 10.0 * n, n_calls=20)
    chosen = set()
    for _ in range(4 * AGAIN_EVERY):  # others left the cores meanwhile
        n = costs.best_rows(16, 8)
        chosen.add(n)
        costs.note(16, n, 10.0)
    assert costs.best_rows(16, 8) > 1
    assert chosen > {1}


def test_expectations_come_from_the_nearest_size() -> None:
    costs = Costs(32)
    assert costs.expected_ms(16, 4) is None
    costs.note(16, 4, 8.0)
    assert costs.expected_ms(16, 8) == 16.0
    assert costs.expected_ms(32, 8) is None


@given(st.integers(1, 5000))
def test_buckets_pad_little(length: int) -> None:
    bucket = bucket_of(length)
    assert length <= bucket < length + max(16, length / 4 + 1)
    assert bucket_of(bucket) == bucket


def test_no_length_has_no_bucket() -> None:
    assert bucket_of(0) == 0
