"""The random-weight files: what is asked is what the header says, and llama.cpp can run them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from gguf import GGMLQuantizationType, GGUFReader

from inferd.tests.models.random_gguf import CONTROL, SHAPES, Shape, deep_enough, tensors, vocabulary, write_random_gguf

if TYPE_CHECKING:
    from pathlib import Path

TINY = SHAPES["tiny"]


def keys(reader: GGUFReader, arch: str) -> dict[str, int]:
    names = ("block_count", "embedding_length", "attention.head_count", "attention.head_count_kv", "vocab_size")
    return {name: int(reader.get_field(f"{arch}.{name}").contents()) for name in names}


@pytest.mark.parametrize("name", ["tiny", "tiny-qwen2", "tiny-gemma3"])
def test_the_header_says_what_was_asked(tmp_path: Path, name: str) -> None:
    shape = SHAPES[name]
    reader = GGUFReader(write_random_gguf(tmp_path / "m.gguf", shape))
    assert reader.get_field("general.architecture").contents() == shape.arch
    assert keys(reader, shape.arch) == {
        "block_count": shape.n_layer,
        "embedding_length": shape.n_embd,
        "attention.head_count": shape.n_head,
        "attention.head_count_kv": shape.n_head_kv,
        "vocab_size": shape.n_vocab,
    }
    written = {tensor.name: tuple(int(n) for n in tensor.shape[::-1]) for tensor in reader.tensors}
    assert written == dict(tensors(shape))


@pytest.mark.parametrize(("quant", "kind"), [("f32", "F32"), ("f16", "F16"), ("q8_0", "Q8_0")])
def test_matrices_have_the_asked_type_and_norms_stay_f32(tmp_path: Path, quant: str, kind: str) -> None:
    reader = GGUFReader(write_random_gguf(tmp_path / "m.gguf", TINY, quant))
    for tensor in reader.tensors:
        expected = kind if len(tensor.shape) == 2 else "F32"
        assert tensor.tensor_type is GGMLQuantizationType[expected], tensor.name


def test_the_same_seed_gives_the_same_file_and_another_does_not(tmp_path: Path) -> None:
    one, two, other = tmp_path / "1.gguf", tmp_path / "2.gguf", tmp_path / "3.gguf"
    for path, shape in ((one, TINY), (two, TINY), (other, replace(TINY, seed=2))):
        write_random_gguf(path, shape)
    assert one.read_bytes() == two.read_bytes()
    assert one.read_bytes() != other.read_bytes()


def test_untied_embeddings_have_an_output_matrix() -> None:
    assert "output.weight" not in dict(tensors(TINY))
    assert dict(tensors(replace(TINY, tied=False)))["output.weight"] == (TINY.n_vocab, TINY.n_embd)


@pytest.mark.parametrize("n_vocab", [259, 512, 5000])
def test_the_vocabulary_is_full_unique_and_made_of_its_merges(n_vocab: int) -> None:
    tokens, merges = vocabulary(replace(TINY, n_vocab=n_vocab))
    assert len(tokens) == len(set(tokens)) == n_vocab
    assert tokens[-3:] == list(CONTROL)
    assert [merge.replace(" ", "") for merge in merges] == tokens[256:-3]
    known = set(tokens)
    assert all(part in known for merge in merges for part in merge.split(" "))


@pytest.mark.parametrize(
    "wrong",
    [{"arch": "gpt9"}, {"n_head": 3}, {"n_ff": 100}, {"sliding_window": 64}, {"arch": "gemma3"}, {"n_vocab": 10}],
)
def test_impossible_shapes_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"must|belongs"):
        replace(TINY, **wrong)  # type: ignore[arg-type]


def test_an_unknown_quant_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="quant must be one of"):
        write_random_gguf(tmp_path / "m.gguf", TINY, "q3_x")


def test_depth_follows_the_asked_size(tmp_path: Path) -> None:
    shape = deep_enough(Shape(n_embd=128, n_ff=256), "q8_0", 2_000_000)
    size = write_random_gguf(tmp_path / "m.gguf", shape).stat().st_size
    assert abs(size - 2_000_000) < 200_000


@pytest.mark.llama
def test_q4_k_m_is_llama_cpps_own_mix(tmp_path: Path) -> None:
    shape = Shape(n_embd=256, n_ff=512, n_layer=4)
    reader = GGUFReader(write_random_gguf(tmp_path / "m.gguf", shape, "q4_k_m"))
    kinds = {tensor.name: tensor.tensor_type.name for tensor in reader.tensors}
    assert kinds["token_embd.weight"] == "Q6_K"
    assert {kinds[f"blk.{i}.ffn_down.weight"] for i in range(4)} == {"Q4_K", "Q6_K"}
    assert [path.name for path in tmp_path.iterdir()] == ["m.gguf"]


@pytest.mark.llama
def test_layers_that_sleep_change_nothing(tmp_path: Path) -> None:
    from inferd.backends.llama.loading import load_generator as load
    from inferd.tests.backends.llama.engines import plan, run, submit

    said = []
    for shape in (replace(TINY, n_layer=5, n_awake=1), replace(TINY, n_layer=1)):
        engine = load(plan(write_random_gguf(tmp_path / "m.gguf", shape), numerics="exact"), lambda _: None)
        said.append(run(engine, submit("a", [7, 8, 9], max_tokens=50, temperature=0.7))["a"].tokens)
        engine.close()
    assert said[0] == said[1]
