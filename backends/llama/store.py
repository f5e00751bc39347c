"""Computed blocks of 64 tokens in host RAM, for whoever begins with the same tokens once their cells are gone.

A block's name is a hash of its tokens and of the name of the block before it, so it stands for all tokens up to its
end. The first one's goes out from the salt: what one tenant has computed no other one finds. Blocks that were put
together lie in one sealed file; the daemon has it, too, so that it outlives this process, and may keep what is dropped
here on disk.
"""

from __future__ import annotations

import logging
import math
import os
import time
from array import array
from collections import OrderedDict
from dataclasses import dataclass
from hashlib import blake2b
from itertools import groupby, takewhile
from typing import TYPE_CHECKING

import numpy as np

from .. import memfd
from ..messages import Run
from .pace import BLOCK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import numpy.typing as npt

    from ..shelf import Shelf

    State = npt.NDArray[np.uint8]

log = logging.getLogger(__name__)

NAME_BYTES = 16
MAX_BLOCKS = 16  # of one run, which is dropped as a whole
MAX_RUNS = 512  # each is a file that is open in the daemon
GRACE_S = 5.0  # what was asked for stays so long, until the request that waits for it runs


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


@dataclass(slots=True, eq=False)
class _Held:
    """A run that is here. `rows`: a row of bytes for each block."""

    run: Run
    rows: State
    warm_s: float = 0.0  # until then others go first
    wanted: bool = False  # by a request after the one that computed it, or by a session


class Store:
    """Up to `limit_bytes`; what was used least lately goes first, the end of a text before its beginning."""

    def __init__(
        self, limit_bytes: int, shelf: Shelf | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.limit_bytes = limit_bytes
        self.n_bytes = 0
        self.block_bytes = 0  # all are of one size, which shows with the first
        self.n_given = 0  # answers to what was asked for
        self.fetch_s_per_byte = 1e-9  # as measured; before that a guess
        self._shelf = shelf
        self._clock = clock
        self._held: OrderedDict[bytes, _Held] = OrderedDict()  # by the name of the first block
        self._at: dict[bytes, tuple[_Held, int]] = {}
        self._below: set[bytes] = set()  # blocks that the daemon can give
        self._asked: dict[bytes, float] = {}  # of those, what is on its way, and since when
        self._overlaps = False  # some block was in two runs
        if shelf is not None:
            shelf.on_given, shelf.on_stored = self.on_given, self.on_stored

    def find(self, names: Sequence[bytes]) -> list[State]:
        """The blocks from the first one on, as far as they are there."""
        found = []
        for name in takewhile(self._at.__contains__, names):
            held, i = self._at[name]
            held.wanted = True
            found.append(held.rows[i])
        self.touch(names[: len(found)])
        return found

    def touch(self, names: Sequence[bytes], warm_s: float = 0.0) -> None:
        """These were used: the first one last, as the others are of no use without it.

        Until `warm_s` others go before them.
        """
        for name in reversed(names):
            if name in self._at:
                held = self._at[name][0]
                held.warm_s = max(held.warm_s, warm_s)
                held.wanted |= warm_s > 0
                self._held.move_to_end(held.run.names[0])

    def as_many_as_fit(self, names: list[bytes]) -> list[bytes]:
        """Of the blocks of one text: a longer one would push out its own beginning."""
        return names[: self.limit_bytes // self.block_bytes] if self.block_bytes else names

    def missing(self, names: Iterable[bytes]) -> list[int]:
        """Which of these are not there, by their places."""
        return [i for i, name in enumerate(names) if name not in self._at]

    def save(
        self,
        salt: str,
        names: Sequence[bytes],
        state: Callable[[int], State],
        warm_s: float = 0.0,
        end_s: float = math.inf,
    ) -> None:
        """Keep what is missing of a text, from its beginning on until `end_s`; `state(i)` is its i-th block."""
        if not self.limit_bytes:
            return
        self.touch(names, warm_s)  # what is here of it must not make way for the rest
        missing = self.missing(names)
        runs = [[i for _, i in run] for _, run in groupby(enumerate(missing), key=lambda at: at[1] - at[0])]
        parts = [run[start : start + MAX_BLOCKS] for run in runs for start in range(0, len(run), MAX_BLOCKS)]
        for part in parts:
            if self._clock() > end_s or not self._save(salt, [names[i] for i in part], part, state, warm_s):
                break
        self.touch(names, warm_s)

    def _save(
        self, salt: str, names: list[bytes], places: list[int], state: Callable[[int], State], warm_s: float
    ) -> bool:
        """One run; False when nothing more can be kept."""
        first = state(places[0])
        self.block_bytes = first.nbytes
        run = Run(names, first.nbytes, salt)
        if run.n_bytes > self.limit_bytes or names[0] in self._held:
            return False
        try:
            fd = memfd.create(run.n_bytes)
        except OSError as error:
            log.warning("computed prompts are not kept: %s", error.strerror)
            return False
        try:
            with memfd.writable(fd) as view:
                rows = np.frombuffer(view, np.uint8).reshape(len(places), -1)
                for row, place in zip(rows, places, strict=True):
                    row[:] = first if place == places[0] else state(place)
                del row, rows
            memfd.seal(fd)
            self._add(run, fd, warm_s)
            if self._shelf is not None:
                self._shelf.keep(run, fd)
        finally:
            os.close(fd)
        self._shrink()
        return True

    # what the daemon has

    @property
    def has_more(self) -> bool:
        return bool(self._below)

    def lacks(self, names: Sequence[bytes], n_known: int = 0) -> list[bytes]:
        """The blocks which the daemon could give behind those that are here, or known elsewhere."""
        n_here = sum(1 for _ in takewhile(self._at.__contains__, names))
        wanted = list(takewhile(self._below.__contains__, names[max(n_here, n_known) :]))
        if wanted:  # what comes must not push out its own beginning
            self.touch(names[:n_here], self._clock() + GRACE_S)
        return wanted

    def asks(self, names: Iterable[bytes]) -> bool:
        """Whether any of these is on its way."""
        return any(name in self._asked for name in names)

    def fetch(self, names: Sequence[bytes]) -> None:
        """Ask for these, once."""
        if new := [name for name in names if name not in self._asked]:
            assert self._shelf is not None
            self._asked |= dict.fromkeys(new, self._clock())
            self._shelf.fetch(new)

    def on_stored(self, names: Sequence[bytes], block_bytes: int) -> None:
        self.block_bytes = self.block_bytes or block_bytes
        self._below.update(names)

    def on_given(self, given: Sequence[tuple[Run, int]], missing: Sequence[bytes]) -> None:
        """Files are closed here, whatever is in them."""
        self.n_given += 1
        since = [self._asked[name] for run, _ in given for name in run.names if name in self._asked]
        refused = list(missing)
        for run, fd in given:
            try:
                self._add(run, fd, self._clock() + GRACE_S if since else 0.0)
            except (OSError, ValueError) as error:
                log.error("a file of computed prompts is not used: %s", error)
                refused += run.names
                if self._shelf is not None:
                    self._shelf.drop(run.names[0], wanted=False)
            finally:
                os.close(fd)
        for name in [*refused, *(name for run, _ in given for name in run.names)]:
            self._asked.pop(name, None)
        self._below.difference_update(refused)
        if since:
            took_s = (self._clock() - min(since)) / sum(run.n_bytes for run, _ in given)
            self.fetch_s_per_byte += 0.3 * (took_s - self.fetch_s_per_byte)
        self._shrink()

    # how it is done

    def _add(self, run: Run, fd: int, warm_s: float) -> None:
        """One that is here already stays as it is. Raises ValueError when the file is not what the run says."""
        if self.block_bytes not in (0, run.block_bytes) or not run.names:
            raise ValueError(f"blocks of {run.block_bytes} bytes where they have {self.block_bytes}")
        rows = np.frombuffer(memfd.readable(fd, run.n_bytes), np.uint8).reshape(len(run.names), -1)
        if run.names[0] in self._held:
            return
        self.block_bytes = run.block_bytes
        held = self._held[run.names[0]] = _Held(run, rows, warm_s)
        for i, name in enumerate(run.names):
            self._overlaps |= name in self._at
            self._at.setdefault(name, (held, i))
        self.n_bytes += run.n_bytes

    def _shrink(self) -> None:
        """Back to the limits."""
        while self.n_bytes > self.limit_bytes or len(self._held) > MAX_RUNS:
            now_s = self._clock()
            cool = (held for held in self._held.values() if held.warm_s <= now_s)
            self._drop(next(cool, None) or next(iter(self._held.values())))

    def _drop(self, held: _Held) -> None:
        del self._held[held.run.names[0]]
        for name in held.run.names:
            if self._at[name][0] is held:
                del self._at[name]
        if self._overlaps:  # seldom: what it had may be in another run, too
            for other in self._held.values():
                for i, name in enumerate(other.run.names):
                    self._at.setdefault(name, (other, i))
        self.n_bytes -= held.run.n_bytes
        if self._shelf is not None:
            self._shelf.drop(held.run.names[0], wanted=held.wanted)
