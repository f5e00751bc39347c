"""What layers weigh and remember, by the tensors and keys of different kinds of models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from inferd.backends.llama.gguf import facts_of
from inferd.backends.llama.header import read_header

if TYPE_CHECKING:
    from pathlib import Path

    from inferd.backends.llama.gguf import LlamaFacts

ROW = 64 // 32 * 34  # bytes of a row of 64 in Q8_0


@pytest.fixture
def facts(tmp_path: Path) -> Any:
    def read(file: Any) -> LlamaFacts:
        path = tmp_path / "m.gguf"
        path.write_bytes(file.build())
        return facts_of(read_header(path), "m")

    return read


def test_weights(facts: Any, gguf: Any) -> None:
    file = gguf.small()
    weights = facts(file).weights
    assert weights.layers == ((32 + 128) * ROW + 256,) * 2
    assert (weights.input, weights.output) == (64 * ROW, 64 * ROW + 256)
    assert weights.tied_output == 0
    del file.tensors["output.weight"]
    tied = facts(file).weights
    assert (tied.tied_output, tied.tied_output_type, tied.output) == (64 * ROW, "Q8_0", 256)


def test_plain_attention(facts: Any, gguf: Any) -> None:
    memory = facts(gguf.small()).memory
    assert (memory.k, memory.v, memory.state_bytes) == ((32, 32), (32, 32), 0)


def test_heads_of_each_layer(facts: Any, gguf: Any) -> None:
    file = gguf.small()
    file.keys |= {"llama.attention.head_count_kv": gguf.u32s([4, 1])}
    file.keys |= {"llama.attention.key_length": gguf.u32(24), "llama.attention.value_length": gguf.u32(8)}
    read = facts(file)
    assert (read.memory.k, read.memory.v, read.n_kv_heads) == ((96, 24), (32, 8), 4)


def test_latent_attention_keeps_no_values(facts: Any, gguf: Any) -> None:
    file = gguf.small("deepseek2")
    file.keys |= {"deepseek2.attention.key_length_mla": gguf.u32(24)}
    assert facts(file).memory.v == (0, 0)


def test_encoders_remember_nothing(facts: Any, gguf: Any) -> None:
    file = gguf.small("bert")
    assert facts(file).memory.k == (0, 0)
    other = gguf.small()
    other.keys |= {"llama.attention.causal": gguf.flag(False)}
    assert facts(other).memory.k == (32, 32), "it has a cache, though every call fills it anew"


def test_borrowed_keys_and_values(facts: Any, gguf: Any) -> None:
    file = gguf.small("gemma3n", n_layers=4)
    file.keys |= {"gemma3n.attention.shared_kv_layers": gguf.u32(3)}
    assert facts(file).memory.k == (32, 0, 0, 0)


@pytest.mark.parametrize(
    ("arch", "told", "windowed"),
    [
        ("gemma2", None, "1010"),
        ("gemma3", None, "1111"),
        ("smallthinker", None, "0111"),
        ("llama", None, "0000"),
        ("gemma2", 4, "1110"),
        ("cohere2", 0, "1111"),
        ("unheard-of", [True, False, False, True], "1001"),
        ("gemma2", [True], "1010"),
    ],
)
def test_windows(facts: Any, gguf: Any, arch: str, told: Any, windowed: str) -> None:
    file = gguf.small(arch, n_layers=4)
    file.keys[f"{arch}.attention.sliding_window"] = gguf.u32(512)
    if told is not None:
        pattern = gguf.flags(told) if isinstance(told, list) else gguf.u32(told)
        file.keys[f"{arch}.attention.sliding_window_pattern"] = pattern
    read = facts(file)
    assert "".join("01"[w] for w in read.memory.windowed) == windowed
    assert read.sliding_window == 512


def test_a_pattern_without_a_window_is_none(facts: Any, gguf: Any) -> None:
    read = facts(gguf.small("gemma2"))
    assert (read.sliding_window, read.memory.windowed) == (None, (False, False))


def test_recurrent(facts: Any, gguf: Any) -> None:
    file = gguf.small("mamba")
    for i in range(2):
        del file.tensors[f"blk.{i}.attn_k.weight"]
        file.tensors[f"blk.{i}.ssm_in.weight"] = ((64, 32), 8)
    file.keys |= {"mamba.ssm.conv_kernel": gguf.u32(4), "mamba.ssm.inner_size": gguf.u32(128)}
    file.keys |= {"mamba.ssm.state_size": gguf.u32(16), "mamba.attention.head_count": gguf.u32(0)}
    del file.keys["mamba.attention.head_count_kv"]
    read = facts(file)
    assert read.recurrent
    assert (read.n_heads, read.memory.k) == (0, (0, 0))
    assert read.memory.state_bytes == 2 * 4 * (3 * 128 + 128 * 16)


def test_hybrid(facts: Any, gguf: Any) -> None:
    file = gguf.small("lfm2")
    file.tensors["blk.0.shortconv.in_proj.weight"] = file.tensors.pop("blk.0.attn_k.weight")
    file.keys |= {"lfm2.shortconv.l_cache": gguf.u32(3)}
    read = facts(file)
    assert read.recurrent
    assert (read.memory.k, read.memory.state_bytes) == ((0, 32), 4 * 64 * 2)


def test_rwkv(facts: Any, gguf: Any) -> None:
    file = gguf.small("rwkv7", n_layers=1)
    file.tensors["blk.0.time_mix_key.weight"] = file.tensors.pop("blk.0.attn_k.weight")
    file.keys |= {"rwkv7.wkv.head_size": gguf.u32(16)}
    assert facts(file).memory.state_bytes == 4 * 64 * (2 + 16)


def test_experts_widen_the_feed_forward(facts: Any, gguf: Any) -> None:
    file = gguf.small()
    file.keys |= {"llama.expert_used_count": gguf.u32(8), "llama.expert_feed_forward_length": gguf.u32(32)}
    assert facts(file).n_ff == 256
