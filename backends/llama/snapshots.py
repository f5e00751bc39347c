"""What models with a recurrent state have computed: a state cannot be shared or cut, so it is kept as a whole.

It is saved where a request ends and now and then in a long prompt, in host RAM; a request whose tokens begin with
exactly those goes on from there. Of a hybrid model the cells of the other layers are part of it.
"""

from __future__ import annotations

from array import array
from collections import Counter, OrderedDict
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, NamedTuple

from .memory import MIN_SHARED, Memory
from .store import NAME_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable
    from collections.abc import Sequence as Many

    import numpy as np
    import numpy.typing as npt

    from .sequence import Sequence

    State = npt.NDArray[np.uint8]

EVERY_TOKENS = 512  # of a prompt: what others may begin with, too, is seldom as long as it


class Snapshot(NamedTuple):
    n_tokens: int
    state: State


class Snapshots:
    """Up to `limit_bytes`; what was used least lately goes first."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.n_bytes = 0
        self._kept: OrderedDict[bytes, Snapshot] = OrderedDict()  # by a hash of the salt and all tokens
        self._lengths: Counter[int] = Counter()

    def find(self, salt: str, tokens: Many[int]) -> Snapshot | None:
        """The longest one whose tokens are the first of these."""
        lengths = sorted(n for n in self._lengths if n <= len(tokens))
        found = [name for name in _names(salt, tokens, lengths) if name in self._kept]
        if not found:
            return None
        self._kept.move_to_end(found[-1])
        return self._kept[found[-1]]

    def has(self, salt: str, tokens: Many[int]) -> bool:
        """Whether there is one of just these; it is used, then."""
        (name,) = _names(salt, tokens, [len(tokens)])
        if name in self._kept:
            self._kept.move_to_end(name)
        return name in self._kept

    def put(self, salt: str, tokens: Many[int], state: State) -> None:
        if state.nbytes > self.limit_bytes:
            return
        (name,) = _names(salt, tokens, [len(tokens)])
        if name in self._kept:
            self._drop(name)
        self._kept[name] = Snapshot(len(tokens), state)
        self._lengths[len(tokens)] += 1
        self.n_bytes += state.nbytes
        while self.n_bytes > self.limit_bytes:
            self._drop(next(iter(self._kept)))

    def _drop(self, name: bytes) -> None:
        snapshot = self._kept.pop(name)
        self.n_bytes -= snapshot.state.nbytes
        self._lengths[snapshot.n_tokens] -= 1
        if not self._lengths[snapshot.n_tokens]:
            del self._lengths[snapshot.n_tokens]


def _names(salt: str, tokens: Many[int], lengths: Many[int]) -> list[bytes]:
    """Of the first so many tokens, for each of the lengths, which ascend."""
    names, start = [], 0
    running = blake2b(blake2b(salt.encode()).digest(), digest_size=NAME_BYTES)
    for n in lengths:
        running.update(array("i", tokens[start:n]).tobytes())
        names.append(running.digest())
        start = n
    return names


class StateMemory(Memory):
    """The memory of a model with a state. Nothing is shared between those that run."""

    def __init__(self, *given: Any, snapshots: Snapshots, **named: Any) -> None:
        super().__init__(*given, **named)
        self._snapshots = snapshots
        self._saved: dict[Sequence, int] = {}  # of those that run: the tokens of the last state that was saved

    @property
    def cache_bytes(self) -> int:
        return self._snapshots.n_bytes

    def join(self, s: Sequence, before: Iterable[Sequence]) -> None:
        super().join(s, before)
        found = None if s.n_computed else self._snapshots.find(s.submit.cache_salt, s.tokens[:-1])
        if found is not None:
            if self._context.state_set(s.seq, found.state):
                s.n_computed = s.n_cached = found.n_tokens
                self.cached_tokens += found.n_tokens
            else:  # no cells for it; a part of it may be there
                self._context.seq_rm(s.seq)
        self._saved[s] = s.n_computed

    def keep(self, s: Sequence) -> None:
        if s in self._saved and s.n_computed // EVERY_TOKENS > self._saved[s] // EVERY_TOKENS:
            self._save_state(s)

    def end(self, s: Sequence, running: Iterable[Sequence]) -> None:
        if s.n_computed - self._saved.get(s, 0) >= MIN_SHARED:
            self._save_state(s)
        self._saved.pop(s, None)
        super().end(s, running)

    def _save_state(self, s: Sequence) -> None:
        self._saved[s] = s.n_computed
        salt, tokens = s.submit.cache_salt, s.tokens[: s.n_computed]
        if not self._snapshots.has(salt, tokens):
            self._snapshots.put(salt, tokens, self._context.state_get(s.seq))
