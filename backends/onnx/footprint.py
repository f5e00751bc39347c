"""Bytes that a worker with an ONNX model takes, from the facts alone.

Measured (see DESIGN.md): the process, the weights, of which some are packed a second time for the kernels, and the
tensors of the largest call. What was seen of a model corrects the next estimate (policy/corrections.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..facts import HOST, Footprint
from .roles import USE_CACHE
from .window import CALL_TOKENS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..facts import LoadPlan, ModelFacts

PROCESS_ANON_BYTES = 38 * 2**20
PROCESS_FILE_BYTES = 42 * 2**20  # pages of the libraries
PACKED = 1.05  # weights in memory by those in the file
FLOAT_BYTES = 4
CHUNK = 256  # tokens of a prompt that are computed between two tokens of the answers beside it
# Times what all heads of a layer make of the tokens of a call: 1.5 when the largest call comes first, and up to 3 when
# shorter ones have left pieces in the arena that are too small for it.
SCORES = 2
STATES = 5  # hidden states beside them
WIDE = 10  # hidden states where a layer is widest, and keeps no scores
LOGITS = 2.5  # times those of a piece of a prompt: every token has them
PASTS = 3.5  # times the past: the one made from it, one that others join, and what is left of shorter ones
IO_BYTES = 64 * 2**20  # tensors of one request that come and go
# On an NVIDIA H200 a context, the provider's kernels, cuBLAS and cuDNN take 744 MiB of it; the arena grows in powers of
# two, as pieces that grow by a row with each token would each be a region of their own otherwise.
CUDA_BYTES = 768 * 2**20
CUDA_HOST_BYTES = 512 * 2**20
ARENA = 1.5


def estimate(facts: ModelFacts, plan: LoadPlan) -> Footprint:
    n_sessions = 2 if plan.n_lanes > 1 else 1  # one with all threads, and one of which calls run side by side
    weights = int(max(facts.weights_bytes, facts.file_bytes // 2) * PACKED) * n_sessions
    kv = kv_bytes(facts, plan)
    compute = _activations(facts, plan) * plan.n_lanes
    if plan.devices:
        host = PROCESS_ANON_BYTES + PROCESS_FILE_BYTES + CUDA_HOST_BYTES
        host += int(2 * kv / PASTS)  # a past that others join, or leave, is put together there
        on = {plan.devices[0]: int((weights + kv + compute) * ARENA) + CUDA_BYTES, HOST: host}
        return Footprint(bytes_on=on, weights_bytes=weights, kv_bytes=kv, compute_bytes=compute)
    anon = PROCESS_ANON_BYTES + weights + kv + compute
    return Footprint(
        bytes_on={HOST: anon + PROCESS_FILE_BYTES},
        weights_bytes=weights,
        kv_bytes=kv,
        compute_bytes=compute,
        host_anon_bytes=anon,
        host_file_bytes=PROCESS_FILE_BYTES,
        host_late_bytes=kv + compute,
    )


def kv_bytes(facts: ModelFacts, plan: LoadPlan) -> int:
    """Keys and values of all slots, of a model that generates."""
    if plan.task != "generate":
        return 0
    row = facts.n_layers * facts.n_kv_heads * (facts.k_head_dim + facts.v_head_dim) * FLOAT_BYTES
    return int(PASTS * row * plan.kv_cells)


def _activations(facts: ModelFacts, plan: LoadPlan) -> int:
    """Of the largest call: texts as long as they may be; of other tensors nothing is known before the first."""
    if plan.task == "infer" or not facts.n_embd:
        return IO_BYTES
    generates = plan.task == "generate"
    n_tokens = CHUNK if generates else max(plan.n_ctx, CALL_TOKENS)
    if generates and any(tensor.name == USE_CACHE for tensor in facts.inputs):
        n_tokens = plan.n_ctx  # its prompts are computed as a whole
    hidden = n_tokens * facts.n_embd * FLOAT_BYTES
    scores = facts.n_heads * n_tokens * plan.n_ctx * FLOAT_BYTES
    logits = LOGITS * n_tokens * facts.n_vocab * FLOAT_BYTES if generates else 0
    return int(max(SCORES * scores + STATES * hidden, WIDE * hidden) + logits)


def largest_context(facts: ModelFacts, plan: LoadPlan, room_bytes_on: Mapping[str, int]) -> int | None:
    """What fits besides the weights; only a model that generates keeps what it has read."""
    if plan.task != "generate":
        return None
    needed = estimate(facts, plan).bytes_on
    pool = plan.devices[0] if plan.devices else HOST
    free = room_bytes_on.get(pool, 0) - (needed[pool] - kv_bytes(facts, plan))
    row = max(1, kv_bytes(facts, plan) // max(1, plan.kv_cells))
    n_cells = free // row // 256 * 256
    return n_cells if n_cells > 0 else None
