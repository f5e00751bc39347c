"""From a row of logits to a token: llama.cpp's default chain, with one draw per (seed, index).

Bias, penalties, top_k, top_p, min_p and temperature act in this order. Token i of a completion is drawn with a number
that depends on the seed and i alone, so a replayed request goes on as if nothing had happened.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import Counter
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np

from .messages import TokenLogprob

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import numpy.typing as npt

    from .messages import SamplingParams

    Row = npt.NDArray[np.float32]
    Ids = npt.NDArray[np.int64]

PENALTY_WINDOW = 64  # tokens, prompt included
FEW = 256  # candidates, up to which lists are faster than arrays
SURPLUS = 24  # times as many as wanted are still sorted
STRIPES = 64  # a row is read as so many stripes; their elementwise maximum bounds the top
MIN_TEMPERATURE = 1e-6  # below, a division would overflow; the best token has all the weight long before
BINS = 1024  # of logits up to SPAN below the best; the last one has the rest
SPAN = 32.0
_MASK = 2**64 - 1
_GOLDEN = 0x9E3779B97F4A7C15


class InvalidLogits(Exception):
    """The model produced NaN or infinity."""


class _Banned:
    """Tokens that must not be drawn."""

    def __init__(self, tokens: set[int]) -> None:
        self.tokens = frozenset(tokens)
        self.ids = np.array(sorted(tokens), np.int64)


class Sampler:
    """Draws the tokens of one request. `eog` and `suppressed` come from the vocabulary."""

    def __init__(self, params: SamplingParams, eog: Iterable[int], suppressed: Sequence[int], n_vocab: int) -> None:
        self._params = params
        self._banned = _Banned({*suppressed, *(eog if params.ignore_eos else ())})
        self._banned_early = _Banned({*suppressed, *eog})
        bias = {t: b for t, b in params.logit_bias.items() if 0 <= t < n_vocab}
        self._bias_ids = np.fromiter(bias, np.int64, len(bias))
        self._bias = np.fromiter(bias.values(), np.float32, len(bias))
        self._floor = self._kth = math.nan  # what is surely below the top_k, by those of the tokens before
        self._drift = 0.0  # how far the last of them moves from token to token
        self._penalises = params.repeat_penalty != 1.0 or bool(params.presence_penalty or params.frequency_penalty)

    def sample(self, row: Row, tokens: Sequence[int], index: int) -> int:
        """Token `index` of the completion, after `tokens`. Changes `row`."""
        self._adjust(row, tokens)
        banned = self._banned_early if index < self._params.min_tokens else self._banned
        if self._params.temperature <= 0:
            best = greedy(row)
            if best not in banned.tokens:  # nearly always
                return best
        row[banned.ids] = -np.inf
        if self._params.temperature <= 0:
            return greedy(row)
        ids, logits = self._keep(row)
        temperature, where = max(self._params.temperature, MIN_TEMPERATURE), uniform(self._params.seed, index)
        if len(ids) <= FEW:
            few = logits.tolist()
            best = max(few)
            sums = list(accumulate([math.exp((logit - best) / temperature) for logit in few]))
            drawn = bisect_right(sums, where * sums[-1])
        else:
            cumulative = np.cumsum(np.exp((logits - logits.max()) / temperature), dtype=np.float64)
            drawn = int(np.searchsorted(cumulative, where * cumulative[-1], side="right"))
        return int(ids[min(drawn, len(ids) - 1)])

    def _adjust(self, row: Row, tokens: Sequence[int]) -> None:
        if len(self._bias_ids):
            row[self._bias_ids] += self._bias
        if self._penalises:
            self._penalise(row, Counter(tokens[-PENALTY_WINDOW:]))

    def _penalise(self, row: Row, counts: Counter[int]) -> None:
        params = self._params
        ids = np.fromiter(counts, np.int64, len(counts))
        times = np.fromiter(counts.values(), np.float32, len(counts))
        seen = row[ids]
        seen = np.where(seen <= 0, seen * params.repeat_penalty, seen / params.repeat_penalty)
        row[ids] = seen - times * params.frequency_penalty - params.presence_penalty

    def _keep(self, row: Row) -> tuple[Ids, Row]:
        """The candidates that survive top_k, top_p and min_p, in an order that depends on the row alone."""
        params = self._params
        if 0 < params.top_k < len(row):
            ids, logits = self._top(row)
            if params.top_p < 1:
                kept = _n_top_p_of_them(logits, params.top_p)
                ids, logits = ids[:kept], logits[:kept]
        else:
            ids, logits = self._keep_of_all(row)
        if params.min_p > 0:
            kept = max(1, int(np.count_nonzero(logits >= logits[0] + math.log(params.min_p))))
            ids, logits = ids[:kept], logits[:kept]
        return ids, logits

    def _top(self, row: Row) -> tuple[Ids, Row]:
        """The top_k. One look at the row is enough when they reach about as far down as those of the token before."""
        k = self._params.top_k
        ids = np.flatnonzero(row >= self._floor)
        if k <= len(ids) <= SURPLUS * k:
            logits = row[ids]
            order = np.argsort(-logits, kind="stable")[:k]
            ids, logits = ids[order], logits[order]
            if not math.isfinite(logits[0]):
                raise InvalidLogits
        else:
            ids, logits = top(row, k)
        kth = float(logits[-1])
        moved = abs(kth - self._kth)
        if math.isfinite(moved):
            self._drift += 0.2 * (moved - self._drift)
        self._kth, self._floor = kth, kth - 3 * self._drift - 0.1
        return ids, logits

    def _keep_of_all(self, row: Row) -> tuple[Ids, Row]:
        """No top_k. What min_p would drop anyway is never sorted: it and top_p both keep a best-first prefix."""
        params = self._params
        best = float(row[greedy(row)])
        if params.min_p <= 0:
            ids = np.arange(len(row)) if params.top_p >= 1 else _top_p_of_all(row, best, params.top_p)
            return ids, row[ids]
        ids = np.nonzero(row >= best + math.log(params.min_p))[0]
        ids, logits = _sorted(ids, row[ids])
        if params.top_p < 1:
            kept = _n_top_p(logits, float(np.exp(row - best).sum(dtype=np.float64)), params.top_p)
            ids, logits = ids[:kept], logits[:kept]
        return ids, logits


def greedy(row: Row) -> int:
    """The best token. Raises InvalidLogits (argmax stops at a NaN)."""
    best = int(row.argmax())
    if not math.isfinite(row[best]):
        raise InvalidLogits
    return best


def top(row: Row, k: int) -> tuple[Ids, Row]:
    """The k best, best first, ties by token id. Exact: no k-th best logit is below the k-th largest column maximum."""
    n_columns = len(row) // STRIPES
    if k >= n_columns:
        ids, logits = _sorted(np.arange(len(row)), row)
        return ids[:k], logits[:k]
    body = row[: n_columns * STRIPES].reshape(STRIPES, n_columns)
    peaks = body.max(axis=0)
    if math.isnan(peaks.max()):
        raise InvalidLogits
    floor = np.partition(peaks, n_columns - k)[n_columns - k]
    if floor == -np.inf:  # all but a few are ruled out
        ids = np.flatnonzero(row > -np.inf)
        ids, logits = _sorted(ids, row[ids])
        return ids[:k], logits[:k]
    columns = np.nonzero(peaks >= floor)[0]
    block = body[:, columns]
    stripe, at = np.nonzero(block >= floor)
    ids = stripe * n_columns + columns[at]
    rest = np.arange(n_columns * STRIPES, len(row))
    ids, logits = _sorted(np.concatenate((ids, rest)), np.concatenate((block[stripe, at], row[rest])))
    return ids[:k], logits[:k]


def _sorted(ids: Ids, logits: Row) -> tuple[Ids, Row]:
    if not len(ids):
        raise InvalidLogits
    order = np.lexsort((ids, -logits))
    ids, logits = ids[order], logits[order]
    # NaN sorts last, but a maximum over NaN is NaN, so one look at either end finds every kind.
    if not math.isfinite(logits[0]) or math.isnan(logits[-1]):
        raise InvalidLogits
    return ids, logits


def _top_p_of_all(row: Row, best: float, top_p: float) -> Ids:
    """The fewest best tokens that make up `top_p` of all, not sorted: only the bin where the sum is reached is."""
    weights = np.exp(row - best)
    bins = np.minimum((best - row) * (BINS / SPAN), BINS - 1).astype(np.intp)
    mass = np.cumsum(np.bincount(bins, weights, BINS))
    wanted = top_p * float(mass[-1])
    edge = int(np.searchsorted(mass, wanted))
    in_edge = np.nonzero(bins == edge)[0]
    ids, logits = _sorted(in_edge, row[in_edge])
    so_far = float(mass[edge - 1]) if edge else 0.0
    cumulative = so_far + np.cumsum(np.exp(logits.astype(np.float64) - best))
    n_edge = int(np.searchsorted(cumulative, wanted)) + 1
    return np.concatenate((np.nonzero(bins < edge)[0], ids[:n_edge]))


def _n_top_p(logits: Row, total: float, top_p: float) -> int:
    """How many of the best-first `logits` make up `top_p` of `total`; total = sum of exp(logit - best)."""
    cumulative = np.cumsum(np.exp(logits.astype(np.float64) - float(logits[0])))
    return min(len(logits), int(np.searchsorted(cumulative, top_p * total)) + 1)


def _n_top_p_of_them(logits: Row, top_p: float) -> int:
    """How many of the best-first `logits` make up `top_p` of what they weigh together."""
    if len(logits) > FEW:
        return _n_top_p(logits, np.exp(logits.astype(np.float64) - float(logits[0])).sum(), top_p)
    few = logits.tolist()
    sums = list(accumulate([math.exp(logit - few[0]) for logit in few]))
    return min(len(few), bisect_left(sums, top_p * sums[-1]) + 1)


def uniform(seed: int, index: int) -> float:
    """A number in [0, 1) that depends on nothing but (seed, index): two rounds of splitmix64."""
    return (_mix(_mix(seed) + index * _GOLDEN) >> 11) * 2.0**-53


def _mix(value: int) -> int:
    value = (value + _GOLDEN) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


def log_sum(row: Row) -> float:
    """log of the sum of exp(row): subtract it from a logit to get its log-probability."""
    best = float(row.max())
    if not math.isfinite(best):
        raise InvalidLogits
    return best + math.log(float(np.exp(row - best).sum()))


def logprob(row: Row, token: int, n_top: int, piece: Callable[[int], bytes]) -> TokenLogprob:
    """Of the model's own distribution: `row` as it was before bias, penalties and temperature."""
    total = log_sum(row)

    def text(t: int) -> str:
        return piece(t).decode(errors="replace")

    ids = top(row, n_top)[0].tolist() if n_top else []
    best = [(t, float(row[t]) - total, text(t)) for t in ids]
    return TokenLogprob(token, float(row[token]) - total, text(token), best)
