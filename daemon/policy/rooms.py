"""Memory for models that are wanted: load at once, have others make way, wait, or say that it can never fit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...backends.facts import HOST
from ..domain.decision import Evict, Load
from ..domain.errors import Code, InferdError
from ..domain.request import Priority
from .journal import Record
from .ledger import Shortfall
from .line import RANK
from .placing import Option, PlaceQuestion
from .placing import place as choose
from .residency import EvictQuestion, Holder, evict, reuse_probability, shortage

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ..domain.config import Turns
    from ..domain.decision import Decision
    from .journal import Journal
    from .lane import Lane
    from .ledger import Ledger
    from .place import Place

START_S = 0.4  # of a load nobody has measured yet: a process and its libraries
BYTES_PER_S = 500e6  # and then its weights
LEAD_S = 1.0  # a swap begins so much before the wait is over, beside the load: parking, the end of a process
PREFILL_MS = 5.0  # of a prompt token nobody has measured yet
NEVER = ("pinned",)
SHOWN = 64  # of those who wait for a swap, in its record


class NoRoom(Exception):
    """Not even with everything gone that may go."""

    def __init__(self, short: Shortfall) -> None:
        super().__init__(str(short))
        self.short = short


class Rooms:
    """Which model is in memory, and where. The scheduler asks for one lane at a time."""

    def __init__(self, ledger: Ledger, lanes: Mapping[str, Lane], options: Turns, journal: Journal) -> None:
        self.ledger = ledger
        self.lanes = lanes
        self.journal = journal
        self.take_options(options)

    def take_options(self, options: Turns) -> None:
        """As the config has them now."""
        self.options = options
        self.max_wait_s: dict[Priority, float] = {p: getattr(options, p.value).max_wait_s for p in Priority}

    def places(self) -> Iterator[Place]:
        """Of all models."""
        return (place for lane in self.lanes.values() for place in lane.places)

    def claim(self, lane: Lane, now_s: float) -> list[Decision]:
        """What brings a lane nearer to being loaded; [] when it has to wait. Raises NoRoom."""
        if any(place.granted for place in lane.places):
            return []  # those that make way for it are on their way out
        question = self.options_of(lane, now_s)
        place = self.choose(lane, question, now_s)
        if place is None:
            if len(question.options) == len(lane.places):  # else a place that drains may do
                self.check_possible(question)
            return []
        room = next(option.room for option in question.options if option.place == place.name)
        victims = evict(room) or ()
        if victims:
            self._note(lane, room, victims, now_s)
        if victims or not self.fits_now(place):
            # What drains is promised to it, too, or the next one who asks would take it.
            place.granted = set(victims) | self._draining(place, now_s)
            for victim in self.places():
                victim.leaving = victim.leaving or (victim.name in victims and victim.slots > 0)
            return [Evict(name, lane.name) for name in victims]
        place.loading = True
        return [Load(place.name)]

    def claim_another(self, lane: Lane, now_s: float) -> list[Decision]:
        """One more copy of a model that is loaded: it takes what is free, and nobody makes way for it."""
        question = self.options_of(lane, now_s)
        free = tuple(option for option in question.options if option.fits_now)
        place = self.choose(lane, PlaceQuestion(lane.name, free), now_s)
        if place is None:
            return []
        place.loading = True
        return [Load(place.name)]

    def options_of(self, lane: Lane, now_s: float) -> PlaceQuestion:
        """Where the lane could be loaded as things are now. Changes nothing."""
        able = [place for place in lane.places if not place.up and place.closed_until_s <= now_s]
        options = (Option(place.name, self.question(place, now_s), self.fits_now(place)) for place in able)
        return PlaceQuestion(lane.name, tuple(options))

    def choose(self, lane: Lane, question: PlaceQuestion, now_s: float) -> Place | None:
        """The rule's answer, recorded where there was a choice."""
        chosen = choose(question)
        if chosen is not None and len(lane.places) > 1:
            concerned = tuple(job.id for job in lane.line.order()[:SHOWN])
            self.journal.note(Record(now_s, "place", concerned, lane.name, question, chosen))
        return next((place for place in lane.places if place.name == chosen), None)

    def question(self, place: Place, now_s: float) -> EvictQuestion:
        """Room in this place as things are now; what drains counts as free. Changes nothing."""
        holders = (self._holder(place, other, now_s) for other in self.places() if other is not place)
        held = [holder for holder in holders if holder.bytes_on]
        free = {}
        need = self._need(place)
        for pool in need:
            draining = sum(holder.bytes_on.get(pool, 0) for holder in held if holder.stays == "draining")
            free[pool] = self._free_bytes(place, pool) + draining
        stay = tuple(holder for holder in held if holder.stays != "draining")
        return EvictQuestion(place.name, need, free, stay)

    def _need(self, place: Place) -> dict[str, int]:
        """What a load takes, with the process that reads its prompts where that is still to come."""
        need, lane = dict(place.bytes_on), place.lane
        if lane.line.unread and not self.ledger.helpers_of(lane.name):
            need[HOST] = need.get(HOST, 0) + lane.helper_bytes
        return need

    def _draining(self, place: Place, now_s: float) -> set[str]:
        others = (other for other in self.places() if other is not place)
        return {other.name for other in others if self._stays(place, other, now_s) == "draining"}

    def fits_now(self, place: Place) -> bool:
        """Whether the bytes are free this moment."""
        return all(n_bytes <= self._free_bytes(place, pool) for pool, n_bytes in self._need(place).items())

    def wake_s(self, lane: Lane, now_s: float) -> float | None:
        """When waiting alone will change the answer for this lane."""
        since_s = lane.wanted_since_s()
        if since_s is None or any(place.up for place in lane.places):
            return None
        times = [since_s + self._patience_s(lane)]
        times += [at_s(other) for other in self.places() if other.slots for at_s in (self._settled_s, self._earned_s)]
        return min((time_s for time_s in times if time_s > now_s), default=None)

    def _free_bytes(self, place: Place, pool: str) -> int:
        """Headroom, without what was promised to others that have not reserved it yet."""
        if pool not in self.ledger.pools:
            return 0
        return self.ledger.headroom_bytes(pool) - self._promised_bytes(place, pool)

    def _promised_bytes(self, place: Place, pool: str) -> int:
        others = (other for other in self.places() if other is not place)
        reserved = self.ledger.reservations
        waiting = (o for o in others if o.granted or (o.loading and o.name not in reserved))
        return sum(other.bytes_on.get(pool, 0) for other in waiting)

    def _holder(self, place: Place, other: Place, now_s: float) -> Holder:
        # A spare copy costs nobody anything but speed.
        cost = 0.0 if self._spare(other) else self.reload_s(other) * reuse_probability(other.lane.uses_per_s(now_s))
        return Holder(other.name, self._held(other), cost, self._stays(place, other, now_s))

    def _spare(self, place: Place) -> bool:
        """Its model is loaded in a place before it, too, and stays there."""
        before = place.lane.places[: place.lane.places.index(place)]
        return any(other.slots and not other.leaving for other in before)

    @staticmethod
    def keeps_helper(place: Place) -> bool:
        """Whether the helper that reads the model's prompts counts with this place, and goes with it."""
        places = place.lane.places
        return place is next((other for other in places if other.slots), places[0])

    def _held(self, place: Place) -> dict[str, int]:
        """By pool."""
        helpers = self.ledger.helpers_of(place.lane.name) if self.keeps_helper(place) else []
        held: dict[str, int] = {}
        for owner in (place.name, *helpers):
            for pool, n_bytes in self.ledger.bytes_of(owner).items():
                held[pool] = held.get(pool, 0) + n_bytes
        return held

    def _stays(self, place: Place, other: Place, now_s: float) -> str:
        """Why `other` does not make way for `place` now, or ''."""
        if other.lane.pinned:
            return "pinned"
        spare = self._spare(other)
        if other.lane.leases and not spare:
            return "leased"
        if any(other.name in third.granted for third in self.places()):
            return "draining"
        if other.loading:
            return "loading"
        if not other.slots:  # it is on its way out, or holds no more than a prompt helper
            return "draining" if other.closed_until_s > now_s and other.name in self.ledger.reservations else ""
        if now_s < self._settled_s(other):
            return "young"
        asked = other.lane.leases or other.lane.asked_s is not None
        theirs = 0 if asked and not spare else other.lane.rank_of(other.running)
        if theirs is None:
            return ""
        mine = place.lane.highest_rank() or 0
        if mine < theirs or (spare and mine == theirs):
            return ""
        # Who has waited out its patience asks in the highest class; who had its turn lets the others have theirs.
        turn_is_over = now_s >= self._earned_s(other) or not place.lane.had_its_turn()
        return "" if self._waited_out(place.lane, now_s) and turn_is_over else "busy"

    def stays_until_s(self, lane: Lane, other: Place) -> float | None:
        """When a busy or young model makes way for a lane at the latest, if it makes room; None: nobody waits there."""
        since_s = lane.wanted_since_s()
        if since_s is None:
            return None
        earned_s = self._earned_s(other) if lane.had_its_turn() else 0.0
        return max(since_s + self._patience_s(lane), self._settled_s(other), earned_s)

    def _settled_s(self, other: Place) -> float:
        """Until when a model stays at least: what it runs has computed its prompts again, and as long once more.

        Without this two models with long prompts would swap for ever, and neither would get beyond its prompts.
        """
        prefill_ms = other.lane.pace.prefill_ms.value
        if prefill_ms is None:
            prefill_ms = PREFILL_MS
        longest = max((ticket.start_tokens for ticket in other.running.values()), default=0)
        return other.ready_s + max(self.options.min_resident_s, 2 * longest * prefill_ms / 1e3)

    def _earned_s(self, other: Place) -> float:
        """Until when a busy model keeps its memory from its equals: it works at least as long as its load took."""
        return other.ready_s + self.reload_s(other)

    def _waited_out(self, lane: Lane, now_s: float) -> bool:
        if any(place.closed_until_s > now_s and place.name in self.ledger.reservations for place in lane.places):
            return False  # the wait of a model that makes way begins when it has gone cold
        since_s = lane.wanted_since_s()
        return since_s is not None and now_s >= since_s + self._patience_s(lane)

    def _patience_s(self, lane: Lane) -> float:
        """How long a lane waits for others to become idle: its class's bound, less what the swap itself takes.

        But at least as long as a load, so that models that take long to load are in use at least half of the time.
        """
        rank = lane.highest_rank() or 0
        priority = next(p for p in Priority if RANK[p] == rank)
        reload_s = min(self.reload_s(place) for place in lane.places)
        return max(self.max_wait_s[priority] - LEAD_S - reload_s, reload_s)

    def reload_s(self, place: Place) -> float:
        """How long a load takes: as measured, else by its size."""
        measured = place.lane.pace.load_s.value
        return START_S + sum(place.bytes_on.values()) / BYTES_PER_S if measured is None else measured

    def check_possible(self, question: PlaceQuestion) -> None:
        """Raises NoRoom unless it would fit somewhere if all made way who ever may."""
        shorts = [self.short_for_ever(option) for option in question.options]
        if shorts and all(shorts):
            raise NoRoom(next(short for short in shorts if short))

    def short_for_ever(self, option: Option) -> Shortfall | None:
        """What this place lacks even if all made way who ever may."""
        room = option.room
        (place,) = (place for place in self.places() if place.name == option.place)
        for pool, n_bytes in shortage(room.need, room.free).items():
            may_go = sum(h.bytes_on.get(pool, 0) for h in room.holders if h.stays not in NEVER)
            may_go += self._promised_bytes(place, pool)
            if may_go < n_bytes:
                need = room.need[pool]
                return Shortfall(pool, need, max(0, need - n_bytes + may_go))
        return None

    def _note(self, lane: Lane, question: EvictQuestion, victims: tuple[str, ...], now_s: float) -> None:
        """For those who wait for it, and for those who lose their slots."""
        losers = (job.id for place in self.places() if place.name in victims for job in place.running)
        concerned = (*(job.id for job in lane.line.order()[:SHOWN]), *losers)
        self.journal.note(Record(now_s, "evict", concerned, lane.name, question, victims))


def no_room(model: str, short: Shortfall) -> InferdError:
    """The refusal that names both numbers."""
    where = "memory" if short.pool == "host" else f"memory on {short.pool}"
    message = (
        f"{model} needs {short.needed_bytes / 2**20:,.0f} MiB of {where}, "
        f"but only {short.free_bytes / 2**20:,.0f} MiB are free"
    )
    return InferdError(
        Code.NO_ROOM,
        message,
        pool=short.pool,
        needed_bytes=short.needed_bytes,
        free_bytes=short.free_bytes,
        retry_after_ms=5000,
    )
