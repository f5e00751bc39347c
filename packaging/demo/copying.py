"""Exercises in copying: a piece of nonsense, again and again.

Stories need a model that keeps hold of a name, and looking back for it is learned late from text, where most words can
be guessed without. Here nothing can be guessed but by looking back, so it is learned within a few hundred steps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

PIECE_TOKENS = (3, 16)


def copies(rng: random.Random, ordinary: range, length: int) -> Iterator[tuple[list[int], list[float]]]:
    """Rows of `length` token ids and their loss weights; the first time a piece is told, nothing is to be learned."""
    while True:
        piece = [rng.choice(ordinary) for _ in range(rng.randint(*PIECE_TOKENS))]
        ids = piece * (length // len(piece) + 1)
        weights = [0.0] * len(piece) + [1.0] * (length - len(piece))
        yield ids[:length], weights
