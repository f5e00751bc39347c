"""How often guesses come true, and how many of them are worth computing for that. Arithmetic alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

GUESSES = (1, 3, 7, 15)  # tokens; rows come in fours
WORTH = 1.05  # how much faster it must be: what was measured is noisy
PRIOR = 0.5  # of a guess that nobody has tried
_LEARN = 0.1  # the weight of the last token
_HOPE = 0.002  # by which a chance rises towards 1 with each token that nothing was guessed for
_FORGET = 0.02  # and the part of what is known that is lost with it


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


@dataclass(slots=True)
class Odds:
    """How often guesses come true: what little is known at first soon gives way to what is seen."""

    comes_true: float = PRIOR
    _n_known: float = 1 / _LEARN  # tokens that this is the mean of

    @classmethod
    def hoped(cls, comes_true: float) -> Odds:
        """Not much more than a hope."""
        return cls(min(1.0, comes_true), 3.0)

    def learn(self, guess: Sequence[int], came: Sequence[int]) -> None:
        """What came in the place of a guess; beyond the first wrong token it says nothing."""
        for guessed, token in zip(guess, came, strict=False):
            self._n_known = min(self._n_known + 1, 1 / _LEARN)
            self.comes_true += ((guessed == token) - self.comes_true) / self._n_known
            if guessed != token:
                break

    def hope(self, n_tokens: float) -> None:
        """So many came for which nothing was guessed; sooner or later it is tried again."""
        self.comes_true += (1 - self.comes_true) * (1 - (1 - _HOPE) ** n_tokens)
        self._n_known = max(3.0, self._n_known * (1 - _FORGET) ** n_tokens)


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
