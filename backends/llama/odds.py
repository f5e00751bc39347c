"""How often guesses come true, and how many of them are worth computing for that. Arithmetic alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

GUESSES = (1, 3, 7, 15)  # tokens; rows come in fours
WORTH = 1.05  # how much faster it must be: what was measured is noisy
PRIOR = 0.5  # of a guess that nobody has tried
_LEARN = 0.1  # the weight of the last token


class Chance(NamedTuple):
    """Of one answer."""

    comes_true: float  # of each guess, after those before it did
    n_most: int  # guesses
    late_ms: float = 0.0  # what has to be done first, for each token that will come of it


class Choice(NamedTuple):
    """`n_guesses` for each of the first `n_answers`; `rate` is what is expected of it in tokens/ms."""

    n_answers: int
    n_guesses: int
    rate: float


def learnt(comes_true: float, guess: Sequence[int], came: Sequence[int]) -> float:
    """The chance after a guess, of which only the first wrong token says something."""
    for guessed, token in zip(guess, came, strict=False):
        comes_true += _LEARN * ((guessed == token) - comes_true)
        if guessed != token:
            break
    return comes_true


def gained(comes_true: float, n: int) -> float:
    """Tokens that come of so many guesses in a row."""
    return comes_true * (1 - comes_true**n) / (1 - comes_true) if comes_true < 1 else n


def how_many(
    chances: Sequence[Chance],
    n_rows: int,
    n_left: int,
    call_ms: Callable[[int], float],
    guess_ms: Callable[[int], float] | None = None,
) -> Choice:
    """What is fastest; no guesses where none are worth it. `chances`: the best ones first.

    `n_rows`: of the call without them; `n_left`: guesses it may have; `call_ms`: of a call by its rows; `guess_ms`: to
    guess one token for so many answers.
    """
    best = Choice(0, 0, n_rows / call_ms(n_rows))
    for n in GUESSES:
        n_more, tokens, late_ms, fastest = 0, float(n_rows), 0.0, best
        for i, chance in enumerate(chances, 1):
            its_n = min(n, chance.n_most)
            n_more += its_n
            if n_more > n_left:
                break
            tokens += gained(chance.comes_true, its_n)
            late_ms += chance.late_ms
            took_ms = call_ms(n_rows + n_more) + late_ms + (n * guess_ms(i) if guess_ms else 0.0)
            if (rate := tokens / took_ms) > fastest.rate * (WORTH if fastest is best else 1.0):
                fastest = Choice(i, n, rate)
        best = fastest
    return best
