"""The life of a model is its table."""

from __future__ import annotations

from itertools import product

import pytest

from inferd.backends.facts import LoadPlan, ModelFacts
from inferd.daemon.domain.model import NEXT, Model, ModelState

FACTS = ModelFacts(
    backend="fake",
    path="/m.gguf",
    file_bytes=1,
    architecture="llama",
    quantization="Q8_0",
    n_params=1,
    n_layers=1,
    n_embd=1,
    n_heads=1,
    n_kv_heads=1,
    k_head_dim=1,
    v_head_dim=1,
    n_ctx_train=256,
    n_vocab=300,
)
PLAN = LoadPlan(backend="fake", path="/m.gguf", n_ctx=256, n_slots=1, kv_cells=256, n_threads=1)


@pytest.mark.parametrize(("start", "to"), list(product(ModelState, ModelState)))
def test_a_model_takes_the_steps_of_the_table_and_no_other(start: ModelState, to: ModelState) -> None:
    model = Model("m", FACTS, PLAN, keep_alive_s=1.0, state=start)
    if to in NEXT[start]:
        model.move(to)
        assert model.state is to
    else:
        with pytest.raises(AssertionError, match=f"m: {start.value} -> {to.value}"):
            model.move(to)
        assert model.state is start


def test_every_state_can_be_reached_from_cold_and_leads_back_to_it() -> None:
    def reachable(start: ModelState) -> set[ModelState]:
        seen = {start}
        while more := {to for state in seen for to in NEXT[state]} - seen:
            seen |= more
        return seen

    assert all(reachable(state) == set(ModelState) for state in ModelState)
