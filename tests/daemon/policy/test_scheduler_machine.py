"""Events in any order that a Node could send them, against a book kept by hand: nobody is lost, doubled or starved."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from inferd.daemon.domain.decision import Cancel, Evict, Load, Preempt, Refuse, Reject, Start, Unload
from inferd.daemon.domain.errors import Code, InferdError
from inferd.daemon.domain.request import Job, Phase, Priority
from inferd.daemon.policy.audit import check_integrity
from inferd.daemon.policy.place import cells
from inferd.tests.daemon.policy.tools import FOREVER, add, job, scheduler

if TYPE_CHECKING:
    from inferd.daemon.domain.decision import Decision
    from inferd.daemon.policy.ledger import Reservation

SLOTS, CELLS, REQUESTS, TENANT_REQUESTS = 2, 200, 8, 6
MODELS = ["m", "other", "small", "twin"]
TWINS = ["twin@gpu0", "twin@gpu1"]
PLACES = [*MODELS[:3], *TWINS]
REFUSALS = {Code.QUEUE_FULL, Code.NO_ROOM, Code.MODEL_FAILED, Code.OVERLOADED}


class SchedulerMachine(RuleBasedStateMachine):
    @initialize(host_bytes=st.sampled_from([40, 60, 120, 200]), min_resident_s=st.sampled_from([0.0, 1.0]))
    def start(self, host_bytes: int, min_resident_s: float) -> None:
        self.it = scheduler(host_bytes, REQUESTS, TENANT_REQUESTS, min_resident_s=min_resident_s)
        add(self.it, "small", {"host": 10}, keep_alive_s=0.0)
        self.it.add_model("twin", 10.0, replicas=2)
        for gpu in ("gpu0", "gpu1"):
            self.it.rooms.ledger.add_pool(gpu, 60, 0)
            self.it.add_place("twin", f"twin@{gpu}", {gpu: 50, "host": 1})
        self.now_s = 0.0
        self.state = dict.fromkeys(self.it.places, "cold")
        self.held: dict[str, Reservation] = {}
        self.where: dict[Job, str] = {}  # waiting, running, parking, ending, over
        self.at: dict[Job, str] = {}  # the place that has it, or had it last
        self.leases: list[tuple[str, str]] = []
        self.n_leases = 0

    # the book

    def jobs(self, *where: str, model: str | None = None, place: str | None = None) -> list[Job]:
        found = [j for j, at in self.where.items() if at in where and model in (None, j.request.model)]
        return found if place is None else [j for j in found if self.at.get(j) == place]

    def loaded(self, model: str) -> list[str]:
        """Where."""
        return [p for p, state in self.state.items() if p.partition("@")[0] == model and state == "ready"]

    def carry_out(self, decisions: list[Decision]) -> None:
        for decision in decisions:
            self.carry_out_one(decision)

    def carry_out_one(self, decision: Decision) -> None:
        match decision:
            case Start(job=one, place=place):
                assert self.where[one] == "waiting"
                assert one.live
                assert one.prompt is not None
                assert place in self.loaded(one.request.model)
                self.where[one], self.at[one] = "running", place
            case Preempt(job=one):
                assert self.where[one] == "running"
                assert one.request.priority is not Priority.INTERACTIVE
                self.where[one] = "parking"
            case Cancel(job=one):
                assert one.request.supersede_key
                self.end(one)
            case Load(place=name):
                assert self.state[name] == "cold"
                self.held[name] = self.it.rooms.ledger.reserve(name, self.it.places[name].bytes_on)  # there is room
                self.state[name] = "loading"
            case Evict(place=name):
                assert self.state[name] == "ready"
                others = [other for other in self.loaded(name.partition("@")[0]) if other != name]
                assert not self.it.places[name].lane.leases or others
                self.evict(name)
            case Unload(place=name):
                assert self.state[name] == "ready"
                assert not self.jobs("waiting", model=name.partition("@")[0])
                assert not self.jobs("running", "parking", place=name)
                self.close(name)
            case Reject(job=one, error=error):
                assert self.where[one] == "waiting"
                assert error.code in REFUSALS
                self.where[one] = "over"
            case Refuse():
                pass

    def close(self, name: str) -> None:
        self.it.on_closed(name, FOREVER)
        self.state[name] = "closed"

    def evict(self, name: str) -> None:
        self.close(name)
        for one in self.jobs("running", place=name):
            self.where[one] = "parking"

    def end(self, one: Job) -> None:
        """Cancelled: a waiting one is out at once, a running one when its worker says so."""
        if one.live:
            one.move(Phase.CANCELLED)
        if self.where[one] == "waiting":
            self.where[one] = "over"
            self.carry_out(self.it.on_withdrawn(one, self.now_s))
        elif self.where[one] in ("running", "parking"):
            self.where[one] = "ending"

    def pick(self, data: st.DataObject, *where: str) -> Job:
        return data.draw(st.sampled_from(self.jobs(*where)))

    # requests

    @rule(
        model=st.sampled_from(MODELS),
        priority=st.sampled_from(Priority),
        tenant=st.sampled_from("xy"),
        n=st.none() | st.just(40),
        key=st.sampled_from(["", "", "", "k"]),
        deadline_ms=st.sampled_from([None, None, 50, 5000]),
    )
    def request(
        self, model: str, priority: Priority, tenant: str, n: int | None, key: str, deadline_ms: int | None
    ) -> None:
        new = job(priority, model, tenant, n, arrived_s=self.now_s, supersede_key=key, deadline_ms=deadline_ms)
        self.where[new] = "waiting"
        self.carry_out(self.it.on_request(new, self.now_s))

    @precondition(lambda self: any(j.prompt is None for j in self.jobs("waiting")))
    @rule(data=st.data(), n=st.integers(1, 200))
    def prepared(self, data: st.DataObject, n: int) -> None:
        unread = data.draw(st.sampled_from([j for j in self.jobs("waiting") if j.prompt is None]))
        unread.prompt = [1] * n
        self.carry_out(self.it.on_prepared(unread, self.now_s))

    @precondition(lambda self: self.jobs("waiting", "running", "parking"))
    @rule(data=st.data())
    def cancelled(self, data: st.DataObject) -> None:
        self.end(self.pick(data, "waiting", "running", "parking"))

    @precondition(lambda self: self.jobs("waiting", "running", "parking"))
    @rule(data=st.data(), priority=st.sampled_from(Priority))
    def moved(self, data: st.DataObject, priority: Priority) -> None:
        """An operator puts it into another class."""
        one = self.pick(data, "waiting", "running", "parking")
        if one.request.priority is not priority:
            self.carry_out(self.it.on_priority([one], priority, self.now_s))
            assert one.request.priority is priority

    @precondition(lambda self: self.jobs("running"))
    @rule(data=st.data(), cached_tokens=st.integers(0, 10))
    def told_of_its_start(self, data: st.DataObject, cached_tokens: int) -> None:
        self.it.on_started(self.pick(data, "running"), cached_tokens)

    @precondition(lambda self: self.jobs("running"))
    @rule(data=st.data(), n=st.integers(1, 50))
    def grown(self, data: st.DataObject, n: int) -> None:
        one = self.pick(data, "running")
        if not one.generated:
            self.it.on_first_token(one, self.now_s)
            one.first_token_s = self.now_s
        one.generated += [1] * n

    @precondition(lambda self: self.jobs("running", "parking", "ending"))
    @rule(data=st.data(), prefill_ms=st.floats(0, 1e4), decode_ms=st.floats(0, 1e4))
    def released(self, data: st.DataObject, prefill_ms: float, decode_ms: float) -> None:
        one = self.pick(data, "running", "parking", "ending")
        if self.where[one] != "ending":
            self.it.on_finished(one, prefill_ms, decode_ms, self.now_s)
        self.where[one] = "over"
        self.carry_out(self.it.on_released(one, self.now_s))

    @precondition(lambda self: self.jobs("parking"))
    @rule(data=st.data())
    def parked(self, data: st.DataObject) -> None:
        one = self.pick(data, "parking")
        self.where[one] = "waiting"
        self.carry_out(self.it.on_parked(one, self.now_s))

    # models

    @rule(model=st.sampled_from(MODELS))
    def load(self, model: str) -> None:
        if self.may_ask(model):
            self.carry_out(self.it.on_load(model, self.now_s))

    def may_ask(self, model: str) -> bool:
        """The Node refuses it while nothing can come of it."""
        return any(self.state[place.name] in ("cold", "loading", "ready") for place in self.it.lanes[model].places)

    @rule(place=st.sampled_from(PLACES))
    def ready(self, place: str) -> None:
        if self.state.get(place) == "loading":
            self.state[place] = "ready"
            self.carry_out(self.it.on_ready(place, SLOTS, CELLS, 0.2, self.now_s))

    @rule(place=st.sampled_from(PLACES))
    def drained(self, place: str) -> None:
        if self.state.get(place) in ("loading", "ready"):
            self.close(place)

    @rule(place=st.sampled_from(PLACES))
    def crashed(self, place: str) -> None:
        if self.state.get(place) in ("loading", "ready", "closed"):
            was_loading = self.state[place] == "loading"
            self.close(place)
            self.move_away(place)
            if was_loading:
                error = InferdError(Code.MODEL_FAILED, "x")
                self.carry_out(self.it.on_load_failed(place, error, self.now_s))

    def move_away(self, place: str) -> None:
        """What ran there goes on in another copy, or ends."""
        for gone in self.jobs("running", "parking", "ending", place=place):
            if self.where[gone] != "ending" and self.loaded(gone.request.model):
                self.where[gone] = "waiting"
                self.carry_out(self.it.on_parked(gone, self.now_s))
            else:
                self.where[gone] = "over"
                self.carry_out(self.it.on_released(gone, self.now_s))

    @rule(place=st.sampled_from(PLACES))
    def cold(self, place: str) -> None:
        if self.state.get(place) == "closed" and not self.jobs("running", "parking", "ending", place=place):
            self.it.rooms.ledger.release(self.held.pop(place))
            self.state[place] = "cold"
            self.carry_out(self.it.on_cold(place, self.now_s))

    @rule(place=st.sampled_from(TWINS))
    def lost(self, place: str) -> None:
        """Its device is gone, and its worker at once; the other place of the model is all it has from now on."""
        if place in self.state and len(self.it.lanes["twin"].places) == 2:
            self.close(place)
            for gone in self.jobs("running", "parking", "ending", place=place):
                over = self.where[gone] == "ending"
                self.where[gone] = "over" if over else "waiting"
                happens = self.it.on_released if over else self.it.on_parked
                self.carry_out(happens(gone, self.now_s))
            if place in self.held:
                self.it.rooms.ledger.release(self.held.pop(place))
            self.carry_out(self.it.on_freed(place, self.now_s))
            self.it.remove_place(place)
            del self.state[place]

    @rule(model=st.sampled_from(MODELS))
    def leased(self, model: str) -> None:
        if self.may_ask(model):
            self.n_leases += 1
            self.leases.append((model, f"l{self.n_leases}"))
            self.carry_out(self.it.on_lease(*self.leases[-1], self.now_s))

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def lease_ended(self, data: st.DataObject) -> None:
        lease = data.draw(st.sampled_from(self.leases))
        self.leases.remove(lease)
        self.carry_out(self.it.on_lease_ended(*lease, self.now_s))

    @rule(psi=st.sampled_from([0.0, 0.0, 15.0, 25.0, 45.0, 70.0]))
    def pressure(self, psi: float) -> None:
        self.carry_out(self.it.on_pressure(psi, self.now_s))

    @rule(step_s=st.sampled_from([0.0, 0.3, 1.0, 20.0, 100.0]))
    def tick(self, step_s: float) -> None:
        self.now_s += step_s
        self.carry_out(self.it.on_tick(self.now_s))

    # what always holds

    @invariant()
    def the_books_agree(self) -> None:
        check_integrity(self.it)
        for name, lane in self.it.lanes.items():
            assert set(lane.line) == set(self.jobs("waiting", model=name))
            assert set(lane.running) == set(self.jobs("running", "parking", "ending", model=name))
            assert all(ticket.parks <= 3 for p in lane.places for job, ticket in p.running.items() if job in p.parking)
        for name, place in self.it.places.items():
            assert set(place.running) == set(self.jobs("running", "parking", "ending", place=name))
            assert bool(place.slots) == (self.state[name] == "ready")
            assert place.loading == (self.state[name] == "loading")
            assert len(place.running) <= SLOTS

    @invariant()
    def nobody_waits_without_a_reason(self) -> None:
        for lane in self.it.lanes.values():
            pickable = [j for j in lane.line if lane.line.tickets[j].pickable]
            for place in (self.it.places[name] for name in self.loaded(lane.name)):
                full = len(place.running) == SLOTS
                assert not pickable or full or (place.running and max(map(cells, pickable)) > place.cells_free())
                assert (place.idle_since_s is None) == bool(lane.line or place.running or lane.leases)
            for waiting in lane.line:
                waiting.why = self.it.why(waiting, self.now_s)

    @invariant()
    def forecasts_are_numbers(self) -> None:
        for lane in self.it.lanes.values():
            for waiting in lane.line:
                eta = self.it.eta_ms(waiting, self.now_s)
                assert eta is None or 0 <= eta[0] <= eta[1] < 1e12

    def teardown(self) -> None:
        """Left alone, with every worker doing its work, everybody is served or told no, within the bounds."""
        if not hasattr(self, "it"):
            return
        for lease in list(self.leases):
            self.carry_out(self.it.on_lease_ended(*lease, self.now_s))
        for _ in range(400):
            if not self.jobs("waiting", "running", "parking", "ending"):
                break
            self.work()
            self.now_s += 1.0
            self.carry_out(self.it.on_pressure(0.0, self.now_s))
            self.carry_out(self.it.on_tick(self.now_s))
        assert not self.jobs("waiting", "running", "parking", "ending"), "somebody was never served"

    def work(self) -> None:
        """Each worker does the next thing that it owes."""
        for one in self.jobs("waiting"):
            if one.prompt is None and self.where[one] == "waiting":
                one.prompt = [1] * 5
                self.carry_out(self.it.on_prepared(one, self.now_s))
        for one in self.jobs("running", "parking", "ending"):
            one.generated += [1] * 20
            if len(one.generated) >= 60 or self.where[one] == "ending":
                self.where[one] = "over"
                self.carry_out(self.it.on_released(one, self.now_s))
        for one in self.jobs("parking"):
            self.where[one] = "waiting"
            self.carry_out(self.it.on_parked(one, self.now_s))
        for place in PLACES:
            self.ready(place)
            self.cold(place)


TestSchedulerMachine = SchedulerMachine.TestCase
TestSchedulerMachine.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
