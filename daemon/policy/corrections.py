"""What loads took in the end, against what the arithmetic said: the difference corrects the next estimate.

A difference is kept in bytes and not as a ratio, because weights and KV are known to the byte and only what does not
grow with them is a guess: the process, the vocabulary, the allocator's slack, the context of a device.
"""

from __future__ import annotations

import os
from statistics import median_high
from typing import TYPE_CHECKING, Annotated, NamedTuple

import msgspec

from ...backends.facts import HOST

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ...backends.facts import Footprint, LoadPlan, ModelFacts

N_LOADS = 5  # remembered of each model and pool: a single odd one does not decide once there are three
LEAST, MOST = 0.5, 3.0  # a corrected estimate is never beyond these times the plain one
N_KEYS = 512  # remembered in all; who has not been loaded for longest is forgotten first


class Taken(NamedTuple):
    """One load on one pool, in bytes."""

    estimated: int  # by the arithmetic alone, without any correction
    observed: int  # the most that was seen
    load: str = ""  # which one; unknown for those of an earlier daemon


_Saved = dict[str, dict[str, list[tuple[Annotated[int, msgspec.Meta(ge=0)], Annotated[int, msgspec.Meta(ge=0)]]]]]


def key(facts: ModelFacts, plan: LoadPlan) -> str:
    """Loads that share a correction: the same files, and a plan that differs in contexts, slots and threads only."""
    name = f"{os.path.basename(facts.path)}:{facts.file_bytes}"
    attention = {None: "auto", True: "on", False: "off"}[plan.flash_attention]
    shape = f"{plan.backend} {plan.numerics} {'mapped' if plan.use_mmap else 'read'} ub={plan.n_ubatch} fa={attention}"
    shape += f" pool={plan.pooling}" if plan.pooling else ""
    shape += f" draft={os.path.basename(plan.draft.path)}:{plan.draft.file_bytes}" if plan.draft else ""
    return f"{name} {shape}" + (f" gpu={plan.n_gpu_layers}@{'+'.join(plan.devices)}" if plan.devices else "")


def host_bytes(price: Footprint, plan: LoadPlan, anon_bytes: int, cells_used: int) -> int:
    """What the host will have given once all KV cells are used, when a worker that used so many has so much RssAnon.

    To be set against `price.bytes_on["host"]`: mapped pages in use are in it as priced, for the kernel takes and gives
    them as it likes.
    """
    untouched = 1 - min(1.0, cells_used / plan.kv_cells)
    return anon_bytes + round(price.host_late_bytes * untouched) + price.bytes_on[HOST] - price.host_anon_bytes


class Corrections:
    """What was seen of each key and pool. Plain rules: readings come in as arguments."""

    def __init__(self) -> None:
        self._taken: dict[str, dict[str, list[Taken]]] = {}

    def observe(self, key: str, pool: str, estimated: int, observed: int, load: str = "", *, full: bool = True) -> None:
        """A load took `observed` bytes where `estimated` were expected. Of one load (if named) the largest counts.

        One that has not been used to the full (pages untouched as yet may still come) teaches only that more is needed.
        """
        if not full and observed <= estimated + self.offset_bytes(key, pool):
            return
        by_pool = self._taken.pop(key, {})
        self._taken[key] = by_pool  # now the last that would be forgotten
        taken = by_pool.setdefault(pool, [])
        if load and taken and taken[-1].load == load:
            observed = max(observed, taken.pop().observed)
        by_pool[pool] = [*taken, Taken(estimated, observed, load)][-N_LOADS:]
        while len(self._taken) > N_KEYS:
            del self._taken[next(iter(self._taken))]

    def starved(self, key: str, pool: str, estimated: int, allowed: int) -> None:
        """A load was ended because it wanted more than `allowed` bytes: what was learned before is worth nothing."""
        self._taken.setdefault(key, {}).pop(pool, None)
        self.observe(key, pool, estimated, allowed)

    def offset_bytes(self, key: str, pool: str) -> int:
        """What the arithmetic misses of this key (negative: it says too much); 0 when nothing is known."""
        taken = self._taken.get(key, {}).get(pool)
        return median_high([t.observed - t.estimated for t in taken]) if taken else 0

    def apply(self, key: str, bytes_on: Mapping[str, int]) -> dict[str, int]:
        """The estimate as past loads teach it, by pool; unchanged when there were none."""
        return {
            pool: round(min(max(n_bytes + self.offset_bytes(key, pool), LEAST * n_bytes), MOST * n_bytes))
            for pool, n_bytes in bytes_on.items()
        }

    def error(self, key: str) -> dict[str, float]:
        """How far the plain arithmetic was off at the last load, by pool: 0.1 is a tenth too high, -0.1 too low."""
        last = {pool: taken[-1] for pool, taken in self._taken.get(key, {}).items() if taken}
        return {pool: (t.estimated - t.observed) / t.observed for pool, t in last.items() if t.observed}

    def to_builtins(self) -> dict[str, dict[str, list[list[int]]]]:
        """Fit for JSON: key -> pool -> [estimated, observed] of each load, oldest first."""
        return {
            key: {pool: [[t.estimated, t.observed] for t in taken] for pool, taken in by_pool.items()}
            for key, by_pool in self._taken.items()
        }

    @classmethod
    def from_builtins(cls, value: object) -> Corrections:
        """What `to_builtins` gave; anything else is as good as nothing."""
        corrections = cls()
        try:
            saved = msgspec.convert(value, _Saved)
        except msgspec.ValidationError:
            return corrections
        for key, by_pool in list(saved.items())[-N_KEYS:]:
            for pool, loads in by_pool.items():
                for estimated, observed in loads[-N_LOADS:]:
                    corrections.observe(key, pool, estimated, observed)
        return corrections
