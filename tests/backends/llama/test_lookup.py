"""Guesses from what was said before: what they are, when they are worth computing, and what is learnt from them."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from inferd.backends.llama.lookup import N_GRAM, Lookup
from inferd.backends.llama.odds import GUESSES


def free(n_rows: int) -> float:
    """Rows cost nothing."""
    return 1.0


def by_row(n_rows: int) -> float:
    return float(n_rows)


def test_what_followed_before_is_guessed_to_follow_again() -> None:
    said = [1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3]
    assert Lookup().draft(said, 1, 3, free) == [4, 5, 6]


def test_the_last_time_counts() -> None:
    assert Lookup().draft([1, 2, 3, 9, 1, 2, 3, 4, 1, 2, 3], 1, 1, free) == [4]


def test_nothing_is_guessed_from_what_is_new_or_short() -> None:
    for tokens in ([], [1], [1, 1], [1, 1, 1], [1, 2, 3, 4, 5]):
        assert Lookup().draft(tokens, 1, 15, free) == []


def test_a_repetition_reaches_into_the_guess_itself() -> None:
    assert Lookup().draft([7, 8, 7, 8, 7, 8], 1, 7, free) == [7, 8, 7, 8, 7, 8, 7]


def test_where_every_row_has_its_price_nothing_is_worth_it() -> None:
    assert Lookup().draft([1, 2, 3, 4, 1, 2, 3], 1, 15, by_row) == []


def test_guesses_that_never_come_true_stop_and_begin_again_when_they_would() -> None:
    def a_row_more_costs_a_tenth(n_rows: int) -> float:
        return 1.0 + 0.1 * n_rows

    lookup, draw = Lookup(), random.Random(1)
    tokens = [1, 2, 3, 4] * 3
    for _ in range(200):  # the same three tokens, and each time another one after them
        draft = lookup.draft(tokens, 1, 15, a_row_more_costs_a_tenth)
        drawn = [1, 2, 3, draw.randrange(1000, 9000)]
        lookup.drawn(drawn[:1])
        tokens = [*tokens, *drawn]
        lookup.draft(tokens[:-1], 1, 15, a_row_more_costs_a_tenth)
        lookup.drawn(tokens[-1:])
    tokens += [1, 2, 3]
    assert lookup.draft(tokens, 1, 15, a_row_more_costs_a_tenth) == []
    for _ in range(60):
        for token in (1, 2, 3, 4):
            tokens.append(token)
            draft = lookup.draft(tokens, 1, 15, a_row_more_costs_a_tenth)
            lookup.drawn([{1: 2, 2: 3, 3: 4, 4: 1}[token]])
    assert len(draft) > 3


@given(st.lists(st.integers(0, 3), max_size=40), st.integers(0, 15))
def test_a_guess_is_what_followed_the_same_three_tokens(tokens: list[int], n_most: int) -> None:
    draft = Lookup().draft(tokens, 1, n_most, free)
    assert len(draft) == 0 or len(draft) in GUESSES
    assert len(draft) <= n_most
    gram = tokens[-N_GRAM:]
    places = [i for i in range(len(tokens) - N_GRAM) if tokens[i : i + N_GRAM] == gram]
    if len(tokens) < N_GRAM or not places:
        assert draft == []
    elif draft:
        endless = tokens[places[-1] + N_GRAM :]
        while len(endless) < len(draft):
            endless = endless + endless
        assert draft == endless[: len(draft)]


@given(st.lists(st.integers(0, 3), min_size=20, max_size=40))
def test_told_token_by_token_or_all_at_once_the_guess_is_the_same(tokens: list[int]) -> None:
    slowly = Lookup()
    for n in range(1, len(tokens)):
        slowly.draft(tokens[:n], 1, 7, by_row)
    assert slowly._find(tokens) == Lookup()._find(tokens)
