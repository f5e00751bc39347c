"""Whose turn it is. First single rules, one test each; then any history of events against a book kept by hand."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from inferd.backends.messages import SamplingParams
from inferd.daemon.domain.decision import Load, Reject, Start, Unload
from inferd.daemon.domain.errors import Code, InferdError
from inferd.daemon.domain.request import Job, Priority, Request
from inferd.daemon.policy.ledger import Ledger, Reservation
from inferd.daemon.policy.scheduler import HEADROOM_TOKENS, Scheduler, cells, no_room, order

if TYPE_CHECKING:
    from inferd.daemon.domain.decision import Decision

CHAT, NORMAL, BATCH = Priority.INTERACTIVE, Priority.NORMAL, Priority.BATCH
FOREVER = math.inf
ids = itertools.count()


def job(priority: Priority = NORMAL, model: str = "m", tenant: str = "t", n_prompt: int | None = 10) -> Job:
    """A job that is prepared, unless `n_prompt` is None."""
    n = next(ids)
    request = Request(f"r{n}", model, SamplingParams(max_tokens=8), priority, tenant, prompt="x")
    prompt = None if n_prompt is None else [1] * n_prompt
    return Job(request, arrived_s=0.0, arrival=n, prompt=prompt, max_tokens=100)


def scheduler(host_bytes: int = 100, max_requests: int = 100, per_tenant: int = 100) -> Scheduler:
    """One machine with room for two of the models `m` and `other` take 50 bytes each."""
    ledger = Ledger()
    ledger.add_pool("host", host_bytes, 0)
    it = Scheduler(ledger, max_requests, per_tenant)
    it.add_model("m", {"host": 50}, keep_alive_s=10.0)
    it.add_model("other", {"host": 50}, keep_alive_s=-1.0)
    return it


def ready(slots: int = 1, kv_cells: int = 10_000, **options: int) -> Scheduler:
    it = scheduler(**options)
    assert it.on_load("m", 0.0) == [Load("m")]
    assert it.on_ready("m", slots, kv_cells, 0.0) == []
    return it


def rejected(decisions: list[Decision]) -> list[tuple[Job, Code]]:
    assert all(isinstance(decision, Reject) for decision in decisions)
    return [(decision.job, decision.error.code) for decision in decisions if isinstance(decision, Reject)]


# order


def test_a_ready_model_starts_a_prepared_job_at_once() -> None:
    it, first = ready(), job()
    assert it.on_request(first, 1.0) == [Start(first)]


def test_a_job_waits_until_a_slot_is_free() -> None:
    it, first, second = ready(), job(), job()
    it.on_request(first, 1.0)
    assert it.on_request(second, 1.0) == []
    assert it.why(second) == "slot"
    assert it.on_released(first, 2.0) == [Start(second)]


def test_interactive_starts_before_normal_and_normal_before_batch() -> None:
    it, busy = ready(), job()
    batch, normal, chat = job(BATCH), job(NORMAL), job(CHAT)
    for waiting in (busy, batch, normal, chat):
        it.on_request(waiting, 1.0)
    assert it.on_released(busy, 2.0) == [Start(chat)]
    assert it.on_released(chat, 3.0) == [Start(normal)]
    assert it.on_released(normal, 4.0) == [Start(batch)]


def test_inside_a_class_the_first_that_came_starts_first() -> None:
    it, busy = ready(), job(CHAT)
    line = [job(BATCH) for _ in range(5)]
    for waiting in (busy, *line):
        it.on_request(waiting, 1.0)
    started = [busy]
    for _ in line:
        (decision,) = it.on_released(started[-1], 2.0)
        assert isinstance(decision, Start)
        started.append(decision.job)
    assert started[1:] == line


def test_the_ticket_is_taken_at_arrival_and_not_when_the_prompt_is_read() -> None:
    it, busy, early, late = ready(), job(), job(n_prompt=None), job(n_prompt=None)
    for waiting in (busy, early, late):
        it.on_request(waiting, 1.0)
    late.prompt, early.prompt = [1], [1]
    assert it.on_prepared(late, 2.0) == []
    assert it.on_released(busy, 3.0) == [Start(early)]


def test_a_job_whose_prompt_is_not_read_holds_nobody_back() -> None:
    it, unread, read = ready(), job(CHAT, n_prompt=None), job(BATCH)
    assert it.on_request(unread, 1.0) == []
    assert it.why(unread) == "prompt"
    assert it.on_request(read, 1.0) == [Start(read)]


def test_a_parked_job_goes_back_to_its_old_place() -> None:
    it, first, second = ready(), job(), job()
    it.on_request(first, 1.0)
    it.on_request(second, 1.0)
    assert it.on_parked(first, 2.0) == [Start(first)]
    assert it.position(second) == 0


def test_one_that_was_withdrawn_is_not_started() -> None:
    it, busy, gone, next_one = ready(), job(), job(), job()
    for waiting in (busy, gone, next_one):
        it.on_request(waiting, 1.0)
    assert it.on_withdrawn(gone, 2.0) == []
    assert it.on_released(busy, 3.0) == [Start(next_one)]


# cells


def test_a_job_waits_for_kv_cells_and_holds_back_its_juniors() -> None:
    it = ready(slots=4, kv_cells=200)
    running, big, small = job(n_prompt=100), job(n_prompt=100), job(n_prompt=1)
    assert it.on_request(running, 1.0) == [Start(running)]
    assert it.on_request(big, 1.0) == []
    assert it.why(big) == "memory"
    assert it.on_request(small, 1.0) == []
    assert it.on_released(running, 2.0) == [Start(big), Start(small)]


def test_a_job_alone_may_take_what_it_needs() -> None:
    it, huge = ready(kv_cells=50), job(n_prompt=50)
    assert it.on_request(huge, 1.0) == [Start(huge)]


def test_cells_are_the_prompt_what_came_so_far_and_a_little_ahead() -> None:
    it = job(n_prompt=10)
    it.generated = [1, 2, 3]
    assert cells(it) == 13 + HEADROOM_TOKENS
    it.max_tokens = 5
    assert cells(it) == 13 + 5


# limits


def test_a_full_queue_refuses_and_says_when_to_come_back() -> None:
    it, refused = scheduler(max_requests=2), job()
    it.on_request(job(), 1.0)
    it.on_request(job(model="other"), 1.0)
    (decision,) = it.on_request(refused, 1.0)
    assert isinstance(decision, Reject)
    assert decision.error.code is Code.QUEUE_FULL
    assert decision.error.retry_after_ms is not None
    assert decision.error.details == {"waiting": 2, "limit": 2}


def test_one_tenant_cannot_fill_the_queue_of_others() -> None:
    it = scheduler(per_tenant=1)
    it.on_request(job(tenant="greedy"), 1.0)
    greedy = job(tenant="greedy")
    assert rejected(it.on_request(greedy, 1.0)) == [(greedy, Code.QUEUE_FULL)]
    assert it.on_request(job(tenant="modest"), 1.0) == []


def test_running_jobs_do_not_count_as_waiting() -> None:
    it = ready(max_requests=1)
    it.on_request(job(), 1.0)
    assert it.on_request(job(), 1.0) == []


# loading


def test_the_first_request_loads_its_model_once() -> None:
    it = scheduler()
    first = job(n_prompt=None)
    assert it.on_request(first, 1.0) == [Load("m")]
    assert it.on_request(job(), 1.0) == []
    assert it.on_load("m", 1.0) == []
    assert it.why(first) == "prompt"


def test_those_who_waited_start_when_the_model_is_ready() -> None:
    it, batch, chat = scheduler(), job(BATCH), job(CHAT)
    it.on_request(batch, 1.0)
    it.on_request(chat, 1.0)
    assert it.why(batch) == "load"
    assert it.on_ready("m", 1, 1000, 2.0) == [Start(chat)]


def test_a_model_that_does_not_fit_is_refused_with_both_numbers() -> None:
    it, first = scheduler(host_bytes=40), job()
    (decision,) = it.on_request(first, 1.0)
    assert isinstance(decision, Reject)
    assert decision.error.code is Code.NO_ROOM
    assert decision.error.details == {"pool": "host", "needed_bytes": 50, "free_bytes": 40}
    assert it.lanes["m"].waiting == []


def test_a_model_that_does_not_load_serves_none_who_wait() -> None:
    it, jobs = scheduler(), [job(), job(n_prompt=None)]
    for waiting in jobs:
        it.on_request(waiting, 1.0)
    it.on_closed("m", FOREVER)
    assert rejected(it.on_load_failed("m", InferdError(Code.MODEL_CORRUPT, "x"))) == [
        (waiting, Code.MODEL_CORRUPT) for waiting in jobs
    ]


def test_a_closed_model_starts_nothing_and_is_loaded_again_for_those_who_wait() -> None:
    it, running, waits = ready(), job(), job()
    it.on_request(running, 1.0)
    it.on_closed("m", FOREVER)
    assert it.on_request(waits, 2.0) == []
    assert it.on_released(running, 3.0) == []
    assert it.on_cold("m", 4.0) == [Load("m")]


def test_a_model_nobody_waits_for_stays_cold() -> None:
    it = ready()
    it.on_closed("m", FOREVER)
    assert it.on_cold("m", 1.0) == []


def test_a_changed_model_may_not_be_in_use() -> None:
    it = ready()
    with pytest.raises(AssertionError):
        it.add_model("m", {"host": 1}, 1.0)


# keep-alive


def test_an_idle_model_is_unloaded_after_its_keep_alive_and_not_before() -> None:
    it = ready()
    assert it.on_tick(9.9) == []
    assert it.on_tick(10.0) == [Unload("m")]


def test_idleness_counts_from_the_end_of_the_last_job() -> None:
    it, only = ready(), job()
    it.on_request(only, 5.0)
    assert it.on_tick(100.0) == []
    it.on_released(only, 100.0)
    assert it.on_tick(109.0) == []
    assert it.on_tick(110.0) == [Unload("m")]


def test_a_job_whose_prompt_is_being_read_keeps_its_model() -> None:
    it = ready()
    it.on_request(job(n_prompt=None), 5.0)
    assert it.on_tick(1000.0) == []


def test_a_negative_keep_alive_is_for_ever() -> None:
    it = scheduler()
    it.on_load("other", 0.0)
    it.on_ready("other", 1, 1000, 0.0)
    assert it.on_tick(1e9) == []


def test_a_model_that_drains_is_not_unloaded_again() -> None:
    it = ready()
    it.on_closed("m", FOREVER)
    assert it.on_tick(1e9) == []


# words


def test_a_refusal_for_memory_names_the_pool() -> None:
    assert no_room("m", "host", 3 << 30, 1 << 20).message == "m needs 3,072 MiB of memory, but only 1 MiB are free"
    assert "memory on gpu0" in no_room("m", "gpu0", 1, 1).message


# any history


class SchedulerMachine(RuleBasedStateMachine):
    """Events in any order that a Node could send them; the book says what each decision may be."""

    SLOTS, CELLS = 2, 200
    MODELS = st.sampled_from(["m", "other", "small"])

    @initialize(host_bytes=st.sampled_from([40, 60, 120, 200]))
    def start(self, host_bytes: int) -> None:
        self.it = scheduler(host_bytes=host_bytes, max_requests=6, per_tenant=4)
        self.it.add_model("small", {"host": 10}, keep_alive_s=0.0)
        self.now_s = 0.0
        self.state = dict.fromkeys(self.it.lanes, "cold")
        self.held: dict[str, Reservation] = {}
        self.where: dict[Job, str] = {}

    def jobs(self, where: str, model: str | None = None) -> list[Job]:
        return [j for j, at in self.where.items() if at == where and model in (None, j.request.model)]

    def carry_out(self, decisions: list[Decision]) -> None:
        for decision in decisions:
            match decision:
                case Start(job=job):
                    assert self.where[job] == "waiting"
                    assert job.prompt is not None
                    assert self.state[job.request.model] == "ready"
                    self.where[job] = "running"
                case Load(model=name):
                    assert self.state[name] == "cold"
                    self.held[name] = self.it.ledger.reserve(name, self.it.lanes[name].bytes_on)  # there is room
                    self.state[name] = "loading"
                case Unload(model=name):
                    assert self.state[name] == "ready"
                    assert not self.jobs("waiting", name)
                    assert not self.jobs("running", name)
                    self.close(name, "closed")
                case Reject(job=job, error=error):
                    assert self.where[job] == "waiting"
                    assert error.code in (Code.QUEUE_FULL, Code.NO_ROOM, Code.MODEL_FAILED)
                    self.where[job] = "over"
        started = [decision.job for decision in decisions if isinstance(decision, Start)]
        assert started == sorted(started, key=order)
        for job in started:
            juniors = [j for j in self.jobs("waiting", job.request.model) if j.prompt is not None]
            assert all(order(job) < order(junior) for junior in juniors), "a senior was passed over"

    def close(self, name: str, state: str) -> None:
        self.it.on_closed(name, FOREVER)
        self.state[name] = state

    def pick(self, data: st.DataObject, where: str) -> Job:
        return data.draw(st.sampled_from(self.jobs(where)), label=where)

    @rule(model=MODELS, priority=st.sampled_from(Priority), tenant=st.sampled_from("xy"), n=st.none() | st.just(40))
    def request(self, model: str, priority: Priority, tenant: str, n: int | None) -> None:
        new = job(priority, model, tenant, n)
        n_waiting = len(self.jobs("waiting"))
        n_tenant = sum(j.request.tenant == tenant for j in self.jobs("waiting"))
        self.where[new] = "waiting"
        decisions = self.it.on_request(new, self.now_s)
        full = Reject(new, decisions[0].error) if decisions and isinstance(decisions[0], Reject) else None
        is_full = full is not None and full.error.code is Code.QUEUE_FULL
        assert is_full == (n_waiting >= 6 or n_tenant >= 4)
        self.carry_out(decisions)

    @precondition(lambda self: any(j.prompt is None for j in self.jobs("waiting")))
    @rule(data=st.data(), n=st.integers(1, 200))
    def prepared(self, data: st.DataObject, n: int) -> None:
        unread = data.draw(st.sampled_from([j for j in self.jobs("waiting") if j.prompt is None]))
        unread.prompt = [1] * n
        self.carry_out(self.it.on_prepared(unread, self.now_s))

    @precondition(lambda self: self.jobs("waiting"))
    @rule(data=st.data())
    def withdrawn(self, data: st.DataObject) -> None:
        gone = self.pick(data, "waiting")
        self.where[gone] = "over"
        self.carry_out(self.it.on_withdrawn(gone, self.now_s))

    @precondition(lambda self: self.jobs("running"))
    @rule(data=st.data(), n=st.integers(1, 50))
    def grown(self, data: st.DataObject, n: int) -> None:
        self.pick(data, "running").generated += [1] * n

    @precondition(lambda self: self.jobs("running"))
    @rule(data=st.data())
    def released(self, data: st.DataObject) -> None:
        done = self.pick(data, "running")
        self.where[done] = "over"
        self.carry_out(self.it.on_released(done, self.now_s))

    @precondition(lambda self: self.jobs("running"))
    @rule(data=st.data())
    def parked(self, data: st.DataObject) -> None:
        it = self.pick(data, "running")
        self.where[it] = "waiting"
        self.carry_out(self.it.on_parked(it, self.now_s))

    @rule(model=MODELS)
    def load(self, model: str) -> None:
        if self.state[model] != "closed":  # the Node refuses it then
            self.carry_out(self.it.on_load(model, self.now_s))

    @rule(model=MODELS)
    def ready(self, model: str) -> None:
        if self.state[model] == "loading":
            self.state[model] = "ready"
            self.carry_out(self.it.on_ready(model, self.SLOTS, self.CELLS, self.now_s))

    @rule(model=MODELS)
    def drained(self, model: str) -> None:
        if self.state[model] in ("loading", "ready"):
            self.close(model, "closed")

    @rule(model=MODELS)
    def crashed(self, model: str) -> None:
        if self.state[model] != "cold":
            was_loading = self.state[model] == "loading"
            self.close(model, "closed")
            for gone in self.jobs("running", model):
                self.where[gone] = "over"
                assert self.it.on_released(gone, self.now_s) == []
            if was_loading:
                self.carry_out(self.it.on_load_failed(model, InferdError(Code.MODEL_FAILED, "x")))

    @rule(model=MODELS)
    def cold(self, model: str) -> None:
        if self.state[model] == "closed" and not self.jobs("running", model):
            self.it.ledger.release(self.held.pop(model))
            self.state[model] = "cold"
            self.carry_out(self.it.on_cold(model, self.now_s))

    @rule(step_s=st.sampled_from([0.0, 1.0, 20.0]))
    def tick(self, step_s: float) -> None:
        self.now_s += step_s
        self.carry_out(self.it.on_tick(self.now_s))

    @invariant()
    def the_books_agree(self) -> None:
        self.it.check_integrity()
        for name, lane in self.it.lanes.items():
            assert set(lane.waiting) == set(self.jobs("waiting", name))
            assert lane.running == set(self.jobs("running", name))
            assert bool(lane.slots) == (self.state[name] == "ready")
            assert lane.loading == (self.state[name] == "loading")
            assert len(lane.running) <= self.SLOTS

    @invariant()
    def nobody_waits_without_a_reason(self) -> None:
        for name, lane in self.it.lanes.items():
            readable = [j for j in lane.waiting if j.prompt is not None]
            if self.state[name] == "cold":
                assert not lane.waiting
            if self.state[name] == "ready" and readable:
                needed = sum(map(cells, lane.running)) + cells(readable[0])
                assert len(lane.running) == self.SLOTS or (lane.running and needed > self.CELLS)
            if self.state[name] == "ready":
                assert (lane.idle_since_s is None) == bool(lane.waiting or lane.running)
            for position, waiting in enumerate(lane.waiting):
                assert self.it.position(waiting) == position
                assert self.it.why(waiting) in ("prompt", "load", "slot", "memory")


TestSchedulerMachine = SchedulerMachine.TestCase
TestSchedulerMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
