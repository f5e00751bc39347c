"""ONNX models with random weights and real shapes: encoders, classifiers, decoders with a past, and small odd graphs.

`encoder` and `decoder` write a folder as people have it: the graph, its configuration, and a tokenizer.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from pathlib import Path

OPSET = 17
WORDS = [
    "the",
    "a",
    "small",
    "river",
    "green",
    "house",
    "child",
    "morning",
    "bright",
    "quiet",
    "letter",
    "garden",
    "window",
    "answer",
    "is",
    "was",
    "not",
    "of",
    "and",
]
SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]


@dataclass(frozen=True)
class Size:
    n_layers: int = 2
    n_embd: int = 64
    n_heads: int = 4
    n_ff: int = 128
    n_vocab: int = 200
    n_positions: int = 512


class Builder:
    """Nodes and weights of one graph; every method returns the name of its output."""

    def __init__(self, seed: int = 0) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self._random = np.random.default_rng(seed)
        self._n = 0

    def op(self, kind: str, *inputs: str, out: str = "", domain: str = "", **attributes: Any) -> str:
        self._n += 1
        output = out or f"{kind}_{self._n}"
        self.nodes.append(
            helper.make_node(kind, list(inputs), [output], f"node_{self._n}", domain=domain, **attributes)
        )
        return output

    def weight(self, *shape: int, scale: float = 0.02) -> str:
        return self.constant((self._random.standard_normal(shape) * scale).astype(np.float32))

    def constant(self, values: Any) -> str:
        self._n += 1
        name = f"w{self._n}"
        self.weights.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def ints(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))

    def linear(self, x: str, n_in: int, n_out: int, out: str = "") -> str:
        product = self.op("MatMul", x, self.weight(n_in, n_out, scale=n_in**-0.5))
        return self.op("Add", product, self.weight(n_out), out=out)

    def norm(self, x: str, n: int, out: str = "") -> str:
        ones, zeros = self.constant(np.ones(n, np.float32)), self.constant(np.zeros(n, np.float32))
        return self.op("LayerNormalization", x, ones, zeros, axis=-1, out=out)

    def heads(self, x: str, size: Size) -> str:
        split = self.op("Reshape", x, self.ints(0, 0, size.n_heads, size.n_embd // size.n_heads))
        return self.op("Transpose", split, perm=[0, 2, 1, 3])

    def gelu(self, x: str) -> str:
        root = self.constant(np.float32(2**0.5))
        erf = self.op("Erf", self.op("Div", x, root))
        return self.op(
            "Mul", self.op("Mul", x, self.op("Add", erf, self.constant(np.float32(1)))), self.constant(np.float32(0.5))
        )

    def attend(self, q: str, k: str, v: str, bias: str, size: Size) -> str:
        scale = self.constant(np.float32((size.n_embd // size.n_heads) ** -0.5))
        scores = self.op("Mul", self.op("MatMul", q, self.op("Transpose", k, perm=[0, 1, 3, 2])), scale)
        weights = self.op("Softmax", self.op("Add", scores, bias), axis=-1)
        joined = self.op("Transpose", self.op("MatMul", weights, v), perm=[0, 2, 1, 3])
        return self.op("Reshape", joined, self.ints(0, 0, size.n_embd))

    def feed_forward(self, x: str, size: Size) -> str:
        return self.linear(self.gelu(self.linear(x, size.n_embd, size.n_ff)), size.n_ff, size.n_embd)

    def save(self, path: Path, inputs: list[Any], outputs: list[Any], **changes: Any) -> Path:
        graph = helper.make_graph(self.nodes, "random", inputs, outputs, self.weights)
        opsets = [helper.make_opsetid("", changes.pop("opset", OPSET)), helper.make_opsetid("com.microsoft", 1)]
        opsets += [helper.make_opsetid(domain, 1) for domain in changes.pop("domains", ())]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=changes.pop("ir_version", 8))
        path.parent.mkdir(parents=True, exist_ok=True)
        onnx.save(model, str(path), **changes)
        return path


def info(name: str, data_type: int, *shape: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, data_type, list(shape))


def _encoded(b: Builder, size: Size) -> str:
    """The hidden states of the last layer."""
    words = b.op("Gather", b.weight(size.n_vocab, size.n_embd, scale=1.0), "input_ids")
    kinds = b.op("Gather", b.weight(2, size.n_embd), "token_type_ids")
    length = b.op("Gather", b.op("Shape", "input_ids"), b.constant(np.int64(1)), axis=0)
    places = b.op("Range", b.constant(np.int64(0)), length, b.constant(np.int64(1)))
    positions = b.op("Gather", b.weight(size.n_positions, size.n_embd), places)
    x = b.norm(b.op("Add", b.op("Add", words, kinds), positions), size.n_embd)
    floats = b.op("Cast", b.op("Unsqueeze", "attention_mask", b.ints(1, 2)), to=TensorProto.FLOAT)
    bias = b.op("Mul", b.op("Sub", b.constant(np.float32(1)), floats), b.constant(np.float32(-1e9)))
    for _ in range(size.n_layers):
        q, k, v = (b.heads(b.linear(x, size.n_embd, size.n_embd), size) for _ in range(3))
        x = b.norm(b.op("Add", x, b.linear(b.attend(q, k, v, bias, size), size.n_embd, size.n_embd)), size.n_embd)
        x = b.norm(b.op("Add", x, b.feed_forward(x, size)), size.n_embd)
    return x


TEXT_INPUTS = [
    info(name, TensorProto.INT64, "batch", "sequence") for name in ("input_ids", "attention_mask", "token_type_ids")
]


def encoder_graph(
    path: Path, size: Size = Size(), *, labels: int = 0, per_token: bool = False, pooled: bool = False, seed: int = 0
) -> Path:
    """An encoder; with `labels` a head on top, of the first token or of each; `pooled`: with its own mean."""
    b = Builder(seed)
    hidden = _encoded(b, size)
    if pooled:
        floats = b.op("Unsqueeze", b.op("Cast", "attention_mask", to=TensorProto.FLOAT), b.ints(2))
        total = b.op("ReduceSum", b.op("Mul", hidden, floats), b.ints(1), keepdims=0)
        b.op("Div", total, b.op("ReduceSum", floats, b.ints(1), keepdims=0), out="sentence_embedding")
        b.op("Identity", hidden, out="token_embeddings")
        tokens = info("token_embeddings", TensorProto.FLOAT, "batch", "sequence", size.n_embd)
        return b.save(path, TEXT_INPUTS, [tokens, info("sentence_embedding", TensorProto.FLOAT, "batch", size.n_embd)])
    if not labels:
        b.op("Identity", hidden, out="last_hidden_state")
        return b.save(
            path, TEXT_INPUTS, [info("last_hidden_state", TensorProto.FLOAT, "batch", "sequence", size.n_embd)]
        )
    if per_token:
        b.linear(hidden, size.n_embd, labels, out="logits")
        return b.save(path, TEXT_INPUTS, [info("logits", TensorProto.FLOAT, "batch", "sequence", labels)])
    first = b.op("Gather", hidden, b.constant(np.int64(0)), axis=1)
    b.linear(first, size.n_embd, labels, out="logits")
    return b.save(path, TEXT_INPUTS, [info("logits", TensorProto.FLOAT, "batch", labels)])


def encoder(folder: Path, size: Size = Size(), *, pooling: str = "mean", normalize: bool = True, seed: int = 0) -> Path:
    """A sentence encoder as sentence-transformers exports it."""
    path = encoder_graph(folder / "onnx" / "model.onnx", size, seed=seed)
    write_config(folder, size, "BertModel")
    modules = [
        {"idx": 0, "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "type": "sentence_transformers.models.Pooling"},
    ]
    if normalize:
        modules.append({"idx": 2, "type": "sentence_transformers.models.Normalize"})
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    modes = {"mean": "mean_tokens", "cls": "cls_token", "last": "lasttoken"}
    told = {f"pooling_mode_{mode}": name == pooling for name, mode in modes.items()}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": size.n_embd, **told}))
    write_tokenizer(folder, size)
    return path


def classifier(folder: Path, labels: list[str], size: Size = Size(), *, per_token: bool = False, seed: int = 0) -> Path:
    """A model for texts, pairs or tokens with labels; with one label a reranker."""
    path = encoder_graph(folder / "model.onnx", size, labels=len(labels), per_token=per_token, seed=seed)
    kind = "BertForTokenClassification" if per_token else "BertForSequenceClassification"
    write_config(folder, size, kind, id2label={str(i): label for i, label in enumerate(labels)})
    write_tokenizer(folder, size)
    return path


def write_config(folder: Path, size: Size, architecture: str, **more: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    told = {
        "architectures": [architecture],
        "model_type": "bert",
        "hidden_size": size.n_embd,
        "num_hidden_layers": size.n_layers,
        "num_attention_heads": size.n_heads,
        "max_position_embeddings": size.n_positions,
        "vocab_size": size.n_vocab,
        "pad_token_id": 0,
        **more,
    }
    (folder / "config.json").write_text(json.dumps(told))


def write_tokenizer(folder: Path, size: Size) -> None:
    """Words and letters, with the marks of a BERT, and cut to 32 tokens as exports often are."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    words = [
        *SPECIALS,
        *WORDS,
        *(letter for letter in letters if letter not in WORDS),
        *(f"##{letter}" for letter in letters),
    ]
    words += [f"word{i}" for i in range(size.n_vocab - len(words))]
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(SPECIALS)
    marks = [("[CLS]", 2), ("[SEP]", 3)]
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", marks)
    tokenizer.enable_truncation(32)
    tokenizer.enable_padding(length=32)
    tokenizer.save(str(folder / "tokenizer.json"))
    told = {"tokenizer_class": "BertTokenizer", "model_max_length": size.n_positions, "cls_token": "[CLS]"}
    (folder / "tokenizer_config.json").write_text(json.dumps(told))


def affine(path: Path, *, batch: str | int = "batch", n: int = 4) -> Path:
    """y = 2x + 1, and the sum of each row."""
    b = Builder()
    b.op("Add", b.op("Mul", "x", b.constant(np.float32(2))), b.constant(np.float32(1)), out="y")
    b.op("ReduceSum", "x", b.ints(1), keepdims=0, out="total")
    outputs = [info("y", TensorProto.FLOAT, batch, n), info("total", TensorProto.FLOAT, batch)]
    return b.save(path, [info("x", TensorProto.FLOAT, batch, n)], outputs)


def echo(path: Path) -> Path:
    """Any vector of floats as it is: for large ones."""
    b = Builder()
    b.op("Identity", "x", out="y")
    return b.save(path, [info("x", TensorProto.FLOAT, "n")], [info("y", TensorProto.FLOAT, "n")])


def over_rows(path: Path) -> Path:
    """Its rows look as if they were apart, and are not: their mean is taken off."""
    b = Builder()
    b.op("Sub", "x", b.op("ReduceMean", "x", axes=[0], keepdims=1), out="y")
    return b.save(path, [info("x", TensorProto.FLOAT, "batch", 4)], [info("y", TensorProto.FLOAT, "batch", 4)])


def quantized(path: Path, to: Path) -> Path:
    """The same in dynamic int8, by ONNX Runtime's own tool."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    to.parent.mkdir(parents=True, exist_ok=True)
    quantize_dynamic(str(path), str(to), weight_type=QuantType.QInt8)
    return to


def decoder_graph(path: Path, size: Size = Size(), *, seed: int = 0) -> Path:
    """A language model with a past, laid out as Optimum exports one."""
    b, head = Builder(seed), size.n_embd // size.n_heads
    words = b.weight(size.n_vocab, size.n_embd, scale=1.0)
    places = b.op("Gather", b.weight(size.n_positions, size.n_embd, scale=1.0), "position_ids")
    x = b.op("Add", b.op("Gather", words, "input_ids"), places)
    bias = _causal_bias(b)
    for i in range(size.n_layers):
        normed = b.norm(x, size.n_embd)
        q, k, v = (b.heads(b.linear(normed, size.n_embd, size.n_embd), size) for _ in range(3))
        k = b.op("Concat", f"past_key_values.{i}.key", k, axis=2, out=f"present.{i}.key")
        v = b.op("Concat", f"past_key_values.{i}.value", v, axis=2, out=f"present.{i}.value")
        x = b.op("Add", x, b.linear(b.attend(q, k, v, bias, size), size.n_embd, size.n_embd))
        x = b.op("Add", x, b.feed_forward(b.norm(x, size.n_embd), size))
    b.op("MatMul", b.norm(x, size.n_embd), b.weight(size.n_embd, size.n_vocab, scale=1.0), out="logits")
    ints = TensorProto.INT64
    inputs = [
        info("input_ids", ints, "batch_size", "sequence_length"),
        info("attention_mask", ints, "batch_size", "total_sequence_length"),
        info("position_ids", ints, "batch_size", "sequence_length"),
    ]
    outputs = [info("logits", TensorProto.FLOAT, "batch_size", "sequence_length", size.n_vocab)]
    for i in range(size.n_layers):
        for kind in ("key", "value"):
            inputs.append(
                info(f"past_key_values.{i}.{kind}", TensorProto.FLOAT, "batch_size", size.n_heads, "past_length", head)
            )
            outputs.append(
                info(f"present.{i}.{kind}", TensorProto.FLOAT, "batch_size", size.n_heads, "total_length", head)
            )
    return b.save(path, inputs, outputs)


def _causal_bias(b: Builder) -> str:
    """0 where a new position may look, far below elsewhere: (batch, 1, new, total)."""
    zero, one = b.constant(np.int64(0)), b.constant(np.int64(1))
    total = b.op("Gather", b.op("Shape", "attention_mask"), one, axis=0)
    n_new = b.op("Gather", b.op("Shape", "input_ids"), one, axis=0)
    columns = b.op("Range", zero, total, one)
    rows = b.op("Range", b.op("Sub", total, n_new), total, one)
    sees = b.op("LessOrEqual", b.op("Unsqueeze", columns, b.ints(0)), b.op("Unsqueeze", rows, b.ints(1)))
    there = b.op("Cast", b.op("Unsqueeze", "attention_mask", b.ints(1, 2)), to=TensorProto.BOOL)
    both = b.op("And", b.op("Unsqueeze", sees, b.ints(0, 1)), there)
    return b.op("Where", both, b.constant(np.float32(0)), b.constant(np.float32(-1e9)))


def decoder(folder: Path, size: Size = Size(), *, seed: int = 0) -> Path:
    path = decoder_graph(folder / "model.onnx", size, seed=seed)
    write_config(folder, size, "LlamaForCausalLM", model_type="llama", eos_token_id=3)
    write_tokenizer(folder, size)
    template = "{% for m in messages %}{{ m.role }} {{ m.content }} {% endfor %}"
    told = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**told, "chat_template": template}))
    return path


def write_genai_config(folder: Path, size: Size) -> None:
    """Beside a `decoder`, what makes its folder one of onnxruntime-genai."""
    past = {f"past_{kind}_names": f"past_key_values.%d.{kind}" for kind in ("key", "value")}
    present = {f"present_{kind}_names": f"present.%d.{kind}" for kind in ("key", "value")}
    names = ("input_ids", "attention_mask", "position_ids")
    told = {
        "filename": "model.onnx",
        "head_size": size.n_embd // size.n_heads,
        "hidden_size": size.n_embd,
        "inputs": {**{name: name for name in names}, **past},
        "outputs": {"logits": "logits", **present},
        "num_attention_heads": size.n_heads,
        "num_hidden_layers": size.n_layers,
        "num_key_value_heads": size.n_heads,
        "session_options": {"provider_options": []},
    }
    model = {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0, "type": "llama", "decoder": told}
    sizes = {"context_length": size.n_positions, "vocab_size": size.n_vocab}
    search = {"max_length": size.n_positions, "past_present_share_buffer": False}
    (folder / "genai_config.json").write_text(json.dumps({"model": {**model, **sizes}, "search": search}))
