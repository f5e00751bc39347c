from __future__ import annotations

from typing import Any

import msgspec

from inferd.backends.facts import HOST
from inferd.backends.onnx.footprint import estimate, kv_bytes, largest_context
from inferd.backends.onnx.header import read_facts


def test_weights_are_the_most_of_a_large_model(onnx_models: Any, plan_of: Any) -> None:
    facts = read_facts(str(onnx_models["encoder"]))
    plan = plan_of(onnx_models["encoder"])
    small = estimate(facts, plan)
    large = estimate(msgspec.structs.replace(facts, weights_bytes=1 << 30), plan)
    assert 1.0 <= (large.bytes_on[HOST] - small.bytes_on[HOST]) / (1 << 30) <= 1.3
    assert small.host_anon_bytes < small.bytes_on[HOST]


def test_a_decoder_keeps_keys_and_values(onnx_models: Any, plan_of: Any) -> None:
    facts, plan = read_facts(str(onnx_models["decoder"])), plan_of(onnx_models["decoder"])
    assert kv_bytes(facts, plan) == 3.5 * 2048 * 2 * 4 * (16 + 16) * 4
    assert kv_bytes(facts, msgspec.structs.replace(plan, task="embed")) == 0


def test_the_longest_context_is_what_fits(onnx_models: Any, plan_of: Any) -> None:
    facts, plan = read_facts(str(onnx_models["decoder"])), plan_of(onnx_models["decoder"])
    need = estimate(facts, plan).bytes_on[HOST]
    assert largest_context(facts, plan, {HOST: need}) == 2048
    assert largest_context(facts, plan, {HOST: need - kv_bytes(facts, plan) // 2}) == 1024
    assert largest_context(facts, plan, {HOST: need // 100}) is None


def test_on_a_device_the_host_keeps_only_the_process(onnx_models: Any, plan_of: Any) -> None:
    facts = read_facts(str(onnx_models["encoder"]))
    price = estimate(facts, plan_of(onnx_models["encoder"], devices=("gpu0",)))
    assert set(price.bytes_on) == {"gpu0", HOST}
    assert price.bytes_on["gpu0"] > price.weights_bytes


def test_the_logits_of_a_prompt_have_their_price(onnx_models: Any, plan_of: Any) -> None:
    facts, plan = read_facts(str(onnx_models["decoder"])), plan_of(onnx_models["decoder"])
    more = estimate(msgspec.structs.replace(facts, n_vocab=facts.n_vocab + 100_000), plan).compute_bytes
    assert more - estimate(facts, plan).compute_bytes >= 4 * 256 * 100_000
