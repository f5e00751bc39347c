"""Who holds which bytes.

headroom(d) = capacity(d) - margin(d) - foreign(d) - sum_i max(booked_i(d), observed_i(d)),
foreign(d)  = used(d) - sum_i observed_i(d): what others use, counted once, and loading models not lost.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class Shortfall(Exception):
    """A pool cannot take this much more."""

    def __init__(self, pool: str, needed_bytes: int, free_bytes: int) -> None:
        super().__init__(f"{pool} needs {needed_bytes} bytes and has {free_bytes}")
        self.pool = pool
        self.needed_bytes = needed_bytes
        self.free_bytes = free_bytes


@dataclass(frozen=True, slots=True)
class Reservation:
    """Bytes per pool that an owner holds, from before its process is made until after it is reaped."""

    owner: str
    bytes_on: Mapping[str, int]

    @property
    def total_bytes(self) -> int:
        return sum(self.bytes_on.values())


@dataclass(slots=True)
class Pool:
    """Memory of one kind: host RAM or a device. All figures in bytes."""

    name: str
    capacity: int
    margin: int
    budget: int | None = None  # the most that models may take of it
    used: int = 0  # by everybody, as last read
    observed: dict[str, int] = field(default_factory=dict)  # by owner, as last read

    @property
    def usable_bytes(self) -> int:
        """That models could have if nobody else used any."""
        usable = self.capacity - self.margin
        return usable if self.budget is None else min(usable, self.budget)

    @property
    def foreign(self) -> int:
        return max(0, self.used - sum(self.observed.values()))


class Ledger:
    """All pools and all reservations. Plain rules: readings come in as arguments."""

    def __init__(self) -> None:
        self.pools: dict[str, Pool] = {}
        self.reservations: dict[str, Reservation] = {}
        self.held: dict[str, int] = {}  # owner -> pid, of those whose process cannot be ended
        self._serial = itertools.count(1)

    def add_pool(self, name: str, capacity_bytes: int, margin_bytes: int, budget_bytes: int | None = None) -> None:
        self.pools[name] = Pool(name, capacity_bytes, margin_bytes, budget_bytes)

    def observe(self, name: str, used_bytes: int, by_owner: Mapping[str, int] | None = None) -> None:
        """Take in a reading of a pool; owners that hold nothing are somebody else's processes."""
        pool = self.pools[name]
        pool.used = used_bytes
        before = pool.observed
        pool.observed = {o: n for o, n in (by_owner or {}).items() if o in self.reservations}
        for owner in self.held:  # one that is dead but for some threads shows no memory any more
            pool.observed[owner] = max(pool.observed.get(owner, 0), before.get(owner, 0))

    def observed(self) -> dict[str, dict[str, int]]:
        """Bytes as last read: owner -> pool -> bytes."""
        seen: dict[str, dict[str, int]] = {}
        for name, pool in self.pools.items():
            for owner, n_bytes in pool.observed.items():
                seen.setdefault(owner, {})[name] = n_bytes
        return seen

    def booked_bytes(self, name: str) -> int:
        return sum(r.bytes_on.get(name, 0) for r in self.reservations.values())

    def bytes_of(self, owner: str) -> dict[str, int]:
        """What an owner holds by pool."""
        reservation = self.reservations.get(owner)
        return dict(reservation.bytes_on) if reservation else {}

    def helpers_of(self, model: str) -> list[str]:
        """The owners that read a model's prompts; they are named after it."""
        return [owner for owner in self.reservations if owner.startswith(f"{model}/")]

    def headroom_bytes(self, name: str) -> int:
        """What the pool can still give; negative when it is overdrawn."""
        pool = self.pools[name]
        # Booked bytes may not be visible in a reading yet, so each owner counts with the larger figure.
        ours = sum(max(r.bytes_on.get(name, 0), pool.observed.get(r.owner, 0)) for r in self.reservations.values())
        free = pool.capacity - pool.margin - pool.foreign - ours
        return free if pool.budget is None else min(free, pool.budget - ours)

    def shortfall(self, bytes_on: Mapping[str, int]) -> Shortfall | None:
        """The first pool that cannot take this, or None when all can. Changes nothing."""
        for name, n_bytes in bytes_on.items():
            free_bytes = max(0, self.headroom_bytes(name)) if name in self.pools else 0
            if n_bytes > free_bytes:
                return Shortfall(name, n_bytes, free_bytes)
        return None

    def reserve(self, owner: str, bytes_on: Mapping[str, int]) -> Reservation:
        """Hold the bytes for `owner`, all or nothing. Raises Shortfall."""
        if owner in self.reservations:
            raise AssertionError(f"{owner} holds a reservation already")
        if (short := self.shortfall(bytes_on)) is not None:
            raise short
        reservation = Reservation(owner, dict(bytes_on))
        self.reservations[owner] = reservation
        return reservation

    def release(self, reservation: Reservation) -> None:
        """Give the bytes back, once."""
        if self.reservations.get(reservation.owner) is not reservation:
            raise AssertionError(f"{reservation.owner} does not hold this reservation")
        del self.reservations[reservation.owner]
        self.held.pop(reservation.owner, None)
        for pool in self.pools.values():
            if (gone := pool.observed.pop(reservation.owner, 0)) > 0:
                pool.used = max(0, pool.used - gone)

    def hold(self, reservation: Reservation, pid: int) -> Reservation:
        """Its process cannot be ended: the bytes are taken, and no model's, until the new reservation is released."""
        held = Reservation(f"!held-{next(self._serial)}", reservation.bytes_on)  # no model is called so
        del self.reservations[reservation.owner]
        self.reservations[held.owner], self.held[held.owner] = held, pid
        for pool in self.pools.values():
            if reservation.owner in pool.observed:
                pool.observed[held.owner] = pool.observed.pop(reservation.owner)
        return held
