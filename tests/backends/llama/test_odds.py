"""What is worth guessing, from how often guesses come true and what calls take."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.backends.llama.odds import GUESSES, Chance, Odds, gained, how_many

CHANCES = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 20)), max_size=5).map(
    lambda found: sorted((Chance(*it) for it in found), key=lambda it: -it.comes_true)
)


def flat(n_rows: int) -> float:
    return 10.0


def by_row(n_rows: int) -> float:
    return float(n_rows)


@pytest.mark.parametrize("comes_true", [0.0, 0.3, 0.9, 1.0])
@pytest.mark.parametrize("n", [1, 3, 15])
def test_what_is_gained_is_what_a_simulation_says(comes_true: float, n: int) -> None:
    draw, total = random.Random(1), 0
    for _ in range(5000):
        total += next((i for i in range(n) if draw.random() >= comes_true), n)
    assert gained(comes_true, n) == pytest.approx(total / 5000, abs=0.15)


def after(odds: Odds, guess: list[int], came: list[int]) -> float:
    odds.learn(guess, came)
    return odds.comes_true


def test_only_the_first_wrong_token_says_something() -> None:
    assert after(Odds(0.5), [1, 2, 3], [9, 2, 3]) == pytest.approx(0.45)
    assert after(Odds(0.5), [1, 2, 3], [1, 9]) == pytest.approx(0.495)
    assert after(Odds(0.5), [], [1]) == after(Odds(0.5), [1], []) == 0.5


def test_what_is_only_hoped_gives_way_sooner() -> None:
    assert after(Odds.hoped(0.8), [1], [9]) == pytest.approx(0.6)
    assert after(Odds.hoped(0.8), [1], [1]) == pytest.approx(0.85)
    assert Odds.hoped(1.3).comes_true == 1.0
    known = Odds(0.8)
    known.hope(200)
    assert after(known, [1], [9]) < 0.7


@given(st.floats(0, 1), st.integers(0, 10**6), st.integers(0, 10**6))
def test_hope_rises_with_the_tokens_however_they_are_counted(comes_true: float, one: int, two: int) -> None:
    slowly, at_once = Odds(comes_true), Odds(comes_true)
    slowly.hope(one)
    slowly.hope(two)
    at_once.hope(one + two)
    assert comes_true <= slowly.comes_true <= 1.0
    assert slowly.comes_true == pytest.approx(at_once.comes_true)


def test_where_rows_cost_nothing_all_are_guessed_and_where_each_has_its_price_none() -> None:
    chances = [Chance(1.0, 15)] * 3
    assert how_many(chances, 3, 45, flat)[:2] == (3, 15)
    assert how_many(chances, 3, 45, by_row)[:2] == (0, 0)
    assert how_many([], 3, 45, flat)[:2] == (0, 0)


def test_what_one_alone_cannot_pay_several_can_together() -> None:
    def a_call_for_one_or_for_many(n_answers: int) -> float:
        return 4.0

    alone = how_many([Chance(0.8, 15)], 8, 15, flat, a_call_for_one_or_for_many)
    together = how_many([Chance(0.8, 15)] * 8, 8, 15, flat, a_call_for_one_or_for_many)
    assert alone.n_guesses == 0
    assert together[:2] == (8, 1)


def test_those_whose_guesses_never_come_true_have_none_beside_others() -> None:
    def a_tenth_more(n_rows: int) -> float:
        return 10.0 + n_rows

    assert how_many([Chance(0.9, 15), Chance(0.01, 15)], 2, 30, a_tenth_more).n_answers == 1


def test_a_long_prompt_that_has_to_be_computed_first_may_cost_more_than_it_brings() -> None:
    assert how_many([Chance(0.9, 15, late_ms=5.0)], 1, 15, flat).n_guesses > 0
    assert how_many([Chance(0.9, 15, late_ms=100.0)], 1, 15, flat).n_guesses == 0


@given(CHANCES, st.integers(1, 8), st.integers(0, 40), st.floats(0, 3), st.floats(0, 10))
def test_it_is_within_the_limits_and_never_slower(
    chances: list[Chance], n_rows: int, n_left: int, row_ms: float, guess_ms: float
) -> None:
    def call_ms(n_rows: int) -> float:
        return 5.0 + row_ms * n_rows

    choice = how_many(chances, n_rows, n_left, call_ms, lambda _: guess_ms)
    plain = n_rows / call_ms(n_rows)
    assert choice.rate >= plain
    assert choice.n_answers <= len(chances)
    assert (choice.n_guesses == 0) == (choice.n_answers == 0)
    if choice.n_guesses:
        chosen = [min(choice.n_guesses, chance.n_most) for chance in chances[: choice.n_answers]]
        assert choice.n_guesses in GUESSES
        assert sum(chosen) <= n_left
        tokens = n_rows + sum(gained(c.comes_true, n) for c, n in zip(chances, chosen, strict=False))
        took_ms = call_ms(n_rows + sum(chosen)) + choice.n_guesses * guess_ms
        assert choice.rate == pytest.approx(tokens / took_ms)
