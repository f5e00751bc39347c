"""Computed blocks of 64 tokens in host RAM, for whoever begins with the same tokens once their cells are gone.

A block's name is a hash of its tokens and of the name of the block before it, so it stands for all tokens up to its
end. The first one's goes out from the salt: what one tenant has computed no other one finds.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from hashlib import blake2b
from typing import TYPE_CHECKING

from .pace import BLOCK

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy as np
    import numpy.typing as npt

    State = npt.NDArray[np.uint8]

NAME_BYTES = 16


def names(salt: str, tokens: Sequence[int], n_tokens: int, n_whole: int | None = None) -> list[bytes]:
    """Of the whole blocks of the first `n_tokens`.

    `n_whole`: with exact numerics a block of a prompt is another one than the same tokens computed in small calls;
    so many tokens were in blocks of their own.
    """
    name = blake2b(salt.encode(), digest_size=NAME_BYTES).digest()
    found = []
    for start in range(0, n_tokens - BLOCK + 1, BLOCK):
        how = b"" if n_whole is None else b"block" if start < n_whole else b"small"
        block = array("i", tokens[start : start + BLOCK]).tobytes()
        name = blake2b(name + how + block, digest_size=NAME_BYTES).digest()
        found.append(name)
    return found


class Store:
    """Up to `limit_bytes`; what was used least lately goes first, the end of a text before its beginning."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.n_bytes = 0
        self._block_bytes = 1  # all are of one size
        self._blocks: OrderedDict[bytes, State] = OrderedDict()

    def find(self, names: Sequence[bytes]) -> list[State]:
        """The blocks from the first one on, as far as they are there."""
        found = []
        for name in names:
            if name not in self._blocks:
                break
            found.append(self._blocks[name])
        self.touch(names[: len(found)])
        return found

    def touch(self, names: Sequence[bytes]) -> None:
        """These were used: the first one last, as the others are of no use without it."""
        for name in reversed(names):
            if name in self._blocks:
                self._blocks.move_to_end(name)

    def as_many_as_fit(self, names: list[bytes]) -> list[bytes]:
        """Of the blocks of one text: a longer one would push out its own beginning."""
        return names[: self.limit_bytes // self._block_bytes]

    def put(self, name: bytes, state: State) -> None:
        if name in self._blocks or state.nbytes > self.limit_bytes:
            return
        self._block_bytes = max(self._block_bytes, state.nbytes)
        self._blocks[name] = state
        self.n_bytes += state.nbytes
        while self.n_bytes > self.limit_bytes:
            _, dropped = self._blocks.popitem(last=False)
            self.n_bytes -= dropped.nbytes

    def missing(self, names: Iterable[bytes]) -> list[int]:
        """Which of these are not there, by their places."""
        return [i for i, name in enumerate(names) if name not in self._blocks]
