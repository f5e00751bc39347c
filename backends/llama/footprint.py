"""What a load will take, by pool: arithmetic on the facts and the plan, nothing is opened or asked.

Weights count once in what is reserved. A CPU build of llama.cpp copies matrices of some types into another layout, and
the copy is what stays in use; the mapped pages it was made from are clean page cache that the kernel takes back when
somebody needs room, and no token ever reads them again. RSS shows both until then, so both are told: the copy among
the anonymous bytes, the pages among those of the file. Everything else of a worker is anonymous. llama.cpp clears the
whole KV cache when it makes it, so the cache is resident from the start. Graph buffers become so with the first full
batch, but for masks and scores, which do as far as cells are used; all are priced in full.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from ..facts import HOST, Footprint, LoadPlan, ModelFacts
from .gguf import LlamaFacts
from .layers import ENCODERS
from .pair import draft_plan, together

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# RSS of a worker on x86-64 Linux, less llama.cpp's own buffer-size lines.
PROCESS_BYTES = 31 << 20  # anonymous: Python, numpy, llama.cpp and our code with a model of two tiny layers
LIBRARY_BYTES = 24 << 20  # mapped from their files, the same for every model
TOKEN_BYTES = 300  # of the vocabulary, per token: 152 to 423 measured, with the merges of its tokenizer
LAYER_BYTES = 128 << 10  # what llama.cpp keeps about the tensors of a layer and its part of the graphs
DEVICE_CONTEXT_BYTES = (
    600 << 20
)  # what a device keeps for a process that has opened it; 601 MiB with CUDA 13 on an H200
KV_PADDING = 256  # cells
POOLED_SEQS = 64  # inputs of one call of a model that embeds

# (bytes, elements) of a block of cached keys or values
_KV_BLOCK = {"f32": (4, 1), "f16": (2, 1), "bf16": (2, 1), "q8_0": (34, 32), "q4_0": (18, 32)}
# What ggml repacks for AVX2; the others stay as they are in the file.
_REPACKED = {"Q4_0", "Q4_K", "IQ4_NL", "MXFP4"}
# By file type: bytes of a weight of the type that is repacked, and of the one that stands beside it in such a file.
_REPACKED_FILES = {
    "Q4_0": (18 / 32, 210 / 256),
    "Q4_K_S": (144 / 256, 176 / 256),
    "Q4_K_M": (144 / 256, 210 / 256),
    "IQ4_NL": (18 / 32, 176 / 256),
    "MXFP4_MOE": (17 / 32, 34 / 32),
}


class _HostWeights(NamedTuple):
    """Bytes on the host; the copies' originals are among those in the file."""

    in_file: int
    copied: int  # of what is in the file
    second: int  # the tied output, when it needs a layout of its own


def estimate(facts: ModelFacts, plan: LoadPlan) -> Footprint:
    """Facts that are not ours (a test's, say) are priced by their file size alone."""
    large = _alone(facts, plan)
    if plan.draft is None:
        return large
    small = _alone(plan.draft, draft_plan(plan))
    both = large.bytes_on.keys() & small.bytes_on.keys()
    once_on = {pool: PROCESS_BYTES + LIBRARY_BYTES if pool == HOST else DEVICE_CONTEXT_BYTES for pool in both}
    return together(large, small, once_on, LIBRARY_BYTES)


def _alone(facts: ModelFacts, plan: LoadPlan) -> Footprint:
    pools = _pools(facts.n_layers, plan)
    weights = _weights(facts, plan, pools)
    kv = _kv(facts, plan, pools)
    compute = _compute(facts, plan, pools)
    adapters = _adapters(plan, pools)
    bytes_on = _sum(
        item for part in (weights, adapters, kv, compute, {HOST: plan.cache_bytes}) for item in part.items()
    )
    host = _host_weights(facts, plan, pools)
    mapped = host.in_file if plan.use_mmap else 0
    stale = host.copied if plan.use_mmap else 0
    return Footprint(
        bytes_on=bytes_on,
        weights_bytes=sum(weights.values()) + sum(adapters.values()),
        kv_bytes=sum(kv.values()),
        compute_bytes=sum(compute.values()),
        host_anon_bytes=bytes_on[HOST] - plan.cache_bytes - LIBRARY_BYTES - (mapped - stale),
        host_file_bytes=LIBRARY_BYTES + mapped,
        host_late_bytes=_late_bytes(facts, plan) if HOST in pools else 0,
    )


def largest_context(facts: ModelFacts, plan: LoadPlan, room_bytes_on: Mapping[str, int]) -> int | None:
    """The longest context of one request, in tokens, that fits into so many free bytes by pool; None if none does.

    A multiple of 256, and no longer than the model was trained for (rounded up to one). The cache has the cells of
    one such context, or of one for every slot where it is split. All else is as in the plan; a pool that is not named
    has no room.
    """

    def fits(n_steps: int) -> bool:
        n_ctx = n_steps * KV_PADDING
        kv_cells = n_ctx * (plan.n_slots if plan.kv_layout == "split" else 1)
        price = estimate(facts, msgspec.structs.replace(plan, n_ctx=n_ctx, kv_cells=kv_cells))
        return all(n_bytes <= room_bytes_on.get(pool, 0) for pool, n_bytes in price.bytes_on.items())

    good, bad = 0, -(-facts.n_ctx_train // KV_PADDING) + 1
    while bad - good > 1:  # more cells never cost less
        middle = (good + bad) // 2
        good, bad = (middle, bad) if fits(middle) else (good, middle)
    return good * KV_PADDING or None


def _pools(n_layers: int, plan: LoadPlan) -> list[str]:
    """Where each layer goes, and as the last element the output: the end of the model is offloaded first."""
    n_parts = n_layers + 1
    wanted = n_parts if plan.n_gpu_layers < 0 else min(plan.n_gpu_layers, n_parts)
    on_device = wanted if plan.devices else 0
    pools = [HOST] * (n_parts - on_device)
    ends = list(accumulate(plan.tensor_split or [1 / len(plan.devices)] * len(plan.devices))) if on_device else []
    # llama.cpp takes the first device whose share ends beyond the layer (llama_model::load_tensors).
    return pools + [plan.devices[bisect_right(ends[:-1], i / on_device)] for i in range(on_device)]


# weights


def _weights(facts: ModelFacts, plan: LoadPlan, pools: list[str]) -> dict[str, int]:
    """What is in use, each matrix once."""
    if not isinstance(facts, LlamaFacts):
        return _sum((pool, facts.file_bytes // len(pools)) for pool in pools)
    weights = facts.weights
    *layer_pools, output_pool = pools
    parts = [(HOST, weights.input), (output_pool, weights.output)]
    if output_pool != HOST or (_repacks(plan, pools) and weights.tied_output_type in _REPACKED):
        # An embedding that is also the output matrix exists twice when the two are kept in different ways.
        parts.append((output_pool, weights.tied_output))
    return _sum(parts + list(zip(layer_pools, weights.layers, strict=True)))


def _adapters(plan: LoadPlan, pools: list[str]) -> dict[str, int]:
    """Each matrix lies beside the one that it adds to, and is read, not mapped."""
    n_bytes = sum(adapter.n_bytes for adapter in plan.adapters)
    layer_pools = pools[:-1] or pools
    return _sum((pool, -(-n_bytes // len(layer_pools))) for pool in layer_pools) if n_bytes else {}


def _host_weights(facts: ModelFacts, plan: LoadPlan, pools: list[str]) -> _HostWeights:
    in_use = _weights(facts, plan, pools).get(HOST, 0)
    if not isinstance(facts, LlamaFacts) or not _repacks(plan, pools):
        return _HostWeights(in_use, 0, 0)
    second = facts.weights.tied_output if facts.weights.tied_output_type in _REPACKED else 0
    copied = sum(_repacked_bytes(facts, n_bytes) for n_bytes in facts.weights.layers)
    return _HostWeights(in_use - second, copied, second)


def _repacks(plan: LoadPlan, pools: list[str]) -> bool:
    """Exact numerics keeps plain layouts, and beside a device llama.cpp prefers a layout the device can read."""
    return plan.numerics != "exact" and all(pool == HOST for pool in pools)


def _repacked_bytes(facts: LlamaFacts, layer_bytes: int) -> int:
    """Of one layer. Its size and the mean number of weights tell how many of them have the file's main type.

    Embedding and output have another type in such files, unless they are tied; within 0.3 % of three files measured.
    """
    if facts.quantization not in _REPACKED_FILES:
        return 0
    main, other = _REPACKED_FILES[facts.quantization]
    n_outside = facts.n_vocab * facts.n_embd * (1 if facts.weights.tied_output else 2)
    n_weights = max(0, facts.n_params - n_outside) / facts.n_layers
    n_others = (layer_bytes - n_weights * main) / (other - main)
    return int(main * min(max(n_weights - n_others, 0), layer_bytes / main))


# keys, values and states


def _kv(facts: ModelFacts, plan: LoadPlan, pools: list[str]) -> dict[str, int]:
    block_bytes, block = _KV_BLOCK[plan.kv_type]
    n_seqs = _n_seqs(plan)
    cells = _stream_cells(plan) * (1 if plan.kv_layout == "unified" else n_seqs)
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


def _stream_cells(plan: LoadPlan) -> int:
    """Cells that one row may look at: all of a unified cache, or the stream of one sequence, all equally long."""
    n_cells = plan.kv_cells if plan.kv_layout == "unified" else -(-plan.kv_cells // plan.n_slots)
    return -(-n_cells // KV_PADDING) * KV_PADDING


def _n_seqs(plan: LoadPlan) -> int:
    if plan.pooling:
        return POOLED_SEQS
    return plan.n_slots + (plan.kv_layout == "unified")  # the engine keeps one scratch sequence where it is free


# the process and its graphs


def _compute(facts: ModelFacts, plan: LoadPlan, pools: list[str]) -> dict[str, int]:
    """The worker itself, the logits it keeps, and one graph's buffers on every pool that computes."""
    logits_bytes, outputs_bytes = _outputs(facts, plan)
    process_bytes = PROCESS_BYTES + LIBRARY_BYTES + TOKEN_BYTES * facts.n_vocab + LAYER_BYTES * facts.n_layers
    parts = [(HOST, process_bytes + outputs_bytes)]
    graph_bytes = max(_layer_bytes(facts, plan), logits_bytes + 8 * plan.n_ubatch * facts.n_embd)
    parts += [(pool, graph_bytes + (0 if pool == HOST else DEVICE_CONTEXT_BYTES)) for pool in set(pools)]
    if HOST in pools:
        parts.append((HOST, _work_bytes(facts, plan)))
    else:
        parts.append((HOST, 4 * plan.n_ubatch * facts.n_embd))  # embeddings are still looked up here
    return _sum(parts)


def _outputs(facts: ModelFacts, plan: LoadPlan) -> tuple[int, int]:
    """Bytes of the logits that a graph computes, and of what llama.cpp keeps room for.

    With a pooling every row counts as an output, and there is room for its logits even where none are computed.
    """
    n_rows = plan.n_ubatch if plan.pooling else _n_seqs(plan) + plan.n_draft
    logits_bytes = 4 * n_rows * facts.n_vocab
    if not plan.pooling:
        return logits_bytes, logits_bytes
    computed = 0 if facts.architecture in ENCODERS else logits_bytes
    return computed, logits_bytes + 4 * n_rows * (facts.n_embd_out or facts.n_embd)


def _layer_bytes(facts: ModelFacts, plan: LoadPlan) -> int:
    """Activations alive at once in the widest layer; measured on fifteen shapes: 2 % too low to 16 % too high."""
    cells = _stream_cells(plan)
    row_bytes = 4 * plan.n_ubatch
    width = _width(facts)
    windowed = isinstance(facts, LlamaFacts) and any(facts.memory.windowed)
    n_masks = 2 if windowed else 1  # layers with a sliding window have one of their own
    feed_forward = row_bytes * (3 * _n_ff(facts) + 4 * width)
    if plan.flash_attention is not False:
        return feed_forward + 2 * plan.n_ubatch * cells * n_masks  # masks in 16 bits
    attention = row_bytes * (cells * (facts.n_heads + n_masks) + 6 * width)  # all scores of all heads, and the masks
    return max(feed_forward + row_bytes * cells * n_masks, attention)


def _work_bytes(facts: ModelFacts, plan: LoadPlan) -> int:
    """ggml's work buffer: what goes into the widest product once more, in 8 bits, or all scores in 16."""
    rows_bytes = plan.n_ubatch * max(_n_ff(facts), _width(facts)) * 34 // 32
    if plan.flash_attention is not False:
        return rows_bytes
    return max(rows_bytes, 2 * plan.n_ubatch * _stream_cells(plan) * facts.n_heads)


def _late_bytes(facts: ModelFacts, plan: LoadPlan) -> int:
    """Masks and scores. The second mask of a model with a sliding window lies where activations do (measured)."""
    bytes_of_a_cell = 2 if plan.flash_attention is not False else 4 * (facts.n_heads + 1) + 2 * facts.n_heads
    return plan.n_ubatch * _stream_cells(plan) * bytes_of_a_cell


def _width(facts: ModelFacts) -> int:
    return max(facts.n_embd, facts.n_heads * facts.k_head_dim)


def _n_ff(facts: ModelFacts) -> int:
    return facts.n_ff if isinstance(facts, LlamaFacts) else 4 * facts.n_embd


def _sum(parts: Iterable[tuple[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for pool, n_bytes in parts:
        total[pool] = total.get(pool, 0) + n_bytes
    return total
