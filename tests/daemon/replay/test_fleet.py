"""Which models are in memory, in virtual time."""

from __future__ import annotations

import pytest

from inferd.daemon.domain.config import Config
from inferd.daemon.domain.model import ModelState
from inferd.daemon.replay.arrivals import Arrival
from inferd.daemon.replay.engine import Costs
from inferd.daemon.replay.fleet import Machine, Model
from inferd.daemon.replay.replay import Replay

COSTS = Costs(prefill_tokens_per_s=1000.0, decode_tokens_per_s=10.0)


def run(*arrivals: Arrival, **machine: float) -> Replay:
    it = Replay(arrivals, Machine(COSTS, **machine), Config())  # type: ignore[arg-type]
    it.run()
    return it


def models(it: Replay) -> dict[str, ModelState]:
    return {model.name: model.state for model in it.fleet.models.values()}


def test_a_single_model_is_loaded_before_anybody_comes() -> None:
    it = run(Arrival(5.0, 100, 2), load_s=3.0)
    assert it.result.decisions[0] == (0.0, "load", "model")
    assert it.result.outcomes[0].ttft_ms == pytest.approx(100.0)


def test_of_several_models_each_is_loaded_when_it_is_wanted() -> None:
    it = run(Arrival(0.0, 100, 2, model="a"), Arrival(9.0, 100, 2, model="b"), load_s=3.0)
    assert [(at_s, whom) for at_s, what, whom in it.result.decisions if what == "load"] == [(0.0, "a"), (9.0, "b")]
    assert models(it) == {"a": ModelState.READY, "b": ModelState.READY}


def test_one_that_makes_way_parks_what_it_runs_and_comes_back_for_it() -> None:
    batch = Arrival(0.0, 100, 300, model="a")
    it = run(batch, Arrival(10.0, 100, 2, model="b"), models_in_memory=1)
    assert it.result.evictions >= 1
    assert [outcome.output_tokens for outcome in it.result.outcomes] == [300, 2]
    assert it.result.outcomes[0].parks >= 1
    assert sum(state is ModelState.READY for state in models(it).values()) == 1


def test_bytes_are_held_until_the_end_of_the_unload() -> None:
    it = run(
        Arrival(0.0, 100, 2, model="a"), Arrival(30.0, 100, 2, model="b"), models_in_memory=1, unload_s=2.0, load_s=1.0
    )
    whats = [(what, at_s) for at_s, what, _ in it.result.decisions]
    (evicted_s,) = (at_s for what, at_s in whats if what == "evict")
    assert [at_s for what, at_s in whats if what == "load"][1] == pytest.approx(evicted_s + 2.0)


def test_a_step_that_no_model_takes_is_our_bug() -> None:
    with pytest.raises(AssertionError, match="m: cold -> ready"):
        Model("m").move(ModelState.READY)
