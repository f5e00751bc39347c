"""What a load will take, by pool: arithmetic on the facts and the plan, nothing is opened or asked.

Weights count once. On a CPU llama.cpp copies some of them into another layout; the copy is what stays in use, and
the mapped pages it was made from are page cache that the kernel takes back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..facts import HOST, Footprint, LoadPlan, ModelFacts
from .gguf import LlamaFacts

if TYPE_CHECKING:
    from collections.abc import Iterable

WORKER_BYTES = 48 << 20  # Python, numpy and llama.cpp with an empty model: 42 MB measured, and our own code
TOKEN_BYTES = 400  # of the vocabulary, per token: 152 to 423 measured, with the merges of its tokenizer
DEVICE_CONTEXT_BYTES = 400 << 20  # what a device keeps for a process that has opened it
KV_PADDING = 256  # cells

# (bytes, elements) of a block of cached keys or values
_KV_BLOCK = {"f32": (4, 1), "f16": (2, 1), "bf16": (2, 1), "q8_0": (34, 32), "q4_0": (18, 32)}
# What ggml repacks for AVX2; the others stay as they are in the file.
_REPACKED = {"Q4_0", "Q4_K", "IQ4_NL", "MXFP4"}


def estimate(facts: ModelFacts, plan: LoadPlan) -> Footprint:
    """Facts that are not ours (a test's, say) are priced by their file size alone."""
    pools = _pools(facts.n_layers, plan)
    weights = _weights(facts, pools)
    kv = _kv(facts, plan, pools)
    compute = _compute(facts, plan, pools)
    bytes_on: dict[str, int] = {}
    for part in (weights, kv, compute):
        for pool, n_bytes in part.items():
            bytes_on[pool] = bytes_on.get(pool, 0) + n_bytes
    return Footprint(
        bytes_on=bytes_on,
        weights_bytes=sum(weights.values()),
        kv_bytes=sum(kv.values()),
        compute_bytes=sum(compute.values()),
    )


def _pools(n_layers: int, plan: LoadPlan) -> list[str]:
    """Where each layer goes, and as the last element the output: the end of the model is offloaded first."""
    n_parts = n_layers + 1
    wanted = n_parts if plan.n_gpu_layers < 0 else min(plan.n_gpu_layers, n_parts)
    on_device = wanted if plan.devices else 0
    pools = [HOST] * (n_parts - on_device)
    return pools + [plan.devices[i * len(plan.devices) // on_device] for i in range(on_device)]


def _weights(facts: ModelFacts, pools: list[str]) -> dict[str, int]:
    if not isinstance(facts, LlamaFacts):
        return _sum((pool, facts.file_bytes // len(pools)) for pool in pools)
    weights = facts.weights
    *layer_pools, output_pool = pools
    parts = [(HOST, weights.input), (output_pool, weights.output)]
    if output_pool != HOST or weights.tied_output_type in _REPACKED:
        # An embedding that is also the output matrix exists twice when the two are kept in different ways.
        parts.append((output_pool, weights.tied_output))
    return _sum(parts + list(zip(layer_pools, weights.layers, strict=True)))


def _kv(facts: ModelFacts, plan: LoadPlan, pools: list[str]) -> dict[str, int]:
    block_bytes, block = _KV_BLOCK[plan.kv_type]
    n_seqs = _n_seqs(plan)
    if plan.kv_layout == "unified":
        cells = _padded(plan.kv_cells, KV_PADDING)
    else:  # every sequence has its own stream of the same length
        cells = _padded(-(-plan.kv_cells // plan.n_slots), KV_PADDING) * n_seqs
    if isinstance(facts, LlamaFacts):
        elements = [k + v for k, v in zip(facts.memory.k, facts.memory.v, strict=True)]
        state_bytes = facts.memory.state_bytes
    else:
        elements = [facts.n_kv_heads * (facts.k_head_dim + facts.v_head_dim)] * facts.n_layers
        state_bytes = 0
    # Layers with a sliding window are priced in full: llama.cpp keeps all their cells unless told otherwise.
    parts = [(pool, n * cells * block_bytes // block) for pool, n in zip(pools, elements, strict=False)]
    parts.append((pools[0], state_bytes * n_seqs))
    return _sum(parts)


def _compute(facts: ModelFacts, plan: LoadPlan, pools: list[str]) -> dict[str, int]:
    """The worker itself, the logits it keeps, and one graph's buffers on every pool that computes."""
    n_seqs = _n_seqs(plan)
    logits_bytes = 4 * n_seqs * facts.n_vocab
    parts = [(HOST, WORKER_BYTES + TOKEN_BYTES * facts.n_vocab + logits_bytes)]
    graph_bytes = max(_layer_bytes(facts, plan), logits_bytes + 8 * plan.n_ubatch * facts.n_embd)
    parts += [(pool, graph_bytes + (0 if pool == HOST else DEVICE_CONTEXT_BYTES)) for pool in set(pools)]
    if HOST not in pools:
        parts.append((HOST, 4 * plan.n_ubatch * facts.n_embd))  # embeddings are still looked up here
    return _sum(parts)


def _layer_bytes(facts: ModelFacts, plan: LoadPlan) -> int:
    """Activations alive at once in the widest layer; measured on nine shapes: 2 % too low to 16 % too high."""
    cells = plan.kv_cells
    row_bytes = 4 * plan.n_ubatch
    width = max(facts.n_embd, facts.n_heads * facts.k_head_dim)
    n_ff = facts.n_ff if isinstance(facts, LlamaFacts) else 4 * facts.n_embd
    feed_forward = row_bytes * (3 * n_ff + 4 * width)
    if plan.flash_attention is not False:
        return feed_forward + 2 * plan.n_ubatch * cells  # with the mask in 16 bits
    attention = row_bytes * (cells * (facts.n_heads + 1) + 6 * width)  # all scores of all heads, and the mask
    return max(feed_forward + row_bytes * cells, attention)


def _n_seqs(plan: LoadPlan) -> int:
    return plan.n_slots + (plan.kv_layout == "unified")  # the engine keeps one scratch sequence where it is free


def _sum(parts: Iterable[tuple[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for pool, n_bytes in parts:
        total[pool] = total.get(pool, 0) + n_bytes
    return total


def _padded(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple
