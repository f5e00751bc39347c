"""Which tokens a step computes beyond those that are due, in the hope that they will come."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .batch import budget_ms
from .pace import BLOCK

if TYPE_CHECKING:
    from collections.abc import Sequence as Many

    from ..facts import LoadPlan
    from .drafter import Drafter
    from .lookup import Lookup
    from .pace import Pace
    from .sequence import Sequence


class Guesser:
    """Fills the drafts of running requests before a step that has no prompts."""

    def __init__(self, plan: LoadPlan, n_ctx: int, pace: Pace, drafter: Drafter | None = None) -> None:
        self._n_most = plan.n_draft
        self._exact = plan.numerics == "exact"
        self._n_ctx = n_ctx
        self._pace = pace
        self._drafter = drafter

    def use_threads(self, n_threads: int) -> None:
        if self._drafter is not None:
            self._drafter.use_threads(n_threads)

    def close(self) -> None:
        if self._drafter is not None:
            self._drafter.close()

    def guess(self, sequences: Many[Sequence]) -> None:
        """What may follow is computed, too, where it pays. With exact numerics all rows are of one small call.

        What was said before costs nothing to look up, so that comes first unless the small model is expected to gain
        more.
        """
        n_rows = len(sequences)
        n_left = min(self._n_most, BLOCK - 1 - n_rows) if self._exact else self._n_most
        wishes: list[tuple[Sequence, int]] = []
        for s in sequences:
            if s.lookup is not None:
                n_most = min(n_left, self._n_ctx - len(s.tokens), s.submit.params.max_tokens - s.n_completion - 1)
                if self._look_up(s, s.lookup, n_rows, n_most):
                    wishes.append((s, n_most))
                else:
                    n_rows, n_left = n_rows + len(s.draft), n_left - len(s.draft)
        if self._drafter is not None and wishes:
            pace = self._pace
            stall_ms = budget_ms(sequences, pace) or pace.stall_ms()  # a prompt of its own must not take longer
            guesses = self._drafter.draft(wishes, sequences, n_rows, n_left, pace.flow_rows_ms, stall_ms)
            for s, guess in guesses.items():
                s.draft, n_left = guess, n_left - len(guess)
            for s, _ in wishes:
                if s not in guesses:
                    s.draft = s.draft[: max(0, n_left)]
                    n_left -= len(s.draft)

    def _look_up(self, s: Sequence, lookup: Lookup, n_rows: int, n_most: int) -> bool:
        """Draft what was said before, or what must come; whether the small model would be better."""
        call_ms = self._pace.flow_rows_ms
        s.draft = lookup.draft(s.tokens, n_rows, n_most, call_ms)
        forced = s.grammar.forced()[: max(0, n_most)] if s.grammar is not None else []
        if len(forced) > len(s.draft):
            s.draft = forced
        if self._drafter is None:
            return False
        self._drafter.look(s)
        if s.draft is forced:
            return not forced
        return not s.draft or self._drafter.rate(s, n_most, n_rows, call_ms) > lookup.rate
