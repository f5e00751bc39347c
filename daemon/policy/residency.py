"""Which models make way for another: the cheapest set that frees enough, and never one that must stay."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

EXACT_UP_TO = 16  # models: beyond, a good set is found, not surely the cheapest
REUSE_WITHIN_S = 300.0  # a model used again within this would have been better kept


class Holder(msgspec.Struct, frozen=True, array_like=False):
    """A model that holds memory."""

    model: str
    bytes_on: dict[str, int]  # what its end would free, by pool
    cost: float  # seconds to load it again x probability that it is wanted again
    stays: str = ""  # why it may not go: pinned, leased, busy, young, loading, draining


class EvictQuestion(msgspec.Struct, frozen=True):
    """Room for `model`: `need` bytes by pool, where `free` are free."""

    model: str
    need: dict[str, int]
    free: dict[str, int]
    holders: tuple[Holder, ...]


def evict(question: EvictQuestion) -> tuple[str, ...] | None:
    """The victims with the least cost whose bytes make enough room; () when none is needed, None when none suffices.

    Of equal cost the fewest go, of these the first by name. Exact for up to EXACT_UP_TO candidates.
    """
    missing = shortage(question.need, question.free)
    able = [holder for holder in question.holders if not holder.stays]
    useful = sorted((h for h in able if any(h.bytes_on.get(pool) for pool in missing)), key=lambda h: h.model)
    if any(sum(h.bytes_on.get(pool, 0) for h in useful) < n for pool, n in missing.items()):
        return None
    chosen = _cheapest(missing, useful) if len(useful) <= EXACT_UP_TO else _good(missing, useful)
    return tuple(holder.model for holder in chosen)


def shortage(need: Mapping[str, int], free: Mapping[str, int]) -> dict[str, int]:
    """Bytes that are missing, by pool; one that is overdrawn lacks that, too."""
    return {pool: n - free.get(pool, 0) for pool, n in need.items() if n > free.get(pool, 0)}


def reuse_probability(uses_per_s: float) -> float:
    """That the model is wanted again within REUSE_WITHIN_S, if its uses come as a Poisson process."""
    return 1.0 - math.exp(-uses_per_s * REUSE_WITHIN_S)


def _cheapest(missing: Mapping[str, int], holders: Sequence[Holder]) -> list[Holder]:
    """Depth first over take and leave, cutting branches that cannot win or cannot suffice."""
    pools = list(missing)
    # What the holders from i on can free together: a branch that cannot reach its need ends there.
    left = [[sum(h.bytes_on.get(pool, 0) for h in holders[i:]) for pool in pools] for i in range(len(holders) + 1)]
    best: tuple[tuple[float, int, tuple[str, ...]], list[Holder]] | None = None

    def search(i: int, need: list[int], cost: float, taken: list[Holder]) -> None:
        nonlocal best
        if best is not None and cost > best[0][0]:
            return
        if all(n <= 0 for n in need):
            key = (cost, len(taken), tuple(h.model for h in taken))
            if best is None or key < best[0]:
                best = key, list(taken)
            return
        if any(n > free for n, free in zip(need, left[i], strict=True)):
            return
        holder = holders[i]
        freed = [n - holder.bytes_on.get(pool, 0) for n, pool in zip(need, pools, strict=True)]
        search(i + 1, freed, cost + holder.cost, [*taken, holder])
        search(i + 1, need, cost, taken)

    search(0, [missing[pool] for pool in pools], 0.0, [])
    assert best is not None, "the caller has checked that all together suffice"
    return best[1]


def _good(missing: Mapping[str, int], holders: Sequence[Holder]) -> list[Holder]:
    """The cheapest per missing byte until it suffices, then those that turn out not to be needed stay."""

    def density(holder: Holder) -> float:
        gain = sum(min(1.0, holder.bytes_on.get(pool, 0) / n) for pool, n in missing.items())
        return holder.cost / gain

    def suffices(some: Sequence[Holder]) -> bool:
        return all(sum(h.bytes_on.get(pool, 0) for h in some) >= n for pool, n in missing.items())

    taken: list[Holder] = []
    for holder in sorted(holders, key=density):
        if not suffices(taken):
            taken.append(holder)
    for holder in sorted(taken, key=lambda h: -h.cost):
        if suffices(rest := [h for h in taken if h is not holder]):
            taken = rest
    return sorted(taken, key=lambda h: h.model)
