"""The life of a model is its table."""

from __future__ import annotations

from itertools import product

import msgspec
import pytest

from inferd.backends.facts import Adapter, LoadPlan, ModelFacts
from inferd.backends.messages import SamplingParams
from inferd.daemon.domain.errors import Code, InferdError
from inferd.daemon.domain.model import NEXT, Model, ModelState, check_adapter
from inferd.daemon.domain.request import Priority, Request

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


def test_an_adapter_must_be_one_of_the_models() -> None:
    def asked(lora: str, *names: str) -> None:
        adapters = tuple(Adapter(name, f"/{name}", 1, "") for name in names)
        request = Request("r", "m", SamplingParams(max_tokens=0), Priority.NORMAL, "t", prompt="x", lora=lora)
        check_adapter(request, Model("m", FACTS, msgspec.structs.replace(PLAN, adapters=adapters), 1.0))

    asked("")
    asked("a", "a", "b")
    for names, has in ((("a", "b"), "its adapters are a, b"), ((), "it has none")):
        with pytest.raises(InferdError, match=f"m has no adapter 'c'; {has}") as error:
            asked("c", *names)
        assert (error.value.code, error.value.field) == (Code.NOT_FOUND, "lora")
