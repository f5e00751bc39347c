"""What a GGUF file is: its facts, from the header alone. A model split over several files is summed up."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from ..facts import CorruptModel, ModelFacts
from . import layers
from .ggml_types import FILE_TYPES
from .header import MAX_TENSORS, ArrayLength, Header, printable, read_header
from .keys import per_layer, whole

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..facts import Pooling
    from .header import Value

SUFFIX = ".gguf"
MAX_PARTS = 512
MAX_LAYERS = 512  # llama.cpp's own limit
MAX_COUNT = 2**31 - 1  # llama.cpp numbers tokens and positions in 32 bits

_PART = re.compile(r"(?P<stem>.+)-(?P<no>\d{5})-of-(?P<count>\d{5})\.gguf", re.DOTALL | re.IGNORECASE | re.ASCII)
_ARCHITECTURE = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
_POOLINGS: dict[int, Pooling] = {0: "", 1: "mean", 2: "cls", 3: "last", 4: "rank"}  # llama_pooling_type
_RECURRENT_ARCHITECTURES = {"mamba", "mamba2", "rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7"}


class LlamaFacts(ModelFacts, frozen=True, kw_only=True):
    """The common facts and what the footprint needs beyond them."""

    weights: layers.Weights
    memory: layers.Memory
    n_ff: int


def read_facts(path: str) -> LlamaFacts:
    """Raises CorruptModel."""
    header = read_header(path)
    count = whole(header.keys, "split.count", default=1, most=MAX_PARTS)
    if count > 1:
        header = _join(path, header, count)
    return facts_of(header, path)


def adapter_bytes(path: str, facts: ModelFacts) -> int:
    """Of the matrices of a LoRA adapter for this model. Raises CorruptModel."""
    header = read_header(path)
    kinds = header.keys.get("general.type"), header.keys.get("adapter.type")
    if kinds != ("adapter", "lora"):
        raise CorruptModel("general.type and adapter.type must say that it is a LoRA adapter")
    arch = header.keys.get("general.architecture")
    if arch != facts.architecture:
        raise CorruptModel(f"it is for {printable(str(arch), 20)!r}, but the model is of {facts.architecture!r}")
    if header.keys.get("adapter.alora.invocation_tokens") is not None:
        raise CorruptModel("it begins in mid-prompt (activated LoRA), which is not supported")
    if not header.tensors:
        raise CorruptModel("it has no matrices")
    return sum(tensor.n_bytes for tensor in header.tensors)


def part_paths(path: str) -> list[str]:
    """All files of the model that begins with `path`: itself alone if it is whole, none for a later part."""
    folder, name = os.path.split(path)
    match = _PART.fullmatch(name)
    if match is None:
        return [path]
    count = int(match["count"])
    if int(match["no"]) != 1 or not 1 <= count <= MAX_PARTS:
        return []
    suffix = name[-len(SUFFIX) :]
    names = (f"{match['stem']}-{no:05}-of-{count:05}{suffix}" for no in range(1, count + 1))
    return [os.path.join(folder, name) for name in names]


def stem(path: str) -> str:
    """The file's name without suffix and without the numbers of its part."""
    name = os.path.basename(path)
    match = _PART.fullmatch(name)
    return match["stem"] if match else name[: -len(SUFFIX)]


def _join(path: str, first: Header, count: int) -> Header:
    """The header of the whole model; the later parts bring only tensors."""
    no = whole(first.keys, "split.no", default=0, most=MAX_PARTS)
    if no != 0:
        raise CorruptModel(f"part {no + 1} of {count}; the first part stands for the model")
    paths = part_paths(path)
    if len(paths) != count:
        raise CorruptModel(f"part 1 of {count}, but its file name does not end in -00001-of-{count:05}.gguf")
    file_bytes, tensors = first.file_bytes, list(first.tensors)
    for i, part_path in enumerate(paths[1:], start=1):
        try:
            part = read_header(part_path)
        except CorruptModel as error:
            raise CorruptModel(f"part {i + 1} of {count}: {error}") from None
        if part.keys.get("split.no") != i or part.keys.get("split.count") != count:
            raise CorruptModel(f"part {i + 1} of {count} belongs to another model")
        file_bytes += part.file_bytes
        tensors += part.tensors
        if len(tensors) > MAX_TENSORS:
            raise CorruptModel(f"the parts have {len(tensors):,} tensors but {MAX_TENSORS:,} are allowed")
    expected = whole(first.keys, "split.tensors.count", default=len(tensors))
    n_names = len({tensor.name for tensor in tensors})
    if n_names != expected:
        raise CorruptModel(f"the parts have {n_names:,} tensors but {expected:,} were announced")
    return first._replace(file_bytes=file_bytes, tensors=tuple(tensors))


def facts_of(header: Header, path: str) -> LlamaFacts:
    """Raises CorruptModel where the header is sound but describes nothing that llama.cpp could serve."""
    keys = header.keys
    arch = _architecture(keys)
    if not header.tensors:
        raise CorruptModel("no tensors: a vocabulary without weights")
    n_layers = whole(keys, f"{arch}.block_count", least=1, most=MAX_LAYERS)
    n_embd = whole(keys, f"{arch}.embedding_length", least=1)
    heads = per_layer(keys, f"{arch}.attention.head_count", n_layers)
    kv_heads = per_layer(keys, f"{arch}.attention.head_count_kv", n_layers, max(heads))
    head_dim = n_embd // (max(heads) or 1)
    k_dim = whole(keys, f"{arch}.attention.key_length", default=head_dim)
    v_dim = whole(keys, f"{arch}.attention.value_length", default=head_dim)
    memory = layers.memory(header, arch, kv_heads, k_dim, v_dim)
    name = keys.get("general.name")
    return LlamaFacts(
        backend="llama",
        path=path,
        file_bytes=header.file_bytes,
        architecture=arch,
        quantization=_quantization(header),
        n_params=sum(tensor.n_elements for tensor in header.tensors),
        n_layers=n_layers,
        n_embd=n_embd,
        n_heads=max(heads),
        n_kv_heads=max(kv_heads),
        k_head_dim=k_dim,
        v_head_dim=v_dim,
        n_ctx_train=whole(keys, f"{arch}.context_length", least=1, most=MAX_COUNT),
        n_vocab=_n_vocab(header, arch),
        sliding_window=whole(keys, f"{arch}.attention.sliding_window", default=0, most=MAX_COUNT) or None,
        recurrent=memory.recurrent or arch in _RECURRENT_ARCHITECTURES,
        pooling=_pooling(header, arch),
        causal=layers.is_causal(keys, arch),
        n_embd_out=whole(keys, f"{arch}.embedding_length_out", default=0) or n_embd,
        has_chat_template=bool(keys.get("tokenizer.chat_template")),
        display_name=printable(name) if isinstance(name, str) and name else None,
        weights=layers.weights(header.tensors, n_layers),
        memory=memory,
        n_ff=layers.n_ff(keys, arch, n_layers, n_embd),
    )


def _architecture(keys: Mapping[str, Value]) -> str:
    arch = keys.get("general.architecture")
    if not isinstance(arch, str) or not _ARCHITECTURE.fullmatch(arch):
        raise CorruptModel("general.architecture must be a short lower-case name")
    if arch == "clip":
        raise CorruptModel("a projector for images, not a model by itself")
    kind = keys.get("general.type", "model")
    if kind != "model":
        raise CorruptModel(f"general.type says {printable(str(kind), 20)!r}, which is not a model by itself")
    return arch


def _quantization(header: Header) -> str:
    file_type = header.keys.get("general.file_type")
    if type(file_type) is int and file_type in FILE_TYPES:
        return FILE_TYPES[file_type]
    counts: dict[str, int] = {}
    for tensor in header.tensors:
        if len(tensor.shape) > 1:  # norms and biases are F32 whatever the file is
            counts[tensor.type_name] = counts.get(tensor.type_name, 0) + 1
    return max(counts, key=lambda name: counts[name]) if counts else header.tensors[0].type_name


def _pooling(header: Header, arch: str) -> Pooling:
    """Files of encoders that do not say it are older than the key; their models are made for the mean."""
    told = header.keys.get(f"{arch}.pooling_type")
    if told is not None and told != -1 and (type(told) is not int or told not in _POOLINGS):
        raise CorruptModel(f"{arch}.pooling_type must be a whole number between 0 and {max(_POOLINGS)}")
    pooling = _POOLINGS[told] if type(told) is int and told != -1 else ""
    if pooling == "rank" and not any(tensor.name.startswith("cls.") for tensor in header.tensors):
        raise CorruptModel(f"{arch}.pooling_type says rank, but there is no classifier head")
    return pooling or ("mean" if arch in layers.ENCODERS else "")


def _n_vocab(header: Header, arch: str) -> int:
    tokens = header.keys.get("tokenizer.ggml.tokens")
    if isinstance(tokens, ArrayLength):
        return tokens.n
    for tensor in header.tensors:
        if tensor.name == "token_embd.weight" and len(tensor.shape) > 1 and tensor.shape[1] <= MAX_COUNT:
            return tensor.shape[1]
    return whole(header.keys, f"{arch}.vocab_size", most=MAX_COUNT)
