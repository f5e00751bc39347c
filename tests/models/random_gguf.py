"""GGUF files of any shape with random weights: for tests, memory estimates and benchmarks, never for answers."""

from __future__ import annotations

import argparse
import ctypes
import random
import zlib
from dataclasses import dataclass, fields, replace
from itertools import product
from pathlib import Path
from string import ascii_lowercase
from typing import TYPE_CHECKING, Any

import gguf
import numpy as np
from gguf.quants import quantize

if TYPE_CHECKING:
    from collections.abc import Iterator

CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
# Matrices are drawn and quantized this many values at a time, so that memory stays near one finished tensor.
VALUES_AT_ONCE = 4 * 1024 * 1024
# Embeddings are small and the last norm makes up for it: a tied model would otherwise repeat its last token for ever.
EMBEDDING_SPREAD = 0.1
LOGIT_SPREAD = 2.5

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Shape:
    """Everything that decides the tensors; `arch` is `llama`, `qwen2` or `gemma3` (the one with a sliding window)."""

    arch: str = "llama"
    n_vocab: int = 512
    n_embd: int = 64
    n_layer: int = 2
    n_head: int = 4
    n_head_kv: int = 2
    n_ff: int = 128
    n_ctx_train: int = 2048
    rope_base: float = 10_000.0
    tied: bool = True
    sliding_window: int | None = None
    ring: int = 0  # not 0: a token is followed by the next one of its ring of so many, whatever came before
    n_awake: int = 0  # not 0: only the first so many layers change anything, so a model of just those says the same
    pooling: str = ""  # mean, cls or last, for a model that embeds
    seed: int = 1

    def __post_init__(self) -> None:
        if self.arch not in ("llama", "qwen2", "gemma3"):
            raise ValueError(f"arch must be llama, qwen2 or gemma3, not {self.arch}")
        if self.n_embd % self.n_head or self.n_head % self.n_head_kv or self.n_embd // self.n_head % 2:
            raise ValueError("n_head must divide n_embd into even heads, and n_head_kv must divide n_head")
        if self.n_embd % 32 or self.n_ff % 32:
            raise ValueError("n_embd and n_ff must be multiples of 32")
        if (self.sliding_window is not None) != (self.arch == "gemma3"):
            raise ValueError("sliding_window belongs to gemma3, and gemma3 needs one")
        if self.ring and self.tied:
            raise ValueError("a ring needs an output matrix of its own: tied = False")
        if not 256 + len(CONTROL) <= self.n_vocab <= 400_000:
            raise ValueError("n_vocab must be from 259 to 400000")

    @property
    def n_head_dim(self) -> int:
        return self.n_embd // self.n_head


SHAPES = {
    "tiny": Shape(),
    "tiny-qwen2": Shape(arch="qwen2"),
    "tiny-gemma3": Shape(arch="gemma3", n_layer=6, sliding_window=64),
    "60m": Shape(n_vocab=151_936, n_embd=256, n_layer=6, n_head=8, n_head_kv=2, n_ff=1024, n_ctx_train=8192),
    "qwen2-0.5b": Shape("qwen2", 151_936, 896, 24, 14, 2, 4864, 32_768, 1_000_000.0),
    "ring-0.5b": Shape("qwen2", 151_936, 896, 24, 14, 2, 4864, 32_768, 1_000_000.0, tied=False, ring=32),
    "llama-300m": Shape(n_vocab=32_000, n_embd=1024, n_layer=20, n_head=16, n_head_kv=4, n_ff=3072, n_ctx_train=8192),
    "padded-300m": Shape("llama", 32_000, 1024, 20, 16, 4, 3072, 8192, n_awake=1),
    "unpadded-300m": Shape("llama", 32_000, 1024, 1, 16, 4, 3072, 8192),
    "stranger-300m": Shape("llama", 32_000, 768, 1, 12, 4, 3072, 8192),
    "llama-1b": Shape("llama", 128_256, 2048, 16, 32, 8, 8192, 131_072, 500_000.0),
}
QUANTS = {
    "f32": (gguf.GGMLQuantizationType.F32, gguf.LlamaFileType.ALL_F32),
    "f16": (gguf.GGMLQuantizationType.F16, gguf.LlamaFileType.MOSTLY_F16),
    "q8_0": (gguf.GGMLQuantizationType.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
}


def write_random_gguf(
    path: Path,
    shape: Shape,
    quant: str = "q8_0",
    name: str = "random",
    *,
    chat_template: str | None = None,
    control: tuple[str, ...] = (),
) -> Path:
    """Write the file and return its path; `q4_k_m` is llama.cpp's own mix of types, made from a Q8_0 file.

    `control` are control tokens beside the usual ones.
    """
    if quant == "q4_k_m":
        return _write_q4_k_m(path, shape, name)
    if quant not in QUANTS:
        raise ValueError(f"quant must be one of {', '.join((*QUANTS, 'q4_k_m'))}, not {quant}")
    kind, file_type = QUANTS[quant]
    writer = gguf.GGUFWriter(path, shape.arch)
    _describe(writer, shape, name, file_type)
    add_vocabulary(writer, shape, chat_template or CHAT_TEMPLATE, (*control, *CONTROL))
    plan = [(tensor, dims, kind if len(dims) == 2 else QUANTS["f32"][0]) for tensor, dims in tensors(shape)]
    for tensor, dims, its_kind in plan:
        stored, dtype = _stored(dims, its_kind)
        writer.add_tensor_info(tensor, stored, dtype, int(np.prod(stored)) * dtype.itemsize, raw_dtype=its_kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for tensor, dims, its_kind in plan:
        writer.write_tensor_data(_values(shape, tensor, dims, its_kind))
    writer.close()
    return path


def tensors(shape: Shape) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes in row order (outputs, inputs), as numpy has them and GGUF reverses them."""
    width, ff, kv_width = shape.n_embd, shape.n_ff, shape.n_head_kv * shape.n_head_dim
    yield "token_embd.weight", (shape.n_vocab, width)
    for i in range(shape.n_layer):
        at = f"blk.{i}."
        yield at + "attn_norm.weight", (width,)
        for letter, rows in (("q", width), ("k", kv_width), ("v", kv_width)):
            yield f"{at}attn_{letter}.weight", (rows, width)
            if shape.arch == "qwen2":
                yield f"{at}attn_{letter}.bias", (rows,)
        yield at + "attn_output.weight", (width, width)
        if shape.arch == "gemma3":
            yield at + "attn_q_norm.weight", (shape.n_head_dim,)
            yield at + "attn_k_norm.weight", (shape.n_head_dim,)
            yield at + "post_attention_norm.weight", (width,)
            yield at + "post_ffw_norm.weight", (width,)
        yield at + "ffn_norm.weight", (width,)
        yield at + "ffn_gate.weight", (ff, width)
        yield at + "ffn_up.weight", (ff, width)
        yield at + "ffn_down.weight", (width, ff)
    yield "output_norm.weight", (width,)
    if not shape.tied:
        yield "output.weight", (shape.n_vocab, width)


def vocabulary(shape: Shape, control: tuple[str, ...] = CONTROL) -> tuple[list[str], list[str]]:
    """Tokens in GPT-2's byte letters, and merges: bytes, letter pairs, random pairs of pairs, control tokens."""
    letters = list(_byte_letters())
    blank = _byte_letters()[ord(" ")]
    firsts = [a + b for a, b in product([blank, *ascii_lowercase], ascii_lowercase)]
    # Only pairs without a blank may come second, as in a vocabulary made from words.
    seconds = firsts[len(ascii_lowercase) :]
    pairs = [(pair[0], pair[1]) for pair in firsts]
    n_merges = shape.n_vocab - len(letters) - len(control)
    chosen = random.Random(shape.seed).sample(range(len(firsts) * len(seconds)), max(0, n_merges - len(pairs)))
    longer = [(firsts[i // len(seconds)], seconds[i % len(seconds)]) for i in chosen]
    merges = [*pairs[:n_merges], *longer]
    tokens = [*letters, *(a + b for a, b in merges), *control]
    return tokens, [f"{a} {b}" for a, b in merges]


def deep_enough(shape: Shape, quant: str, n_bytes: int) -> Shape:
    """The same shape with as many layers as come nearest to this many bytes of weights."""
    bits = {"f32": 32.0, "f16": 16.0, "q8_0": 8.5, "q4_k_m": 4.9}[quant]
    none, one = (
        sum(int(np.prod(dims)) for _, dims in tensors(replace(shape, n_layer=n_layer))) * bits / 8 for n_layer in (0, 1)
    )
    return replace(shape, n_layer=max(1, round((n_bytes - none) / (one - none))))


def _byte_letters() -> list[str]:
    """GPT-2's printable letter for each byte; here in byte order."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in printable]
    return [chr(byte if byte in printable else 256 + hidden.index(byte)) for byte in range(256)]


def _describe(writer: gguf.GGUFWriter, shape: Shape, name: str, file_type: gguf.LlamaFileType) -> None:
    writer.add_name(name)
    writer.add_file_type(file_type)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_vocab_size(shape.n_vocab)
    writer.add_context_length(shape.n_ctx_train)
    writer.add_embedding_length(shape.n_embd)
    writer.add_block_count(shape.n_layer)
    writer.add_feed_forward_length(shape.n_ff)
    writer.add_head_count(shape.n_head)
    writer.add_head_count_kv(shape.n_head_kv)
    writer.add_key_length(shape.n_head_dim)
    writer.add_value_length(shape.n_head_dim)
    writer.add_rope_dimension_count(shape.n_head_dim)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_layer_norm_rms_eps(1e-6)
    if shape.pooling:
        writer.add_pooling_type(gguf.PoolingType[shape.pooling.upper()])
    if shape.sliding_window is not None:
        writer.add_sliding_window(shape.sliding_window)


def add_vocabulary(
    writer: gguf.GGUFWriter,
    shape: Shape,
    chat_template: str = CHAT_TEMPLATE,
    markers: tuple[str, ...] = CONTROL,
) -> None:
    """Tokens, merges, marks and a chat template."""
    tokens, merges = vocabulary(shape, markers)
    normal, control = gguf.TokenType.NORMAL, gguf.TokenType.CONTROL
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types([normal] * (len(tokens) - len(markers)) + [control] * len(markers))
    writer.add_token_merges(merges)
    end_of_text, _, im_end = (tokens.index(token) for token in CONTROL)
    writer.add_bos_token_id(end_of_text)
    writer.add_eos_token_id(im_end)
    writer.add_eot_token_id(im_end)
    writer.add_pad_token_id(end_of_text)
    writer.add_add_bos_token(False)
    writer.add_chat_template(chat_template)


def _stored(dims: tuple[int, ...], kind: gguf.GGMLQuantizationType) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """How numpy holds the finished tensor: quantized rows are bytes."""
    if kind is gguf.GGMLQuantizationType.Q8_0:
        return (*dims[:-1], dims[-1] // 32 * 34), np.dtype(np.uint8)
    return dims, np.dtype(np.float16 if kind is gguf.GGMLQuantizationType.F16 else np.float32)


def _values(shape: Shape, name: str, dims: tuple[int, ...], kind: gguf.GGMLQuantizationType) -> Array:
    """The same values for the same seed and name, whatever comes before them in the file."""
    rings = shape.ring and name == "output.weight"  # what follows a token looks like it
    draw = np.random.default_rng([shape.seed, zlib.crc32(b"token_embd.weight" if rings else name.encode())])
    if len(dims) == 1:
        middle, spread = (1.0, 0.05) if name.endswith("norm.weight") else (0.0, 0.1)
        middle = LOGIT_SPREAD / EMBEDDING_SPREAD if name == "output_norm.weight" else middle
        return (middle + spread * draw.standard_normal(dims, dtype=np.float32)).astype(np.float32)
    if name.endswith(("attn_output.weight", "ffn_down.weight")) and (shape.ring or _sleeps(shape, name)):
        zeros: Array = quantize(np.zeros(dims, np.float32), kind)
        return zeros
    scale = (EMBEDDING_SPREAD if name in ("token_embd.weight", "output.weight") else 1.0) / np.sqrt(dims[1])
    stored, dtype = _stored(dims, kind)
    finished = np.empty(stored, dtype)
    n_rows = max(1, VALUES_AT_ONCE // dims[1])
    if rings:
        n_rows = max(1, n_rows // shape.ring) * shape.ring
    for row in range(0, dims[0], n_rows):
        part = draw.standard_normal((min(n_rows, dims[0] - row), dims[1]), dtype=np.float32) * np.float32(scale)
        if rings:
            whole = len(part) // shape.ring * shape.ring
            part[:whole] = np.roll(part[:whole].reshape(-1, shape.ring, dims[1]), 1, axis=1).reshape(-1, dims[1])
        finished[row : row + n_rows] = quantize(part, kind)
    return finished


def _sleeps(shape: Shape, name: str) -> bool:
    return bool(shape.n_awake) and int(name.split(".")[1]) >= shape.n_awake


def _write_q4_k_m(path: Path, shape: Shape, name: str) -> Path:
    import llama_cpp  # only here: the other types need no native library

    quiet = llama_cpp.llama_log_callback(lambda _level, _text, _data: None)
    before, its_data = llama_cpp.llama_log_callback(), ctypes.c_void_p()
    llama_cpp.llama_log_get(ctypes.byref(before), ctypes.byref(its_data))
    between = write_random_gguf(path.with_name(path.name + ".q8_0"), shape, "q8_0", name)
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_K_M
    params.allow_requantize = True
    llama_cpp.llama_log_set(quiet, ctypes.c_void_p())
    try:
        code = llama_cpp.llama_model_quantize(bytes(between), bytes(path), ctypes.byref(params))
    finally:
        llama_cpp.llama_log_set(before, its_data)
        between.unlink()
    if code != 0:
        raise RuntimeError(f"llama.cpp could not quantize this shape (code {code})")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, metavar="OUT.gguf")
    parser.add_argument("--shape", choices=SHAPES, default="tiny")
    parser.add_argument("--quant", choices=(*QUANTS, "q4_k_m"), default="q8_0")
    parser.add_argument("--mib", type=int, help="choose the number of layers so that the weights take about this much")
    for field in fields(Shape):
        kind = {"arch": str, "pooling": str, "rope_base": float}.get(field.name, int)
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=kind, help=argparse.SUPPRESS)
    options = parser.parse_args()
    given = {field.name: getattr(options, field.name) for field in fields(Shape)}
    shape = replace(SHAPES[options.shape], **{name: value for name, value in given.items() if value is not None})
    if options.mib is not None:
        shape = deep_enough(shape, options.quant, options.mib * 1024 * 1024)
    write_random_gguf(options.out, shape, options.quant, options.shape)
    print(f"{options.out}: {options.out.stat().st_size:,} bytes, {shape}")


if __name__ == "__main__":
    main()
