"""The arithmetic of a load; numbers of llama.cpp's own log lines where a comment says measured."""

from __future__ import annotations

from typing import Any

import pytest

from inferd.backends.facts import HOST, LoadPlan, ModelFacts
from inferd.backends.llama import footprint
from inferd.backends.llama.footprint import estimate
from inferd.backends.llama.gguf import LlamaFacts
from inferd.backends.llama.layers import Memory, Weights

MIB = 1 << 20


def shape(**changes: Any) -> LlamaFacts:
    """12 layers of 896 with 14 heads over 2, feed-forward 4,864, vocabulary 32,000, Q8_0: 239.48 MiB."""
    facts: dict[str, Any] = {
        "backend": "llama",
        "path": "m.gguf",
        "file_bytes": 251_119_968,
        "architecture": "llama",
        "quantization": "Q8_0",
        "n_params": 236_279_680,
        "n_layers": 12,
        "n_embd": 896,
        "n_heads": 14,
        "n_kv_heads": 2,
        "k_head_dim": 64,
        "v_head_dim": 64,
        "n_ctx_train": 32_768,
        "n_vocab": 32_000,
        "weights": Weights((15_848_448,) * 12, 30_464_000, 30_467_584, 0, ""),
        "memory": Memory((128,) * 12, (128,) * 12, (False,) * 12, 0, False),
        "n_ff": 4864,
    }
    return LlamaFacts(**(facts | changes))


def plan(**changes: Any) -> LoadPlan:
    plan: dict[str, Any] = {"backend": "llama", "path": "m.gguf", "n_ctx": 4096, "n_slots": 4}
    return LoadPlan(**(plan | {"kv_cells": 4096, "n_threads": 2} | changes))


def graph_bytes(facts: LlamaFacts, plan: LoadPlan) -> int:
    """Only the graph's buffers: what llama.cpp calls the compute buffer."""
    rest = footprint.WORKER_BYTES + footprint.TOKEN_BYTES * facts.n_vocab
    return estimate(facts, plan).compute_bytes - rest - 4 * (plan.n_slots + 1) * facts.n_vocab


def test_all_on_the_host() -> None:
    price = estimate(shape(), plan())
    assert price.bytes_on == {HOST: price.weights_bytes + price.kv_bytes + price.compute_bytes}
    assert price.weights_bytes == pytest.approx(239.48 * MIB, rel=0.02)  # measured
    assert price.kv_bytes == 24 * MIB  # measured


@pytest.mark.parametrize(
    ("facts", "load", "measured_mib"),
    [
        ({}, {}, 39.74),
        ({}, {"flash_attention": False}, 130.02),
        ({}, {"kv_cells": 16_384, "n_ubatch": 256}, 26.16),
        ({"n_embd": 1024, "n_heads": 16, "n_ff": 8192}, {"kv_cells": 512}, 56.51),
        ({"n_embd": 1024, "n_heads": 16, "n_ff": 8192}, {"kv_cells": 8192, "flash_attention": False}, 283.56),
        ({"n_embd": 512, "n_heads": 8, "n_ff": 2048}, {"kv_cells": 8192}, 24.06),
    ],
)
def test_graph_buffers(facts: dict[str, Any], load: dict[str, Any], measured_mib: float) -> None:
    assert graph_bytes(shape(**facts), plan(**load)) == pytest.approx(measured_mib * MIB, rel=0.03)


@pytest.mark.parametrize(("kv_type", "mib"), [("f32", 48), ("f16", 24), ("bf16", 24), ("q8_0", 12.75), ("q4_0", 6.75)])
def test_kv_types(kv_type: str, mib: float) -> None:
    assert estimate(shape(), plan(kv_type=kv_type)).kv_bytes == mib * MIB


def test_cells_are_padded() -> None:
    assert estimate(shape(), plan(kv_cells=4000)).kv_bytes == 24 * MIB


def test_split_layout_pads_the_stream_of_every_sequence() -> None:
    assert estimate(shape(), plan(kv_layout="split")).kv_bytes == 24 * MIB
    assert estimate(shape(), plan(kv_layout="split", kv_cells=3 * 1024 + 256)).kv_bytes == 24 * MIB


def test_recurrent_state_counts_per_sequence() -> None:
    memory = Memory((0,) * 12, (0,) * 12, (False,) * 12, 1000, True)
    assert estimate(shape(memory=memory), plan()).kv_bytes == 5 * 1000


def test_tied_output_is_a_copy_only_where_it_is_kept_differently() -> None:
    plain = Weights((10,) * 12, 1000, 1, 1000, "Q8_0")
    repacked = plain._replace(tied_output_type="Q4_0")
    assert estimate(shape(weights=plain), plan()).weights_bytes == 1121
    assert estimate(shape(weights=repacked), plan()).weights_bytes == 2121
    on_device = estimate(shape(weights=plain), plan(n_gpu_layers=1, devices=("gpu0",)))
    assert on_device.weights_bytes == 2121


def weights_on(n_gpu_layers: int, *devices: str) -> dict[str, int]:
    """Weights alone, by pool: a layer is 10, the input 1,000, the output 7."""
    facts = shape(weights=Weights((10,) * 12, 1000, 7, 0, ""))
    load = plan(n_gpu_layers=n_gpu_layers, devices=devices)
    return footprint._weights(facts, footprint._pools(12, load))


@pytest.mark.parametrize(
    ("n_gpu_layers", "devices", "expected"),
    [
        (0, ("gpu0",), {HOST: 1127}),
        (99, (), {HOST: 1127}),
        (1, ("gpu0",), {HOST: 1120, "gpu0": 7}),  # the output goes first
        (5, ("gpu0",), {HOST: 1080, "gpu0": 47}),
        (13, ("gpu0",), {HOST: 1000, "gpu0": 127}),
        (99, ("gpu0",), {HOST: 1000, "gpu0": 127}),
        (-1, ("gpu0", "gpu1"), {HOST: 1000, "gpu0": 70, "gpu1": 57}),
    ],
)
def test_layers_go_to_devices_from_the_end(
    n_gpu_layers: int, devices: tuple[str, ...], expected: dict[str, int]
) -> None:
    assert weights_on(n_gpu_layers, *devices) == expected


def test_kv_lives_beside_its_layer() -> None:
    half = estimate(shape(), plan(n_gpu_layers=7, devices=("gpu0",)))
    none = estimate(shape(), plan())
    assert half.kv_bytes == none.kv_bytes
    assert set(half.bytes_on) == {HOST, "gpu0"}
    assert sum(half.bytes_on.values()) == half.weights_bytes + half.kv_bytes + half.compute_bytes


def test_more_of_anything_costs_more() -> None:
    base = sum(estimate(shape(), plan()).bytes_on.values())
    for more in ({"kv_cells": 8192}, {"n_slots": 8}, {"n_ubatch": 1024}, {"flash_attention": False}):
        assert sum(estimate(shape(), plan(**more)).bytes_on.values()) > base


def test_plain_facts_are_priced_by_their_file() -> None:
    names = ModelFacts.__struct_fields__
    plain = ModelFacts(**{name: getattr(shape(), name) for name in names})
    price = estimate(plain, plan())
    assert price.weights_bytes == pytest.approx(plain.file_bytes, rel=0.01)
    assert price.kv_bytes == 24 * MIB
