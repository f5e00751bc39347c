"""The small model beside the large one: how it is loaded, and what both take."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from inferd.backends.facts import HOST, Adapter, LoadPlan
from inferd.backends.kinds import footprint, read_facts
from inferd.backends.llama.binding import log
from inferd.backends.llama.footprint import DEVICE_CONTEXT_BYTES, LIBRARY_BYTES, PROCESS_BYTES, TOKEN_BYTES
from inferd.backends.llama.loading import load_generator as load
from inferd.backends.llama.pair import draft_plan
from inferd.tests.models.random_gguf import Shape, write_random_gguf

from .engines import plan

if TYPE_CHECKING:
    from inferd.backends.facts import Footprint, ModelFacts

LARGE = Shape(n_vocab=32_000, n_embd=256, n_layer=6, n_head=8, n_head_kv=2, n_ff=1024)


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> tuple[ModelFacts, ModelFacts]:
    """Of a large model and a small one."""
    folder = tmp_path_factory.mktemp("pair")
    large = write_random_gguf(folder / "large.gguf", LARGE)
    small = write_random_gguf(folder / "small.gguf", replace(LARGE, n_layer=2, n_ff=512))
    return read_facts(large), read_facts(small)


def load_plan(facts: tuple[ModelFacts, ModelFacts], **changes: Any) -> LoadPlan:
    given: dict[str, Any] = {"n_ctx": 1024, "kv_cells": 4096, "n_draft": 15, **changes}
    return msgspec.structs.replace(plan(facts[0].path, **given), draft=facts[1])  # type: ignore[arg-type]


def prices(facts: tuple[ModelFacts, ModelFacts], load: LoadPlan) -> tuple[Footprint, Footprint, Footprint]:
    """(the large one alone, the small one alone, both in one process)."""
    alone = msgspec.structs.replace(load, draft=None)
    return footprint(facts[0], alone), footprint(facts[1], draft_plan(load)), footprint(facts[0], load)


def test_it_has_the_slots_and_the_cells_of_the_large_one(facts: tuple[ModelFacts, ModelFacts]) -> None:
    load = load_plan(facts, kv_layout="split", numerics="fast", cache_bytes=1000, kv_type="f32", n_slots=3)
    its = draft_plan(load)
    assert (its.path, its.draft, its.n_draft, its.cache_bytes) == (facts[1].path, None, 0, 0)
    assert (its.n_slots, its.kv_cells, its.kv_type, its.n_ctx) == (3, 4096, "f32", 1024)
    assert its.kv_layout == "unified"


@pytest.mark.parametrize(("n_gpu_layers", "its_layers"), [(0, 0), (-1, -1), (3, -1)])
def test_it_is_offloaded_whole_where_anything_is(
    facts: tuple[ModelFacts, ModelFacts], n_gpu_layers: int, its_layers: int
) -> None:
    devices = ("gpu0",) if n_gpu_layers else ()
    its = draft_plan(load_plan(facts, n_gpu_layers=n_gpu_layers, devices=devices))
    assert (its.n_gpu_layers, its.devices) == (its_layers, devices)


@pytest.mark.parametrize("devices", [(), ("gpu0",), ("gpu0", "gpu1")])
def test_both_cost_what_each_costs_but_for_the_process(
    facts: tuple[ModelFacts, ModelFacts], devices: tuple[str, ...]
) -> None:
    large, small, both = prices(facts, load_plan(facts, n_gpu_layers=-1 if devices else 0, devices=devices))
    assert both.weights_bytes == large.weights_bytes + small.weights_bytes
    assert both.kv_bytes == large.kv_bytes + small.kv_bytes
    assert sum(both.bytes_on.values()) == both.weights_bytes + both.kv_bytes + both.compute_bytes
    for pool in both.bytes_on:
        once = PROCESS_BYTES + LIBRARY_BYTES if pool == HOST else DEVICE_CONTEXT_BYTES
        assert both.bytes_on[pool] == large.bytes_on[pool] + small.bytes_on[pool] - once
    if not devices:
        assert both.host_anon_bytes + both.host_file_bytes == both.bytes_on[HOST]  # Q8_0 is not repacked
        assert both.host_file_bytes == both.weights_bytes + LIBRARY_BYTES


def test_a_device_that_only_the_small_one_is_on_is_paid_in_full(facts: tuple[ModelFacts, ModelFacts]) -> None:
    load = load_plan(facts, n_gpu_layers=1, devices=("gpu0", "gpu1"), tensor_split=(0.5, 0.5))
    large, small, both = prices(facts, load)
    (only,) = small.bytes_on.keys() - large.bytes_on.keys()
    assert both.bytes_on[only] == small.bytes_on[only] > DEVICE_CONTEXT_BYTES


@pytest.mark.llama
def test_llama_cpp_takes_what_was_estimated(facts: tuple[ModelFacts, ModelFacts]) -> None:
    with_it = load_plan(facts, flash_attention=True)
    buffers = []
    for asked in (with_it, msgspec.structs.replace(with_it, draft=None)):
        log.buffers.clear()  # of one process
        engine = load(asked, lambda _: None)
        buffers.append(engine.ready.buffers)
        engine.close()
    large, _, both = prices(facts, with_it)
    assert buffers[0]["CPU KV"] == both.kv_bytes
    assert buffers[0]["CPU_Mapped model"] == pytest.approx(both.weights_bytes, rel=0.01)
    more = sum(buffers[0].values()) - sum(buffers[1].values())
    beyond = both.bytes_on[HOST] - large.bytes_on[HOST] - TOKEN_BYTES * facts[1].n_vocab
    assert more < beyond < 1.1 * more  # measured: the words cost no buffer


def test_adapters_of_the_large_one_are_paid_once(facts: tuple[ModelFacts, ModelFacts]) -> None:
    plain = load_plan(facts)
    tuned = msgspec.structs.replace(plain, adapters=(Adapter("a", "a.gguf", 1 << 20, "1"),))
    assert footprint(facts[0], tuned).bytes_on[HOST] - footprint(facts[0], plain).bytes_on[HOST] == pytest.approx(
        1 << 20, rel=0.001
    )
