"""What each layer of a model weighs and remembers: weights, keys and values, sliding windows, states."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from .header import ArrayLength
from .keys import per_layer, whole

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .header import Header, Tensor, Value

_LAYER = re.compile(r"blk\.(\d{1,4})\.(.+)", re.DOTALL | re.ASCII)
_RECURRENT_TENSOR = re.compile(r"ssm_|time_mix_|shortconv\.")

# They look at a text as a whole and remember nothing, whatever else their files say.
ENCODERS = {
    "bert",
    "eurobert",
    "gemma-embedding",
    "jina-bert-v2",
    "jina-bert-v3",
    "modern-bert",
    "neo-bert",
    "nomic-bert",
    "nomic-bert-moe",
}

# (period, full layer first): one of each `period` layers attends to everything, the last if not told.
_WINDOW_PERIODS = {
    "afmoe": (4, False),
    "cohere2": (4, False),
    "cohere2moe": (4, True),
    "exaone-moe": (4, False),
    "exaone4": (4, False),
    "gemma-embedding": (6, False),
    "gemma2": (2, False),
    "gemma3": (6, False),
    "gemma3n": (5, False),
    "gpt-oss": (2, False),
    "laguna": (4, True),
    "llama4": (4, False),
    "mellum": (4, False),
    "modern-bert": (3, True),
    "muse-glimmer": (4, False),
    "olmo2": (4, False),
    "plamo3": (8, False),
    "smallthinker": (4, True),
}


class Weights(NamedTuple):
    """Bytes; the tied output is the embedding where it also serves as the output matrix."""

    layers: tuple[int, ...]
    input: int
    output: int
    tied_output: int
    tied_output_type: str


class Memory(NamedTuple):
    """What one token and one sequence leave behind, per layer."""

    k: tuple[int, ...]  # elements
    v: tuple[int, ...]
    windowed: tuple[bool, ...]
    state_bytes: int  # of one sequence, all layers together
    recurrent: bool


def weights(tensors: tuple[Tensor, ...], n_layers: int) -> Weights:
    layers = [0] * n_layers
    for layer, _, tensor in _layer_tensors(tensors):
        if layer < n_layers:
            layers[layer] += tensor.n_bytes
    by_name = {tensor.name: tensor for tensor in tensors}
    output = sum(tensor.n_bytes for tensor in tensors if tensor.name.startswith("output"))
    embedding = by_name.get("token_embd.weight")
    tied = embedding if embedding and "output.weight" not in by_name else None
    return Weights(
        layers=tuple(layers),
        input=sum(tensor.n_bytes for tensor in tensors) - sum(layers) - output,
        output=output,
        tied_output=tied.n_bytes if tied else 0,
        tied_output_type=tied.type_name if tied else "",
    )


def memory(header: Header, arch: str, kv_heads: tuple[int, ...], k_dim: int, v_dim: int) -> Memory:
    keys, n_layers = header.keys, len(kv_heads)
    recurrent, cached = _kept_by(header, arch, n_layers)
    windowed = _windowed(keys, arch, n_layers)
    k_windowed = whole(keys, f"{arch}.attention.key_length_swa", default=k_dim)
    v_windowed = whole(keys, f"{arch}.attention.value_length_swa", default=v_dim)
    # Multi-head latent attention keeps one compressed vector per token; its values are a view into the keys.
    latent = bool(keys.get(f"{arch}.attention.key_length_mla"))
    k, v = [0] * n_layers, [0] * n_layers
    for i in cached:
        k[i] = kv_heads[i] * (k_windowed if windowed[i] else k_dim)
        v[i] = 0 if latent else kv_heads[i] * (v_windowed if windowed[i] else v_dim)
    state_bytes = len(recurrent) * _state_bytes(keys, arch)
    return Memory(tuple(k), tuple(v), windowed, state_bytes, bool(recurrent))


def _kept_by(header: Header, arch: str, n_layers: int) -> tuple[set[int], list[int]]:
    """The layers with a recurrent state and those with keys and values; a hybrid layer may have both."""
    recurrent: set[int] = set()
    attending: set[int] = set()
    for layer, rest, _ in _layer_tensors(header.tensors):
        if _RECURRENT_TENSOR.match(rest):
            recurrent.add(layer)
        if rest == "attn_k.weight":
            attending.add(layer)
    if arch in ENCODERS:
        return recurrent, []  # an encoder computes everything at once and remembers nothing
    borrowing = whole(header.keys, f"{arch}.attention.shared_kv_layers", default=0)
    return recurrent, [i for i in range(n_layers - borrowing) if i not in recurrent or i in attending]


def is_causal(keys: Mapping[str, Value], arch: str) -> bool:
    """Whether a token looks only at those before it."""
    return arch not in ENCODERS and keys.get(f"{arch}.attention.causal") is not False


def _windowed(keys: Mapping[str, Value], arch: str, n_layers: int) -> tuple[bool, ...]:
    """An architecture we do not know keeps everything: too many bytes booked are better than too few."""
    if not keys.get(f"{arch}.attention.sliding_window"):
        return (False,) * n_layers
    period, full_first = _WINDOW_PERIODS.get(arch, (1, False))
    told = keys.get(f"{arch}.attention.sliding_window_pattern")
    if isinstance(told, tuple) and not isinstance(told, ArrayLength) and len(told) >= n_layers:
        return tuple(bool(element) for element in told[:n_layers])
    if type(told) is int and told >= 0 and arch in _WINDOW_PERIODS:
        period = told
    if period == 0:
        return (True,) * n_layers
    full = 0 if full_first else period - 1
    return tuple(i % period != full for i in range(n_layers))


def _state_bytes(keys: Mapping[str, Value], arch: str) -> int:
    """Of one layer and one sequence; always kept in 32-bit floats."""
    n_embd = whole(keys, f"{arch}.embedding_length")
    if head_size := whole(keys, f"{arch}.wkv.head_size", default=0):
        return 4 * n_embd * (whole(keys, f"{arch}.token_shift_count", default=2) + head_size)
    if n_conv := whole(keys, f"{arch}.shortconv.l_cache", default=0):
        return 4 * n_embd * (n_conv - 1)
    inner = whole(keys, f"{arch}.ssm.inner_size", default=0)
    state = whole(keys, f"{arch}.ssm.state_size", default=0)
    groups = whole(keys, f"{arch}.ssm.group_count", default=0)
    n_conv = max(whole(keys, f"{arch}.ssm.conv_kernel", default=0) - 1, 0)
    return 4 * (n_conv * (inner + 2 * groups * state) + inner * state)


def n_ff(keys: Mapping[str, Value], arch: str, n_layers: int, n_embd: int) -> int:
    """Width of the widest feed-forward layer that one token goes through."""
    dense = max(per_layer(keys, f"{arch}.feed_forward_length", n_layers, 4 * n_embd))
    expert = max(per_layer(keys, f"{arch}.expert_feed_forward_length", n_layers)) or dense
    return max(dense, expert * whole(keys, f"{arch}.expert_used_count", default=0))


def _layer_tensors(tensors: tuple[Tensor, ...]) -> Iterator[tuple[int, str, Tensor]]:
    for tensor in tensors:
        if match := _LAYER.fullmatch(tensor.name):
            yield int(match[1]), match[2], tensor
