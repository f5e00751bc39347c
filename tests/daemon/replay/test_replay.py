"""Arrivals through the real scheduler, in virtual time."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferd.daemon.domain.config import ClassOptions, Config, Queue, Turns
from inferd.daemon.domain.request import Priority
from inferd.daemon.policy.audit import check_integrity
from inferd.daemon.policy.fair import service
from inferd.daemon.replay.arrivals import Arrival
from inferd.daemon.replay.engine import Costs
from inferd.daemon.replay.fleet import Machine
from inferd.daemon.replay.replay import Replay, replay
from inferd.daemon.replay.report import DONE, LOST, report

CHAT, NORMAL, BATCH = Priority.INTERACTIVE, Priority.NORMAL, Priority.BATCH
ONE = Machine(Costs(prefill_tokens_per_s=1000.0, decode_tokens_per_s=10.0), slots=1)
FIFO = Config(scheduler=Turns(policy="fifo"))


def started(decisions: list[tuple[float, str, str]]) -> list[str]:
    return [whom for _, what, whom in decisions if what == "start"]


def test_one_request_takes_its_prompt_and_its_tokens() -> None:
    (outcome,) = replay([Arrival(5.0, 150, 11)], ONE).outcomes
    assert (outcome.ended, outcome.output_tokens, outcome.parks) == (DONE, 11, 0)
    assert (outcome.queue_ms, outcome.ttft_ms, outcome.end_ms) == pytest.approx((0.0, 150.0, 1100.0))


def test_who_finds_no_slot_waits_for_it_and_is_told_until_when() -> None:
    arrivals = [Arrival(float(i), 100, 11, priority=NORMAL) for i in range(20)]
    outcomes = replay(arrivals, ONE).outcomes
    assert outcomes[1].queue_ms == pytest.approx(100.0)
    assert outcomes[1].eta_ms is None  # nothing was measured yet
    assert outcomes[5].eta_ms is not None


def test_an_interactive_request_parks_a_batch_one_and_no_token_is_lost() -> None:
    arrivals = [Arrival(0.0, 100, 50, priority=BATCH), Arrival(1.0, 100, 11)]
    result = replay(arrivals, ONE)
    batch, chat = result.outcomes
    assert (result.preemptions, batch.parks, batch.output_tokens) == (1, 1, 50)
    assert chat.ttft_ms == pytest.approx(100.0)
    # It computes its 100 prompt tokens and what it had again, and is served 1.1 s later.
    assert batch.end_ms == pytest.approx(5000 + 1100 + 100, abs=200)


def test_fifo_serves_in_the_order_of_arrival() -> None:
    arrivals = [Arrival(i * 0.1, 100, 11, tenant="abc"[i % 3], priority=list(Priority)[i % 3]) for i in range(9)]
    assert started(replay(arrivals, ONE, FIFO).decisions) == [f"r{i}" for i in range(9)]
    assert started(replay(arrivals, ONE).decisions) != [f"r{i}" for i in range(9)]


def test_a_deadline_ends_what_runs_and_what_waits() -> None:
    arrivals = [Arrival(0.0, 100, 50, deadline_ms=2000), Arrival(0.0, 100, 50, deadline_ms=1000)]
    first, second = replay(arrivals, ONE).outcomes
    assert (first.ended, first.end_ms, first.output_tokens) == ("deadline", 2000.0, 20)
    assert (second.ended, second.end_ms, second.queue_ms) == ("deadline", 1000.0, None)
    assert not second.refused


def test_a_full_queue_refuses_and_says_when_to_come_back() -> None:
    config = Config(queue=Queue(max_requests=2))
    outcomes = replay([Arrival(0.0, 100, 11, priority=NORMAL)] * 5, ONE, config).outcomes
    assert [outcome.ended for outcome in outcomes] == [DONE] * 3 + ["queue_full"] * 2
    assert outcomes[4].refused
    assert outcomes[4].reason == "requests"
    assert outcomes[4].retry_after_ms is not None


def test_a_limit_refuses_who_would_wait_longer() -> None:
    turns = msgspec.structs.replace(Turns(), batch=ClassOptions(first_token_limit_s=5.0))
    arrivals = [Arrival(i * 0.1, 100, 11, priority=BATCH) for i in range(100)]
    result = replay(arrivals, ONE, Config(scheduler=turns))
    found = report(result)
    assert found.refused_by == {"wait": found.total.refused}
    assert found.total.refused > 50
    assert found.without_retry == 0


def test_a_prompt_that_fits_no_context_is_refused() -> None:
    machine = Machine(ONE.costs, 1, context_tokens=100)
    too_long, fits = replay([Arrival(0.0, 100, 5), Arrival(0.0, 99, 5)], machine).outcomes
    assert too_long.ended == "prompt_too_long"
    assert (fits.ended, fits.output_tokens) == (DONE, 1)


def test_models_take_turns_in_memory() -> None:
    machine = Machine(ONE.costs, 1, load_s=2.0, unload_s=0.5, models_in_memory=1)
    arrivals = [Arrival(float(i), 100, 11, model="ab"[i % 2], priority=NORMAL) for i in range(8)]
    result = replay(arrivals, machine)
    assert [outcome.ended for outcome in result.outcomes] == [DONE] * 8
    assert result.evictions >= 1
    whats = [what for _, what, _ in result.decisions]
    assert whats.count("load") == result.evictions + 1
    assert result.outcomes[0].ttft_ms == pytest.approx(2100.0)


def test_a_model_that_is_idle_is_unloaded_and_loaded_again() -> None:
    machine = Machine(ONE.costs, 1, load_s=1.0, keep_alive_s=10.0)
    result = replay([Arrival(2.0, 100, 11), Arrival(60.0, 100, 11)], machine)
    assert [what for _, what, _ in result.decisions] == ["load", "start", "unload", "load", "start"]
    assert [round(outcome.ttft_ms or 0.0) for outcome in result.outcomes] == [100, 1100]


def test_no_arrivals_are_no_outcomes() -> None:
    assert replay([], ONE).outcomes == []


# any arrivals

shares = st.sampled_from(list(Priority))
arrival = st.builds(
    Arrival,
    at_s=st.floats(0, 20).map(lambda at_s: round(at_s, 2)),
    prompt_tokens=st.integers(1, 500),
    output_tokens=st.integers(1, 60),
    tenant=st.sampled_from("abc"),
    priority=shares,
    model=st.sampled_from(["", "m", "n"]),
    deadline_ms=st.none() | st.integers(100, 20_000),
)
traces = st.lists(arrival, max_size=25).map(lambda some: sorted(some, key=lambda one: one.at_s))
machines = st.builds(
    Machine,
    costs=st.sampled_from([ONE.costs, Costs(), Costs(500.0, step_s=0.02, row_s=0.005)]),
    slots=st.integers(1, 3),
    kv_cells=st.sampled_from([0, 700]),
    load_s=st.sampled_from([0.0, 1.5]),
    unload_s=st.sampled_from([0.0, 0.3]),
    keep_alive_s=st.sampled_from([-1.0, 2.0]),
    models_in_memory=st.sampled_from([0, 1]),
)
configs = st.builds(
    lambda policy, limit_s, n: Config(
        queue=Queue(max_requests=n), scheduler=Turns(policy=policy, batch=ClassOptions(first_token_limit_s=limit_s))
    ),
    st.sampled_from(["fair", "fifo"]),
    st.none() | st.floats(0.5, 10),
    st.integers(3, 50),
)


@settings(max_examples=60, deadline=None)
@given(traces, machines, configs)
def test_every_arrival_ends_once_and_has_all_its_tokens_when_it_is_done(
    arrivals: list[Arrival], machine: Machine, config: Config
) -> None:
    it = Replay(arrivals, machine, config)
    outcomes = it.run().outcomes
    assert [outcome.arrival for outcome in outcomes] == arrivals
    assert all(outcome.ended != LOST for outcome in outcomes)
    assert all(o.output_tokens == o.arrival.output_tokens for o in outcomes if o.ended == DONE)
    assert all(o.end_ms <= (o.arrival.deadline_ms or 1e12) + 1e-6 for o in outcomes if o.end_ms is not None)
    found = report(it.result).total
    assert found.requests == found.done + found.refused + found.missed + found.failed
    check_integrity(it.scheduler)
    assert not any(lane.running or lane.line for lane in it.scheduler.lanes.values())
    if found.done == found.requests:
        wanted = sum(service(a.prompt_tokens, a.output_tokens) for a in arrivals)
        assert sum(it.book.served.values()) == pytest.approx(wanted)


@settings(max_examples=30, deadline=None)
@given(traces, machines, configs)
def test_the_same_arrivals_give_the_same_decisions(arrivals: list[Arrival], machine: Machine, config: Config) -> None:
    once, again = (replay(arrivals, machine, config) for _ in range(2))
    assert once.decisions == again.decisions
    assert once.outcomes == again.outcomes


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.builds(Arrival, st.just(0.0), st.integers(1, 300), st.integers(1, 60), st.sampled_from("abc")), max_size=40
    )
)
def test_the_service_gap_of_backlogged_tenants_is_within_the_theorems_bound(arrivals: list[Arrival]) -> None:
    book = replay(arrivals, Machine(ONE.costs, slots=3)).book
    assert book.gap is None or book.gap.weighted_tokens <= book.bound()
