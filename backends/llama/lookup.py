"""Guesses at the next tokens from what was said before: what followed the last three tokens earlier may follow again.

Prompt lookup decoding (Saxena 2023), llama.cpp's `ngram-simple`: no second model. A guess is computed beside the token
that is due, and what the sampler would have drawn decides: every token is drawn from the model's own distribution, with
the draw that belongs to its place. How often guesses come true is known whether or not they were computed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .odds import GUESSES, Chance, Odds, how_many

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

N_GRAM = 3


class Lookup:
    """Of one request; asked before each of its tokens, and told each."""

    def __init__(self) -> None:
        self._follows: dict[tuple[int, ...], int] = {}  # three tokens -> where the one after them stands
        self._n_seen = N_GRAM
        self._guess: list[int] = []
        self._odds = Odds()
        self.rate = 0.0  # tokens/ms that are expected of the last guess

    def draft(self, tokens: Sequence[int], n_rows: int, n_most: int, cost_ms: Callable[[int], float]) -> list[int]:
        """The guess that is worth computing, often none.

        `n_rows`: of the call without it; `n_most`: tokens it may have; `cost_ms`: of a call by its rows.
        """
        at = self._find(tokens)
        if at is None:
            self._guess = []
            return []
        _, n, self.rate = how_many([Chance(self._odds.comes_true, GUESSES[-1])], n_rows, n_most, cost_ms)
        guess: list[int] = []
        for i in range(at, at + max(n, 1)):  # what is repeated may reach into the guess itself
            guess.append(tokens[i] if i < len(tokens) else guess[i - len(tokens)])
        self._guess = guess
        return guess[:n]

    def drawn(self, tokens: Sequence[int]) -> None:
        """What came in the place of the last guess."""
        self._odds.learn(self._guess, tokens)
        self._guess = []

    def _find(self, tokens: Sequence[int]) -> int | None:
        """Where that stands which followed the last tokens when they were said before."""
        for i in range(self._n_seen, len(tokens)):
            self._follows[tuple(tokens[i - N_GRAM : i])] = i
        self._n_seen = max(self._n_seen, len(tokens))
        return self._follows.get(tuple(tokens[-N_GRAM:]))
