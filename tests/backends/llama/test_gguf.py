"""Facts from a header; and that a damaged file gives facts or one CorruptModel, fast and in little memory."""

from __future__ import annotations

import random
import struct
import time
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inferd.backends import kinds
from inferd.backends.facts import CorruptModel
from inferd.backends.llama.gguf import adapter_bytes, part_paths, read_facts, stem

if TYPE_CHECKING:
    from pathlib import Path

    from inferd.backends.llama.gguf import LlamaFacts

NASTY = [0, 1, 31, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 1]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "m.gguf"


def facts(path: Path, file: Any) -> LlamaFacts:
    path.write_bytes(file.build())
    return read_facts(str(path))


def refused(path: Path, file: Any) -> str:
    with pytest.raises(CorruptModel) as caught:
        facts(path, file)
    return str(caught.value)


def test_facts(path: Path, gguf: Any) -> None:
    read = facts(path, gguf.small())
    assert read.backend == "llama"
    assert read.path == str(path)
    assert read.file_bytes == path.stat().st_size
    assert (read.architecture, read.quantization, read.display_name) == ("llama", "Q8_0", "Small Test")
    assert (read.n_layers, read.n_embd, read.n_heads, read.n_kv_heads) == (2, 64, 4, 2)
    assert (read.k_head_dim, read.v_head_dim) == (16, 16)
    assert (read.n_ctx_train, read.n_vocab, read.n_ff) == (2048, 64, 128)
    assert read.n_params == 2 * 64 * 64 + 64 + 2 * (64 * 32 + 64 * 128 + 64)
    assert (read.sliding_window, read.recurrent, read.has_chat_template) == (None, False, True)


def test_what_may_be_missing(path: Path, gguf: Any) -> None:
    file = gguf.small()
    for key in (
        "general.name",
        "general.file_type",
        "llama.feed_forward_length",
        "llama.attention.head_count_kv",
        "tokenizer.ggml.tokens",
        "tokenizer.chat_template",
    ):
        del file.keys[key]
    read = facts(path, file)
    assert (read.n_kv_heads, read.n_ff, read.n_vocab) == (4, 256, 64)
    assert (read.quantization, read.display_name, read.has_chat_template) == ("Q8_0", None, False)


@pytest.mark.parametrize(
    ("arch", "told", "pooling", "causal"),
    [
        ("llama", None, "", True),
        ("llama", 0, "", True),
        ("qwen3", 3, "last", True),
        ("qwen3", 4, "rank", True),
        ("bert", 1, "mean", False),
        ("bert", 2, "cls", False),
        ("bert", 0, "mean", False),  # nothing else can be done with it
        ("gemma-embedding", None, "mean", False),
    ],
)
def test_what_a_model_makes_of_a_text(
    path: Path, gguf: Any, arch: str, told: int | None, pooling: str, causal: bool
) -> None:
    file = gguf.small(arch)
    if told is not None:
        file.keys[f"{arch}.pooling_type"] = gguf.u32(told)
    file.tensors["cls.output.weight"] = ((64, 2), 0)
    read = facts(path, file)
    assert (read.pooling, read.causal, read.n_embd_out) == (pooling, causal, 64)
    file.keys |= {f"{arch}.embedding_length_out": gguf.u32(32), f"{arch}.attention.causal": gguf.flag(False)}
    assert (facts(path, file).causal, facts(path, file).n_embd_out) == (False, 32)


@pytest.mark.parametrize(("told", "words"), [(4, "no classifier head"), (5, "between 0 and 4"), (2**32 - 1, "between")])
def test_a_pooling_that_cannot_be(path: Path, gguf: Any, told: int, words: str) -> None:
    file = gguf.small()
    file.keys["llama.pooling_type"] = gguf.u32(told)
    assert words in refused(path, file)


def test_the_most_frequent_type_names_a_file_without_file_type(path: Path, gguf: Any) -> None:
    file = gguf.small()
    file.keys["general.file_type"] = gguf.u32(1000)
    file.tensors["blk.0.ffn_up.weight"] = ((256, 8), 12)
    assert facts(path, file).quantization == "Q8_0"
    file.tensors = {"a": ((256, 8), 12), "b": ((64, 2), 8), "c": ((256, 8), 12), "d": ((64,), 0)}
    assert facts(path, file).quantization == "Q4_K"


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("general.architecture", None, "general.architecture must be"),
        ("general.architecture", b"../../etc", "general.architecture must be"),
        ("general.architecture", b"clip", "projector for images"),
        ("general.architecture", b"qwen2", "qwen2.block_count is missing"),
        ("general.type", b"adapter", "general.type says 'adapter'"),
        ("llama.block_count", 0, "llama.block_count is 0 but must be between 1 and 512"),
        ("llama.block_count", 513, "llama.block_count is 513 but"),
        ("llama.block_count", b"2", "llama.block_count must be a whole number"),
        ("llama.context_length", 0, "llama.context_length is 0"),
        ("llama.context_length", 2**31, "llama.context_length is 2,147,483,648"),
        ("llama.embedding_length", 0, "llama.embedding_length is 0"),
        ("llama.attention.key_length", 2**30, "llama.attention.key_length is"),
        ("llama.attention.head_count", [4], "has 1 elements but the model has 2 layers"),
        ("llama.attention.head_count", [4] * 600, "has 600 elements but the model has 2 layers"),
        ("llama.attention.head_count_kv", [2, 2**31], "must hold whole numbers between 0 and"),
        ("llama.expert_used_count", 2**31, "llama.expert_used_count is"),
    ],
)
def test_refused(path: Path, gguf: Any, key: str, value: Any, words: str) -> None:
    file = gguf.small()
    if value is None:
        del file.keys[key]
    elif isinstance(value, bytes):
        file.keys[key] = gguf.string(value)
    else:
        file.keys[key] = gguf.u32s(value) if isinstance(value, list) else gguf.u32(value)
    assert words in refused(path, file)


def test_a_vocabulary_is_no_model(path: Path, gguf: Any) -> None:
    file = gguf.small()
    file.tensors = {}
    assert refused(path, file) == "no tensors: a vocabulary without weights"


def split(gguf: Any, folder: Path, count: int = 3) -> list[Path]:
    whole = gguf.small()
    names = list(whole.tensors)
    paths = []
    for no in range(count):
        part = gguf()
        part.keys = dict(whole.keys) if no == 0 else {}
        part.keys |= {"split.no": gguf.u32(no), "split.count": gguf.u32(count)}
        part.keys["split.tensors.count"] = gguf.u32(len(names))
        part.tensors = {name: whole.tensors[name] for name in names[no::count]}
        paths.append(folder / f"Big-{no + 1:05}-of-{count:05}.gguf")
        paths[-1].write_bytes(part.build())
    return paths


def test_parts_are_summed_up(tmp_path: Path, gguf: Any) -> None:
    paths = split(gguf, tmp_path)
    read = read_facts(str(paths[0]))
    one = facts(tmp_path / "m.gguf", gguf.small())
    assert (read.n_params, read.weights) == (one.n_params, one.weights)
    assert read.file_bytes == sum(part.stat().st_size for part in paths)


def test_parts_that_do_not_fit(tmp_path: Path, gguf: Any) -> None:
    paths = split(gguf, tmp_path)
    with pytest.raises(CorruptModel, match="part 2 of 3; the first part stands for the model"):
        read_facts(str(paths[1]))
    kept = paths[2].read_bytes()
    paths[2].write_bytes(kept[:-100])
    with pytest.raises(CorruptModel, match="part 3 of 3: truncated: tensor"):
        read_facts(str(paths[0]))
    paths[2].write_bytes(paths[1].read_bytes())
    with pytest.raises(CorruptModel, match="part 3 of 3 belongs to another model"):
        read_facts(str(paths[0]))
    paths[2].unlink()
    with pytest.raises(CorruptModel, match="part 3 of 3: cannot be read: No such file"):
        read_facts(str(paths[0]))
    renamed = paths[0].rename(tmp_path / "renamed.gguf")
    with pytest.raises(CorruptModel, match="file name does not end in -00001-of-00003"):
        read_facts(str(renamed))


def test_names_of_parts() -> None:
    assert part_paths("/a/x.gguf") == ["/a/x.gguf"]
    assert part_paths("/a/x-00001-of-00002.GGUF") == ["/a/x-00001-of-00002.GGUF", "/a/x-00002-of-00002.GGUF"]
    assert part_paths("/a/x-00002-of-00002.gguf") == []
    assert part_paths("/a/x-00001-of-99999.gguf") == []
    assert (stem("/a/x-00001-of-00002.gguf"), stem("/a/X.Q8_0.gguf")) == ("x", "X.Q8_0")


def survives(path: Path, data: bytes) -> bool:
    """True if it was read; anything but facts or CorruptModel fails the test, and so does a slow answer."""
    path.write_bytes(data)
    start = time.perf_counter()
    sentence = ""
    try:
        read_facts(str(path))
    except CorruptModel as error:
        sentence = str(error)
    assert time.perf_counter() - start < 1
    assert sentence.isprintable()
    return not sentence


def mutant(rng: random.Random, data: bytes, n_header: int) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(n_header)
        match rng.randrange(4):
            case 0:
                changed[at] ^= 1 << rng.randrange(8)
            case 1:
                changed[at : at + 8] = struct.pack("<Q", rng.choice(NASTY))
            case 2:
                changed[at : at + 4] = struct.pack("<I", rng.choice(NASTY) & 0xFFFFFFFF)
            case _:
                del changed[at : at + rng.randint(1, 64)]
    return bytes(changed[: rng.randrange(len(changed))] if rng.random() < 0.2 else changed)


def test_mutants(path: Path, gguf: Any) -> None:
    file = gguf.small(n_vocab=16)
    data, n_header = file.build(), len(file.header())
    rng = random.Random(20)
    read = sum(survives(path, mutant(rng, data, n_header)) for _ in range(800))
    assert 10 < read < 750  # some mutations are harmless, most are not


def test_mutants_allocate_little(path: Path, gguf: Any) -> None:
    file = gguf.small(n_vocab=16)
    data, n_header = file.build(), len(file.header())
    rng = random.Random(21)
    tracemalloc.start()
    try:
        for _ in range(200):
            survives(path, mutant(rng, data, n_header))
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(junk=st.binary(max_size=400), counts=st.tuples(st.integers(0, 3), st.integers(0, 3)))
def test_junk_behind_a_sound_preamble(path: Path, junk: bytes, counts: tuple[int, int]) -> None:
    assert not survives(path, struct.pack("<4sIQQ", b"GGUF", 3, *counts) + junk)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=16)), max_size=5),
    cut=st.none() | st.floats(0, 1),
)
def test_overwritten_headers(path: Path, gguf: Any, changes: list[tuple[float, bytes]], cut: float | None) -> None:
    file = gguf.small(n_vocab=16)
    data, n_header = bytearray(file.build()), len(file.header())
    for where, new in changes:
        at = int(where * n_header)
        data[at : at + len(new)] = new
    survived = survives(path, bytes(data if cut is None else data[: int(cut * len(data))]))
    assert survived or changes or cut is not None


def adapter(gguf: Any) -> Any:
    file = gguf()
    file.keys = {"general.type": gguf.string("adapter"), "adapter.type": gguf.string("lora")}
    file.keys["general.architecture"] = gguf.string("llama")
    file.tensors = {"blk.0.attn_q.weight.lora_a": ((64, 4), 0), "blk.0.attn_q.weight.lora_b": ((4, 64), 0)}
    return file


def test_what_an_adapter_weighs(path: Path, tmp_path: Path, gguf: Any) -> None:
    model = facts(tmp_path / "model.gguf", gguf.small())
    path.write_bytes(adapter(gguf).build())
    assert adapter_bytes(str(path), model) == kinds.adapter_bytes(path, model) == 2 * 4 * 64 * 4


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("general.type", b"model", "must say that it is a LoRA adapter"),
        ("adapter.type", b"control", "must say that it is a LoRA adapter"),
        ("general.architecture", b"qwen2", "it is for 'qwen2', but the model is of 'llama'"),
        ("adapter.alora.invocation_tokens", b"x", "activated LoRA"),
        (None, b"", "no matrices"),
    ],
)
def test_what_is_no_adapter_for_a_model(
    path: Path, tmp_path: Path, gguf: Any, key: str | None, value: bytes, words: str
) -> None:
    model, file = facts(tmp_path / "model.gguf", gguf.small()), adapter(gguf)
    if key is None:
        file.tensors = {}
    else:
        file.keys[key] = gguf.string(value)
    path.write_bytes(file.build())
    with pytest.raises(CorruptModel, match=words):
        adapter_bytes(str(path), model)
    path.write_bytes(b"GGUF")
    with pytest.raises(CorruptModel):
        adapter_bytes(str(path), model)
