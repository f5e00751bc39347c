"""The arithmetic of a load; numbers of llama.cpp's own log lines where a comment says measured."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.backends.facts import HOST, Adapter, Footprint, LoadPlan, ModelFacts
from inferd.backends.llama import footprint
from inferd.backends.llama.footprint import LIBRARY_BYTES, estimate, largest_context
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
    process = footprint.PROCESS_BYTES + LIBRARY_BYTES + footprint.LAYER_BYTES * facts.n_layers
    vocabulary = (footprint.TOKEN_BYTES + 4 * (plan.n_slots + 1)) * facts.n_vocab
    return estimate(facts, plan).compute_bytes - process - vocabulary - footprint._work_bytes(facts, plan)


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
        ({"n_embd": 1024, "n_heads": 16, "n_ff": 3072}, {"kv_cells": 16_384, "kv_layout": "split"}, 30.01),
    ],
)
def test_graph_buffers(facts: dict[str, Any], load: dict[str, Any], measured_mib: float) -> None:
    assert graph_bytes(shape(**facts), plan(**load)) == pytest.approx(measured_mib * MIB, rel=0.03)


def pooled(facts: LlamaFacts, **changes: Any) -> float:
    """RssAnon in MiB of a worker that embeds; 2 threads."""
    load = plan(n_ctx=changes["kv_cells"], pooling="mean", **changes)
    return estimate(facts, load).host_anon_bytes / MIB


# Measured with random weights in 32 bits, after an input as long as the context and 64 of 64 tokens.
ENCODER: dict[str, Any] = {"architecture": "bert", "memory": Memory((0,) * 6, (0,) * 6, (False,) * 6, 0, False)}
SIZES = [
    ({"n_layers": 6, "n_embd": 384, "n_heads": 12, "n_ff": 1536, "n_vocab": 30_067}, 512, None, 95.6),
    ({"n_layers": 6, "n_embd": 384, "n_heads": 12, "n_ff": 1536, "n_vocab": 30_067}, 512, False, 107.2),
    ({"n_layers": 2, "n_embd": 256, "n_heads": 4, "n_ff": 1024, "n_vocab": 250_067}, 2048, None, 2039.5),
    ({"n_layers": 2, "n_embd": 256, "n_heads": 4, "n_ff": 1024, "n_vocab": 250_067}, 2048, False, 2109.3),
]


@pytest.mark.parametrize(("facts", "rows", "flash", "measured_mib"), SIZES)
def test_an_encoder_has_room_for_logits_that_it_never_computes(
    facts: dict[str, Any], rows: int, flash: bool | None, measured_mib: float
) -> None:
    weights = Weights((0,) * facts["n_layers"], 0, 0, 0, "")
    price = pooled(
        shape(**ENCODER, **facts, weights=weights), kv_cells=rows, n_ubatch=rows, flash_attention=flash, n_slots=8
    )
    assert measured_mib < price < 1.25 * measured_mib


def test_a_decoder_that_embeds_computes_logits_of_every_row() -> None:
    facts = shape(n_layers=6, n_embd=256, n_heads=8, k_head_dim=32, v_head_dim=32, n_ff=1024, n_vocab=151_936)
    memory = Memory((64,) * 6, (64,) * 6, (False,) * 6, 0, False)
    facts = msgspec.structs.replace(facts, memory=memory, weights=Weights((0,) * 6, 0, 0, 0, ""))
    assert pooled(facts, kv_cells=2048, n_ubatch=512) == pytest.approx(666.0, rel=0.02)  # measured


@pytest.mark.parametrize(("kv_type", "mib"), [("f32", 48), ("f16", 24), ("bf16", 24), ("q8_0", 12.75), ("q4_0", 6.75)])
def test_kv_types(kv_type: str, mib: float) -> None:
    assert estimate(shape(), plan(kv_type=kv_type)).kv_bytes == mib * MIB


@pytest.mark.parametrize(("cells", "mib"), [(512, 33.21), (4096, 40.25), (8192, 48.30)])
def test_graph_buffers_of_a_sliding_window_have_two_masks(cells: int, mib: float) -> None:
    memory = Memory((512,) * 12, (512,) * 12, (True, True, True, True, True, False) * 2, 0, False)
    facts = shape(n_embd=1024, n_heads=8, k_head_dim=128, n_ff=4096, memory=memory)
    assert graph_bytes(facts, plan(kv_cells=cells)) == pytest.approx(mib * MIB, rel=0.01)  # measured


def test_adapters_lie_beside_the_layers_that_they_change() -> None:
    adapters = (Adapter("a", "a.gguf", 1000, ""), Adapter("b", "b.gguf", 200, ""))
    plain, price = (estimate(shape(), plan(adapters=some)) for some in ((), adapters))
    assert price.bytes_on[HOST] - plain.bytes_on[HOST] == price.weights_bytes - plain.weights_bytes == 1200
    assert price.host_anon_bytes - plain.host_anon_bytes == 1200
    on_gpu = {"n_gpu_layers": 7, "devices": ("gpu0",)}  # the output and six of the layers
    before, after = (estimate(shape(), plan(adapters=some, **on_gpu)).bytes_on for some in ((), adapters))
    assert {pool: after[pool] - before[pool] for pool in after} == {HOST: 600, "gpu0": 600}


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
    assert estimate(shape(weights=repacked), plan(numerics="exact")).weights_bytes == 1121
    on_device = estimate(shape(weights=plain), plan(n_gpu_layers=1, devices=("gpu0",)))
    assert on_device.weights_bytes == 2121


def weights_on(n_gpu_layers: int, *devices: str, tensor_split: tuple[float, ...] = ()) -> dict[str, int]:
    """Weights alone, by pool: a layer is 10, the input 1,000, the output 7."""
    facts = shape(weights=Weights((10,) * 12, 1000, 7, 0, ""))
    load = plan(n_gpu_layers=n_gpu_layers, devices=devices, tensor_split=tensor_split)
    return footprint._weights(facts, load, footprint._pools(12, load))


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


@pytest.mark.parametrize(
    ("tensor_split", "expected"),
    [
        ((0.5, 0.5), {HOST: 1000, "gpu0": 70, "gpu1": 57}),
        ((0.25, 0.75), {HOST: 1000, "gpu0": 40, "gpu1": 87}),  # layer 3 of 13 begins before a quarter
        ((0.9, 0.1), {HOST: 1000, "gpu0": 120, "gpu1": 7}),
        ((0.1, 0.2, 0.7), {HOST: 1000, "gpu0": 20, "gpu1": 20, "gpu2": 87}),
    ],
)
def test_devices_have_their_shares_of_the_layers(tensor_split: tuple[float, ...], expected: dict[str, int]) -> None:
    devices = ("gpu0", "gpu1", "gpu2")[: len(tensor_split)]
    assert weights_on(-1, *devices, tensor_split=tensor_split) == expected


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


# what the kernel will show


def small_q4_k_m(**changes: Any) -> LlamaFacts:
    """11 layers of 1,024 with 16 heads over 4, feed-forward 3,072, vocabulary 32,000; the output is the embedding."""
    light, heavy = 6_791_168, 7_669_760  # the heavy ones have Q6_K in place of Q4_K for two of seven matrices
    layers = (heavy, light, light, heavy, light, light, heavy, light, light, heavy, heavy)
    facts: dict[str, Any] = {
        "quantization": "Q4_K_M",
        "n_params": 165_436_416,
        "n_layers": 11,
        "n_embd": 1024,
        "n_heads": 16,
        "n_kv_heads": 4,
        "n_ff": 3072,
        "weights": Weights(layers, 26_880_000, 4096, 26_880_000, "Q6_K"),
        "memory": Memory((256,) * 11, (256,) * 11, (False,) * 11, 0, False),
    }
    return shape(**(facts | changes))


def stale_bytes(price: Footprint) -> int:
    """Mapped pages that the kernel shows and no token reads."""
    return price.host_anon_bytes + price.host_file_bytes - price.bytes_on[HOST]


def test_mapped_weights_and_libraries_are_file_pages_and_the_rest_is_anonymous() -> None:
    price = estimate(shape(), plan())
    assert price.host_file_bytes == price.weights_bytes + LIBRARY_BYTES
    assert price.host_anon_bytes == price.kv_bytes + price.compute_bytes - LIBRARY_BYTES
    assert stale_bytes(price) == 0


def test_weights_that_are_read_are_anonymous() -> None:
    price = estimate(small_q4_k_m(), plan(use_mmap=False))
    assert price.host_file_bytes == LIBRARY_BYTES
    assert price.host_anon_bytes == price.bytes_on[HOST] - LIBRARY_BYTES
    assert price.bytes_on == estimate(small_q4_k_m(), plan()).bytes_on


def test_repacked_weights_show_twice_and_are_reserved_once() -> None:
    price, exact = estimate(small_q4_k_m(), plan()), estimate(small_q4_k_m(), plan(numerics="exact"))
    assert stale_bytes(price) == pytest.approx(62.02 * MIB, rel=0.01)  # measured: CPU_REPACK
    assert price.bytes_on == exact.bytes_on
    assert price.host_anon_bytes == exact.host_anon_bytes + stale_bytes(price)
    assert price.host_file_bytes == exact.host_file_bytes
    assert stale_bytes(exact) == 0


@pytest.mark.parametrize("quantization", ["Q8_0", "Q6_K", "F16", "unheard of"])
def test_other_types_are_not_repacked(quantization: str) -> None:
    assert stale_bytes(estimate(small_q4_k_m(quantization=quantization), plan())) == 0


def test_nothing_is_repacked_beside_a_device() -> None:
    price = estimate(small_q4_k_m(), plan(n_gpu_layers=4, devices=("gpu0",)))
    assert stale_bytes(price) == 0


def test_a_tied_output_that_is_repacked_is_anonymous() -> None:
    weights = small_q4_k_m().weights._replace(tied_output_type="Q4_K")
    twice, once = (estimate(small_q4_k_m(weights=w), plan()) for w in (weights, small_q4_k_m().weights))
    assert twice.host_file_bytes == once.host_file_bytes
    assert twice.host_anon_bytes == once.host_anon_bytes + weights.tied_output
    assert twice.bytes_on[HOST] == once.bytes_on[HOST] + weights.tied_output


@given(
    layers=st.lists(st.integers(1, 2**32), min_size=1, max_size=40),
    n_params=st.integers(1, 2**42),
    quantization=st.sampled_from(["Q4_0", "Q4_K_S", "Q4_K_M", "IQ4_NL", "MXFP4_MOE", "Q8_0"]),
    use_mmap=st.booleans(),
)
def test_whatever_a_file_claims_the_parts_are_within_its_size(
    layers: list[int], n_params: int, quantization: str, use_mmap: bool
) -> None:
    n = len(layers)
    facts = small_q4_k_m(
        n_layers=n,
        n_params=n_params,
        quantization=quantization,
        weights=Weights(tuple(layers), 1000, 7, 0, ""),
        memory=Memory((256,) * n, (256,) * n, (False,) * n, 0, False),
    )
    price = estimate(facts, plan(use_mmap=use_mmap))
    assert 0 <= stale_bytes(price) <= sum(layers)
    assert price.host_anon_bytes >= price.kv_bytes
    assert price.host_file_bytes >= LIBRARY_BYTES


@pytest.mark.parametrize(("flash", "bytes_of_a_cell"), [(None, 2), (False, 4 * (14 + 1) + 2 * 14)])
def test_masks_and_scores_come_late(flash: bool | None, bytes_of_a_cell: int) -> None:
    load = plan(kv_cells=32_768, flash_attention=flash)
    price = estimate(shape(), load)
    assert price.host_late_bytes == 512 * 32_768 * bytes_of_a_cell
    assert price.host_late_bytes < price.compute_bytes < price.host_anon_bytes


def test_on_a_device_they_are_there_at_once() -> None:
    assert estimate(shape(), plan(n_gpu_layers=-1, devices=("gpu0",))).host_late_bytes == 0


# the largest context that fits


def price_of(facts: LlamaFacts, load: LoadPlan, n_ctx: int) -> dict[str, int]:
    cells = n_ctx * (load.n_slots if load.kv_layout == "split" else 1)
    return estimate(facts, msgspec.structs.replace(load, n_ctx=n_ctx, kv_cells=cells)).bytes_on


@given(
    room=st.integers(0, 1200 * MIB),
    layout=st.sampled_from(["unified", "split"]),
    kv_type=st.sampled_from(["f16", "q8_0"]),
    n_ctx_train=st.integers(1, 40_000),
)
def test_the_largest_context_fits_and_the_next_one_does_not(
    room: int, layout: str, kv_type: str, n_ctx_train: int
) -> None:
    facts, load = shape(n_ctx_train=n_ctx_train), plan(kv_layout=layout, kv_type=kv_type)
    found = largest_context(facts, load, {HOST: room})
    n_ctx = found or 0
    assert n_ctx % 256 == 0
    assert n_ctx < n_ctx_train + 256
    assert found is None or price_of(facts, load, n_ctx)[HOST] <= room
    assert n_ctx >= n_ctx_train or price_of(facts, load, n_ctx + 256)[HOST] > room


def test_every_pool_has_its_say() -> None:
    facts, load = shape(), plan(n_gpu_layers=6, devices=("gpu0", "gpu1"))
    plenty = dict.fromkeys((HOST, "gpu0", "gpu1"), 1 << 40)
    assert largest_context(facts, load, plenty) == facts.n_ctx_train
    tight = price_of(facts, load, 2048)
    assert largest_context(facts, load, tight) == 2048
    for pool in tight:
        assert largest_context(facts, load, plenty | {pool: tight[pool]}) == 2048
        assert largest_context(facts, load, {name: n for name, n in plenty.items() if name != pool}) is None


def test_slots_of_a_split_cache_each_get_the_whole_context() -> None:
    room = {HOST: 600 * MIB}
    unified, split = (largest_context(shape(), plan(kv_layout=layout), room) for layout in ("unified", "split"))
    assert unified is not None
    assert split is not None
    assert unified / 6 < split < unified / 3  # unified has a larger mask, too


@given(
    cells=st.lists(st.integers(1, 300_000), min_size=2, max_size=6).map(sorted), flash=st.sampled_from((None, False))
)
def test_more_cells_never_cost_less(cells: list[int], flash: bool | None) -> None:
    prices = [estimate(shape(), plan(kv_cells=n, flash_attention=flash)).bytes_on[HOST] for n in cells]
    assert all(a <= b for a, b in pairwise(prices))
