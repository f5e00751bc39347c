"""Dynamic batching, in Triton's terms: which of the requests that wait share the next call, and whether to wait.

Pure: the time comes in, the choice goes out. Who is served first is given by rank, then by deadline, then by arrival;
that one leads, and only those that fit its call join it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .costs import bucket_of

if TYPE_CHECKING:
    from collections.abc import Hashable

    from ..facts import Batching
    from .costs import Costs


CALL_TOKENS = 4096  # of one call, unless a single request has more: its tensors are part of a model's price


@dataclass(slots=True, eq=False)
class Item:
    """What goes into a call as a whole: a request for tensors, or one input of a request with several."""

    owner: Any
    n_rows: int
    kind: Hashable  # only equals share a call
    part: int = 0  # which of the owner's inputs
    length: int = 0  # of its rows, along the axis that may be padded; 0: it has none
    rank: int = 0
    due_s: float = float("inf")
    came_s: float = 0.0
    serial: int = field(default=0, init=False)
    bucket: int = field(init=False)

    def __post_init__(self) -> None:
        self.bucket = bucket_of(self.length)


class Window:
    def __init__(self, rules: Batching) -> None:
        self.rules = rules
        self._items: list[Item] = []
        self._n_seen = 0

    def __len__(self) -> int:
        return len(self._items)

    def add(self, item: Item) -> None:
        if not item.serial:  # one that comes again has its old place
            self._n_seen += 1
            item.serial = self._n_seen
        self._items.append(item)

    def remove(self, owner: object) -> list[Item]:
        """Those of one owner that were not chosen yet."""
        gone = [item for item in self._items if item.owner is owner]
        self._items = [item for item in self._items if item.owner is not owner]
        return gone

    def mates(self) -> list[Item]:
        """Who leads the next call, and those who could join, in order; [] when nobody waits."""
        if not self._items:
            return []
        ordered = sorted(self._items, key=self._turn)
        lead = ordered[0]
        mates = [item for item in ordered if item.kind == lead.kind and item.bucket == lead.bucket]
        return self._unbroken(ordered, mates) if self.rules.preserve_ordering else mates

    def choose(self, mates: list[Item], now_s: float, costs: Costs, n_lanes: int = 1) -> tuple[list[Item], float]:
        """The items of the next call, which are no longer here; or none, and until when to wait for more.

        `mates`: as that said, not empty. `costs`: what such calls take. `n_lanes`: so many can begin now, so that what
        waits is shared out among them.
        """
        lead = mates[0]
        n_waiting, most = sum(item.n_rows for item in mates), self._max_rows(lead)
        until_s = self._until_s(mates)
        if n_waiting < self._worth_waiting(lead, most, costs) and now_s < until_s:
            return [], until_s
        n_share = min(most, max(lead.n_rows, -(-n_waiting // n_lanes)))
        chosen, n_left = [lead], self._n_rows(lead, n_share, costs) - lead.n_rows
        for item in mates[1:]:
            if item.n_rows <= n_left:
                chosen.append(item)
                n_left -= item.n_rows
            elif self.rules.preserve_ordering:
                break
        taken = set(map(id, chosen))
        self._items = [item for item in self._items if id(item) not in taken]
        return chosen, now_s

    def _turn(self, item: Item) -> tuple[float, float, int]:
        return (0, 0, item.serial) if self.rules.preserve_ordering else (-item.rank, item.due_s, item.serial)

    def _unbroken(self, ordered: list[Item], mates: list[Item]) -> list[Item]:
        """The first of those in order that are all alike: nobody is overtaken."""
        n = next((i for i, pair in enumerate(zip(ordered, mates, strict=False)) if pair[0] is not pair[1]), len(mates))
        return mates[:n]

    def _worth_waiting(self, lead: Item, most: int, costs: Costs) -> int:
        """Rows that a request is delayed for: the smallest preferred size, or what was measured to be best."""
        if not self.rules.max_queue_delay_microseconds or most <= 1:
            return 0
        preferred = [size for size in self.rules.preferred_batch_size if size <= most]
        return min(preferred) if preferred else costs.worth_waiting(lead.bucket, most)

    def _n_rows(self, lead: Item, n_waiting: int, costs: Costs) -> int:
        """Rows of the call: the largest preferred size that can be had, else what was measured to be best."""
        preferred = [size for size in self.rules.preferred_batch_size if size <= n_waiting]
        if self.rules.preferred_batch_size:
            return max(preferred, default=n_waiting)
        return costs.best_rows(lead.bucket, n_waiting) if n_waiting > 1 else lead.n_rows

    def _max_rows(self, lead: Item) -> int:
        """Of a call: as the plan says, but of long texts no more than there is memory for."""
        if not lead.bucket:
            return self.rules.max_batch_size
        return min(self.rules.max_batch_size, max(1, CALL_TOKENS // lead.bucket))

    def _until_s(self, mates: list[Item]) -> float:
        """The end of the delay: of the one that has waited longest, and before anybody's deadline."""
        delay_s = self.rules.max_queue_delay_microseconds / 1e6
        return min(*(item.came_s + delay_s for item in mates), *(item.due_s - delay_s for item in mates), float("inf"))
