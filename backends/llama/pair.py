"""A model with a smaller one beside it that guesses its tokens: how that one is loaded, and what both take."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ..facts import HOST, Footprint

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..facts import LoadPlan


def draft_plan(plan: LoadPlan) -> LoadPlan:
    """How the smaller one is loaded: as many cells for the same slots, and all of it where anything is offloaded.

    Its own last bits do not matter, so its cells may always be shared and its weights repacked.
    """
    assert plan.draft is not None
    return msgspec.structs.replace(
        plan,
        path=plan.draft.path,
        draft=None,
        adapters=(),
        n_draft=0,
        n_gpu_layers=-1 if plan.n_gpu_layers else 0,
        kv_layout="unified",
        numerics="fast",
        cache_bytes=0,
    )


def together(large: Footprint, small: Footprint, once_on: Mapping[str, int], once_file_bytes: int) -> Footprint:
    """Both in one process. `once_on`: bytes of the process itself by pool, which are in both."""
    bytes_on = dict(large.bytes_on)
    for pool, n_bytes in small.bytes_on.items():
        bytes_on[pool] = bytes_on.get(pool, 0) + n_bytes - once_on.get(pool, 0)
    once_anon_bytes = once_on.get(HOST, 0) - once_file_bytes
    return Footprint(
        bytes_on=bytes_on,
        weights_bytes=large.weights_bytes + small.weights_bytes,
        kv_bytes=large.kv_bytes + small.kv_bytes,
        compute_bytes=large.compute_bytes + small.compute_bytes - sum(once_on.values()),
        host_anon_bytes=large.host_anon_bytes + small.host_anon_bytes - once_anon_bytes,
        host_file_bytes=large.host_file_bytes + small.host_file_bytes - once_file_bytes,
        host_late_bytes=large.host_late_bytes + small.host_late_bytes,
    )
