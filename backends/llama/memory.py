"""Who runs on which KV cells: what is known of a request is shared, and what was computed for one is kept a while."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from .pace import BLOCK
from .prefix import Copy, PrefixTree, same
from .store import names

if TYPE_CHECKING:
    from collections.abc import Iterable
    from collections.abc import Sequence as Many

    from ..messages import Submit
    from .binding import Context
    from .cells import Cells
    from .pace import Pace
    from .prefix import Change
    from .sequence import Sequence
    from .store import Store

MIN_SHARED = BLOCK  # tokens; less is sooner computed than waited for
EVICT_CELLS = 256  # at a time, so that not every row asks
RETRY = 0.9  # what was measured as too dear is tried again after some refusals


class Memory:
    """The cells of one context. `seqs`: ids of sequences in which computed tokens are kept; none: nothing is shared."""

    def __init__(
        self,
        context: Context,
        cells: Cells,
        seqs: Iterable[int],
        store: Store,
        pace: Pace,
        *,
        max_idle_cells: int,
        exact: bool,
    ) -> None:
        self._context = context
        self._cells = cells
        self.store = store
        self._pace = pace
        self._restore_ms = 0.0  # of one block, as measured
        self._awaited: dict[tuple[str, int], list[bytes]] = {}  # what was asked for a request that is not admitted yet
        self._exact = exact
        seqs = list(seqs)
        self._tree = PrefixTree(seqs)
        self.shares = bool(seqs)
        self._max_idle_cells = max_idle_cells
        self.cached_tokens = 0  # that were known when somebody asked for them

    # a request's way

    def room_for(self, submit: Submit, running: Many[Sequence]) -> bool:
        """Whether the request would only push out what runs."""
        booked = self._tree.n_locked
        n_shared = 0
        for s in running:
            booked += len(s.tokens) - max(s.n_shared, _held(s))
            if self.shares and s.submit.cache_salt == submit.cache_salt:
                n_shared = max(n_shared, same(s.tokens, submit.tokens))
        return not running or len(submit.tokens) - n_shared <= self._context.n_cells - booked

    def join(self, s: Sequence, before: Iterable[Sequence]) -> None:
        """Give a request the cells that are known of its tokens, and find out whether somebody computes the next ones.

        The last token is always computed: the logits after it are wanted. `before`: those that came earlier.
        """
        s.leader = None
        if self.shares:
            self._follow(s, before)
        elif not s.n_computed:
            self._restore(s)

    def _follow(self, s: Sequence, before: Iterable[Sequence]) -> None:
        known = s.tokens[:-1]
        held, s.held = s.held, self._tree.lock(s.submit.cache_salt, known)
        if held is not None:
            self._tree.unlock(held)
        if s.held.end > s.n_computed:
            source = self._tree.source(s.held)
            assert source is not None
            self._context.seq_cp(source, s.seq, s.n_computed, s.held.end)
            self.cached_tokens += s.held.end - s.n_computed
            s.n_computed = s.n_cached = s.held.end
        self._restore(s)
        s.n_shared = s.n_computed
        for other in before:
            if other.submit.cache_salt == s.submit.cache_salt and other.n_computed < other.n_prompt:
                n = same(other.tokens, known)
                if other.n_computed < n and n - s.n_computed >= MIN_SHARED and n > s.n_shared:
                    s.leader, s.n_shared = other, n

    def _restore(self, s: Sequence) -> None:
        """Give a request what the store has of its tokens."""
        start = s.n_computed // BLOCK
        if not self.store.n_bytes or len(s.tokens) - 1 < (start + 1) * BLOCK:
            return
        its_names = names(s.submit.cache_salt, s.tokens, len(s.tokens) - 1, self._n_whole(s.n_prompt))
        blocks = self.store.find(its_names[start:])
        self.store.touch(its_names)
        if not blocks or not self._pays(self._restore_ms):
            self._restore_ms *= RETRY
            return
        n_before, start_s = s.n_computed, time.perf_counter()
        for i, state in enumerate(blocks, start):
            if not self._cells.restore(s.seq, state, max(s.n_computed, i * BLOCK)):
                break
            s.n_computed = s.n_cached = (i + 1) * BLOCK
        self.cached_tokens += s.n_computed - n_before
        self._restore_ms = (time.perf_counter() - start_s) * 1e3 / len(blocks)
        self.keep(s)

    def _pays(self, block_ms: float) -> bool:
        """Whether a block is sooner had in this way than computed."""
        computed_ms = self._pace.predict_ms(BLOCK)
        return computed_ms is None or block_ms < computed_ms

    def awaits(self, submit: Submit) -> bool:
        """Whether blocks of a request are on their way from the daemon.

        They are asked for once, when that pays; whatever comes then, the request waits no longer.
        """
        name = submit.job, submit.attempt
        if name not in self._awaited:
            self._awaited[name] = self._lacks(submit)
            self.store.fetch(self._awaited[name])
        return self.store.asks(self._awaited[name])

    def admit(self, submit: Submit) -> None:
        """It waits no longer, for whatever reason."""
        self._awaited.pop((submit.job, submit.attempt), None)

    def _lacks(self, submit: Submit) -> list[bytes]:
        """The blocks behind those that are known here which the daemon has, if they are sooner had than computed."""
        store, tokens = self.store, submit.tokens
        if not store.has_more:
            return []
        its_names = names(submit.cache_salt, tokens, len(tokens) - 1, self._n_whole(submit.n_prompt))
        n_known = self._tree.n_known(submit.cache_salt, tokens) // BLOCK if self.shares else 0
        lacking = store.lacks(store.as_many_as_fit(its_names), n_known)
        if lacking and not self._pays(self._restore_ms + store.fetch_s_per_byte * store.block_bytes * 1e3):
            store.fetch_s_per_byte *= RETRY
            return []
        return lacking

    def _save(
        self,
        salt: str,
        tokens: list[int],
        seq: int,
        warm_s: float,
        n_whole: int | None = None,
        end_s: float = math.inf,
    ) -> None:
        """Put into the store what it has not of a path, whose cells are those of `seq`; until `end_s`."""
        if not self.store.limit_bytes:
            return
        its_names = self.store.as_many_as_fit(names(salt, tokens, len(tokens), n_whole))
        self.store.save(salt, its_names, lambda i: self._cells.save(seq, i * BLOCK), warm_s, end_s)

    def _n_whole(self, n_prompt: int) -> int | None:
        return n_prompt // BLOCK * BLOCK if self._exact else None

    def park(self, limit_s: float) -> None:
        """Put what is idle into the store, what was used last first, as far as that is done in time."""
        end_s = time.monotonic() + limit_s
        for path in self._tree.idle_paths():
            if time.monotonic() > end_s:
                return
            self._save(*path, end_s=end_s)

    def keep(self, s: Sequence) -> None:
        """What has been computed of a request may now be used by others."""
        if s.held is not None and s.n_computed > s.held.end:
            s.held, changes = self._tree.extend(s.held, s.tokens[s.held.end : s.n_computed], s.seq)
            self._carry_out(changes)

    def drop_guess(self, s: Sequence) -> None:
        """What was computed beyond the tokens that were drawn is not wanted."""
        self._cells.cut(s.seq, s.n_computed, s.n_guessed)
        s.n_guessed = 0

    def took(self, n_rows: int) -> None:
        """So many rows have got cells."""
        self._cells.took(n_rows)

    def end(self, s: Sequence, running: Iterable[Sequence]) -> None:
        """The request no longer runs, unlike `running`; its cells may be given up when others are wanted."""
        self.keep(s)
        self._tree.now_s = time.monotonic()
        warm_s = self._tree.now_s + s.submit.keep_s if s.submit.keep_s else 0.0
        if not self.shares:
            self._save(s.submit.cache_salt, s.tokens[: s.n_computed], s.seq, warm_s, self._n_whole(s.n_prompt))
        self._cells.release(s.seq, s.n_computed + s.n_guessed, _live(running))
        if s.held is not None:
            self._tree.unlock(s.held, warm_s)
            s.held = None
            if self._tree.n_idle > self._max_idle_cells:
                self._evict(self._tree.n_idle - self._max_idle_cells)

    # room

    def has_cells(self, s: Sequence) -> bool:
        """Whether cells become free when it goes."""
        return s.n_computed > _held(s) or (s.held is not None and s.held.n_locks == 1)

    def ready_for(self, n_rows: int) -> bool:
        return self._cells.ready_for(n_rows)

    def make_room(self, n_rows: int) -> bool:
        """Give up what nobody runs on; False when there is no such thing left."""
        return self._evict(max(n_rows, EVICT_CELLS))

    def tidy(self, running: Iterable[Sequence]) -> bool:
        """Win room by moving cells; False when nothing was won."""
        return self._cells.tidy(_live(running))

    # figures

    def n_used(self, running: Iterable[Sequence]) -> int:
        """Cells that requests run on, each counted once."""
        return self._tree.n_locked + sum(s.n_computed - _held(s) for s in running)

    @property
    def n_idle(self) -> int:
        """Cells that are kept for whoever begins with the same tokens."""
        return self._tree.n_idle

    @property
    def cache_bytes(self) -> int:
        """Of host RAM."""
        return self.store.n_bytes

    def _evict(self, n_cells: int) -> bool:
        changes = self._tree.evict(n_cells, self._save)
        self._carry_out(changes)
        return bool(changes)

    def _carry_out(self, changes: Iterable[Change]) -> None:
        for change in changes:
            if isinstance(change, Copy):
                self._context.seq_cp(change.source, change.to, change.start, change.end)
            else:
                self._context.seq_rm(change.seq, change.start)


def _held(s: Sequence) -> int:
    return 0 if s.held is None else s.held.end


def _live(running: Iterable[Sequence]) -> list[tuple[int, int]]:
    return [(s.seq, s.n_computed + s.n_guessed) for s in running]
