"""The processor cores among the workers that compute: threads that have no core of their own cost more than they give.

A kernel runs on all threads of a worker, which wait for each other after every one of them. Two workers with a thread
for every core each are so far slower than two with half the threads (measured on two cores, 24 tokens of a 0.5 B model
on each of two workers: 44 s against 3.3 s).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


def share(wanted: Mapping[str, int], n_cores: int, n_fixed: int = 0) -> dict[str, int]:
    """Threads for each of those that compute, by what each would use alone: at least one, and no more than it wants.

    The cores are dealt out one at a time to whoever has the smallest part of what it wants; `n_fixed` threads belong to
    workers that keep theirs whatever happens.
    """
    if not wanted or (len(wanted) == 1 and not n_fixed):
        return dict(wanted)  # what its owner set, be it more than there are
    given = dict.fromkeys(wanted, 1)
    for _ in range(n_cores - n_fixed - len(wanted)):
        name = min(wanted, key=lambda one: given[one] / wanted[one])
        given[name] = min(given[name] + 1, wanted[name])
    return given
