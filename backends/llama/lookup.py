"""Guesses at the next tokens from what was said before: what followed the last three tokens earlier may follow again.

Prompt lookup decoding (Saxena 2023), llama.cpp's `ngram-simple`: no second model. A guess is computed beside the token
that is due, and what the sampler would have drawn decides: every token is drawn from the model's own distribution, with
the draw that belongs to its place. How often guesses come true is known whether or not they were computed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

N_GRAM = 3
GUESSES = (1, 3, 7, 15)  # tokens; rows come in fours
WORTH = 1.05  # how much faster it must be: what was measured is noisy
_LEARN = 0.1  # the weight of the last token
_PRIOR = 0.5


class Lookup:
    """Of one request; asked before each of its tokens, and told each."""

    def __init__(self) -> None:
        self._follows: dict[tuple[int, ...], int] = {}  # three tokens -> where the one after them stands
        self._n_seen = N_GRAM
        self._guess: list[int] = []
        self._comes_true = _PRIOR

    def draft(self, tokens: Sequence[int], n_rows: int, n_most: int, cost_ms: Callable[[int], float]) -> list[int]:
        """The guess that is worth computing, often none.

        `n_rows`: of the call without it; `n_most`: tokens it may have; `cost_ms`: of a call by its rows.
        """
        at = self._find(tokens)
        if at is None:
            self._guess = []
            return []
        n, best = 0, n_rows / cost_ms(n_rows)
        for more in GUESSES:
            if more > n_most:
                break
            p = self._comes_true
            gained = p * (1 - p**more) / (1 - p) if p < 1 else more
            if (rate := (n_rows + gained) / cost_ms(n_rows + more)) > best * WORTH:
                n, best = more, rate
        guess: list[int] = []
        for i in range(at, at + max(n, 1)):  # what is repeated may reach into the guess itself
            guess.append(tokens[i] if i < len(tokens) else guess[i - len(tokens)])
        self._guess = guess
        return guess[:n]

    def drawn(self, tokens: Sequence[int]) -> None:
        """What came in the place of the last guess."""
        for guessed, token in zip(self._guess, tokens, strict=False):
            self._comes_true += _LEARN * ((guessed == token) - self._comes_true)
        self._guess = []

    def _find(self, tokens: Sequence[int]) -> int | None:
        """Where that stands which followed the last tokens when they were said before."""
        for i in range(self._n_seen, len(tokens)):
            self._follows[tuple(tokens[i - N_GRAM : i])] = i
        self._n_seen = max(self._n_seen, len(tokens))
        return self._follows.get(tuple(tokens[-N_GRAM:]))
