"""From rows of logits to tokens of one request: what is due, what of the guesses came true, and whether it is over."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from ..messages import Delta, FinishReason
from ..sampling import InvalidLogits, logprob

if TYPE_CHECKING:
    from ..messages import Event
    from .binding import Logits
    from .sequence import Sequence
    from .vocab import Vocab


class End(NamedTuple):
    """Why a request is over."""

    reason: FinishReason
    error: str = ""
    field: str = ""  # of the request, where it is to blame


def draw(s: Sequence, rows: Logits, vocab: Vocab, n_ctx: int, events: list[Event]) -> End | None:
    """The token that is due, and those after it for as long as the draft was right; None: it goes on.

    Row i + 1 was computed after the i-th token of the draft; `n_guessed` rows of it are left that are not wanted.
    Changes `rows`.
    """
    draft, s.draft = s.draft, []
    n_before = len(s.tokens)
    s.n_drafted += len(draft)
    for i, row in enumerate(rows):
        end = _draw_one(s, row, vocab, n_ctx, events)
        if end is not None:
            return end
        if i == len(draft) or s.tokens[-1] != draft[i]:
            break
        s.n_computed, s.n_guessed, s.n_accepted = s.n_computed + 1, s.n_guessed - 1, s.n_accepted + 1
    if s.lookup is not None:
        s.lookup.drawn(s.tokens[n_before:])
    return None


def over(s: Sequence, n_ctx: int) -> End | None:
    """Whether the tokens there are make a whole answer, or one that cannot be continued."""
    if s.grammar is not None and s.grammar.failed:
        return _unfit(s)
    if s.text.stopped or (s.grammar is not None and s.grammar.complete):
        return End(FinishReason.STOP)
    n_tokens = len(s.tokens)
    if n_tokens - s.n_prompt >= s.submit.params.max_tokens or n_tokens >= n_ctx:
        return End(FinishReason.LENGTH)
    return None


def _unfit(s: Sequence) -> End:
    if s.grammar is None or not s.grammar.fault:
        return End(FinishReason.ERROR, "the model produced invalid numbers")
    return End(FinishReason.ERROR, s.grammar.fault, s.form_field)


def _draw_one(s: Sequence, row: Logits, vocab: Vocab, n_ctx: int, events: list[Event]) -> End | None:
    index, n_top = len(s.tokens) - s.n_prompt, s.submit.params.logprobs
    raw = None if n_top is None else row.copy()  # drawing changes the row
    try:
        if s.grammar is not None:
            s.grammar.mask(row)
            if s.grammar.failed:
                return _unfit(s)
        token = s.sampler.sample(row, s.tokens, index)
        logprobs = None if raw is None else [logprob(raw, token, n_top or 0, vocab.piece)]
    except InvalidLogits:
        return _unfit(s)
    if s.first_s is None:
        s.first_s = time.perf_counter()
    if token in vocab.eog:
        return End(FinishReason.STOP)
    if s.grammar is not None:
        s.grammar.accept(token)
    job, attempt = s.name
    events.append(Delta(job, attempt, index, [token], s.add(token), logprobs))
    return over(s, n_ctx)
