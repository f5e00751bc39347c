"""Which tokens a step computes beyond those that are due, in the hope that they will come."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .pace import BLOCK

if TYPE_CHECKING:
    from collections.abc import Sequence as Many

    from ..facts import LoadPlan
    from .pace import Pace
    from .sequence import Sequence


class Guesser:
    """Fills the drafts of running requests before a step that has no prompts."""

    def __init__(self, plan: LoadPlan, n_ctx: int, pace: Pace) -> None:
        self._n_most = plan.n_draft
        self._exact = plan.numerics == "exact"
        self._n_ctx = n_ctx
        self._pace = pace

    def guess(self, sequences: Many[Sequence]) -> None:
        """What may follow is computed, too, where it pays. With exact numerics all rows are of one small call."""
        n_rows = len(sequences)
        n_left = min(self._n_most, BLOCK - 1 - n_rows) if self._exact else self._n_most
        for s in sequences:
            if s.lookup is not None:
                n_most = min(n_left, self._n_ctx - len(s.tokens), s.submit.params.max_tokens - s.n_completion - 1)
                s.draft = s.lookup.draft(s.tokens, n_rows, n_most, self._pace.flow_rows_ms)
                if s.grammar is not None and len(forced := s.grammar.forced()[: max(0, n_most)]) > len(s.draft):
                    s.draft = forced
                n_rows, n_left = n_rows + len(s.draft), n_left - len(s.draft)
