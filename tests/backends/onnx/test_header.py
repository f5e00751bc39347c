from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from inferd.backends.facts import CorruptModel, TensorFacts
from inferd.backends.onnx.header import adapter_bytes, read_facts
from inferd.tests.models.random_onnx import (
    Builder,
    Size,
    affine,
    classifier,
    decoder,
    encoder,
    encoder_graph,
    info,
    quantized,
)

if TYPE_CHECKING:
    from pathlib import Path

SIZE = Size()


def facts(path: Path) -> Any:
    return read_facts(str(path))


def change(folder: Path, name: str, **values: Any) -> None:
    told = json.loads((folder / name).read_text()) if (folder / name).exists() else {}
    (folder / name).write_text(json.dumps({**told, **values}))


def test_a_bare_graph_takes_tensors(tmp_path: Path) -> None:
    told = facts(affine(tmp_path / "m.onnx"))
    assert (told.backend, told.task, told.pooling, told.batched) == ("onnx", "infer", "", True)
    assert told.inputs == (TensorFacts("x", "FP32", (-1, 4)),)
    assert told.outputs == (TensorFacts("y", "FP32", (-1, 4)), TensorFacts("total", "FP32", (-1,)))
    assert facts(affine(tmp_path / "fixed.onnx", batch=1)).batched is False


def test_a_sentence_encoder_is_known_by_the_files_beside_it(tmp_path: Path) -> None:
    told = facts(encoder(tmp_path, SIZE, pooling="cls", normalize=False))
    assert (told.task, told.pooling, told.normalize, told.causal) == ("embed", "cls", False, False)
    assert (told.architecture, told.n_layers, told.n_embd_out, told.n_ctx_train, told.n_vocab) == (
        "bert",
        2,
        64,
        512,
        200,
    )
    assert (told.quantization, told.dynamic_quantization) == ("F32", False)


def test_without_a_tokenizer_it_is_a_graph_like_any(tmp_path: Path) -> None:
    assert facts(encoder_graph(tmp_path / "m.onnx", SIZE)).task == "infer"


def test_what_comes_after_the_graph_is_not_left_out_silently(tmp_path: Path) -> None:
    path = encoder(tmp_path, SIZE)
    (tmp_path / "modules.json").write_text(json.dumps([{"type": "sentence_transformers.models.Dense"}]))
    assert facts(path).task == "infer"
    (tmp_path / "modules.json").write_text("[]")
    assert facts(path).task == "embed"
    change(tmp_path / "1_Pooling", "config.json", pooling_mode_mean_tokens=False, pooling_mode_max_tokens=True)
    assert facts(path).task == "infer"


def test_the_shortest_length_that_is_told_counts(tmp_path: Path) -> None:
    path = encoder(tmp_path, SIZE)
    change(tmp_path, "sentence_bert_config.json", max_seq_length=256)
    assert facts(path).n_ctx_train == 256
    change(tmp_path, "tokenizer_config.json", model_max_length=1e30)
    assert facts(path).n_ctx_train == 256
    change(tmp_path, "tokenizer_config.json", model_max_length=128)
    assert facts(path).n_ctx_train == 128


def test_positions_may_begin_after_the_padding(tmp_path: Path) -> None:
    path = encoder(tmp_path, SIZE)
    change(tmp_path, "config.json", model_type="xlm-roberta", max_position_embeddings=514, pad_token_id=1)
    change(tmp_path, "tokenizer_config.json", model_max_length=0)
    assert facts(path).n_ctx_train == 512


def test_heads_say_what_a_model_is_for(tmp_path: Path) -> None:
    moods = facts(classifier(tmp_path / "c", ["calm", "glad", "sad"], SIZE))
    assert (moods.task, moods.labels, moods.n_embd_out) == ("classify", ("calm", "glad", "sad"), 3)
    ranks = facts(classifier(tmp_path / "r", ["LABEL_0"], SIZE))
    assert (ranks.task, ranks.pooling) == ("rank", "rank")
    tags = facts(classifier(tmp_path / "t", ["O", "NAME"], SIZE, per_token=True))
    assert (tags.task, tags.labels, tags.n_embd_out) == ("tag", ("O", "NAME"), 2)


def test_a_decoder_with_a_past_writes_text(tmp_path: Path) -> None:
    told = facts(decoder(tmp_path, SIZE))
    assert (told.task, told.causal, told.has_chat_template) == ("generate", True, True)
    assert (told.n_layers, told.n_kv_heads, told.k_head_dim, told.n_ctx_train) == (2, 4, 16, 512)


def test_dynamic_quantization_is_seen(tmp_path: Path) -> None:
    told = facts(quantized(encoder_graph(tmp_path / "m.onnx", SIZE), tmp_path / "q.onnx"))
    assert (told.quantization, told.dynamic_quantization) == ("INT8", True)


def test_a_custom_operator_is_refused_unless_the_file_defines_it(tmp_path: Path) -> None:
    x, y = info("x", TensorProto.FLOAT, 2), info("y", TensorProto.FLOAT, 2)
    b = Builder()
    b.op("Twice", "x", out="y", domain="my.own")
    path = b.save(tmp_path / "m.onnx", [x], [y], domains=("my.own",))
    with pytest.raises(CorruptModel, match=r"custom library: my\.own\.Twice"):
        facts(path)
    proto = onnx.load(str(path))
    nodes = [helper.make_node("Add", ["a", "a"], ["b"])]
    proto.functions.append(helper.make_function("my.own", "Twice", ["a"], ["b"], nodes, [helper.make_opsetid("", 17)]))
    onnx.save(proto, str(path))
    assert facts(path).task == "infer"


def test_what_is_no_tensor_is_refused(tmp_path: Path) -> None:
    sequence = helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, None)
    b = Builder()
    b.op("SequenceLength", "s", out="n")
    path = b.save(tmp_path / "m.onnx", [sequence], [info("n", TensorProto.INT64)])
    with pytest.raises(CorruptModel, match="input 's'"):
        facts(path)


def test_external_weights_belong_to_the_model(tmp_path: Path) -> None:
    b = Builder()
    b.op("Add", "x", b.constant(np.ones(5000, np.float32)), out="y")
    x, y = info("x", TensorProto.FLOAT, 5000), info("y", TensorProto.FLOAT, 5000)
    path = b.save(tmp_path / "m.onnx", [x], [y], save_as_external_data=True, location="m.onnx_data", size_threshold=0)
    told = facts(path)
    assert told.file_bytes == os.path.getsize(path) + 20_000
    assert told.weights_bytes == 20_000
    (tmp_path / "m.onnx_data").unlink()
    with pytest.raises(CorruptModel, match="missing"):
        facts(path)


@pytest.mark.parametrize("data", [b"", b"GGUF", b"\x08\x07\x3a\x00", b"{}" * 500])
def test_what_is_no_model_is_refused_in_a_sentence(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "m.onnx").write_bytes(data)
    with pytest.raises(CorruptModel, match="no ONNX model") as caught:
        facts(tmp_path / "m.onnx")
    assert str(tmp_path) not in str(caught.value)


def test_adapters_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CorruptModel, match="no adapters"):
        adapter_bytes("x", facts(affine(tmp_path / "m.onnx")))


@pytest.mark.parametrize(
    ("told", "pooling"),
    [
        ({"pooling_mode": "cls"}, "cls"),
        ({"pooling_mode": ["lasttoken"]}, "last"),
        ({"pooling_mode": ["cls", "mean"]}, ""),
        ({"pooling_mode": "max"}, ""),
    ],
)
def test_newer_files_name_the_pooling(tmp_path: Path, told: Any, pooling: str) -> None:
    path = encoder(tmp_path, SIZE)
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(told))
    assert facts(path).pooling == pooling


def test_modules_that_are_not_known_are_not_left_out(tmp_path: Path) -> None:
    path = encoder(tmp_path, SIZE)
    modules = json.loads((tmp_path / "modules.json").read_text())
    modules.insert(2, {"type": "sentence_transformers.models.LayerNorm"})
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    assert facts(path).task == "infer"


@pytest.mark.parametrize("said", [{"architectures": 5}, {"id2label": 5}, {"num_labels": "x"}])
def test_a_configuration_of_other_types_is_as_if_it_were_silent(tmp_path: Path, said: Any) -> None:
    path = classifier(tmp_path, ["calm", "glad"], SIZE)
    change(tmp_path, "config.json", **said)
    assert facts(path).task in ("infer", "classify")


def test_a_past_that_cannot_be_begun_is_given_as_tensors(tmp_path: Path) -> None:
    path = decoder(tmp_path, SIZE)
    for axis, value in ((1, "heads"), (2, 128), (3, "values")):
        graph = onnx.load(str(path))
        past = next(port for port in graph.graph.input if port.name.startswith("past"))
        dim = past.type.tensor_type.shape.dim[axis]
        dim.Clear()
        if isinstance(value, int):
            dim.dim_value = value
        else:
            dim.dim_param = value
        onnx.save(graph, str(tmp_path / "other.onnx"))
        assert facts(tmp_path / "other.onnx").task == "infer"


def test_a_decoder_that_wants_more_is_given_tensors(tmp_path: Path) -> None:
    path = decoder(tmp_path, SIZE)
    graph = onnx.load(str(path))
    graph.graph.input.append(info("cache_position", TensorProto.INT64, "sequence_length"))
    onnx.save(graph, str(path))
    assert facts(path).task == "infer"


def test_half_a_character_is_not_passed_on(tmp_path: Path) -> None:
    path = classifier(tmp_path, ["calm", "\ud800"], SIZE)
    change(tmp_path, "config.json", model_type="bert\udfff")
    assert (facts(path).architecture, facts(path).labels) == ("bert?", ("calm", "?"))
