"""The facts of an ONNX model: from its graph, and from the files that people keep beside it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import msgspec

from ..facts import CorruptModel, ModelFacts, TensorFacts
from . import folder, genai_config
from .graph import read
from .proto import BadProto
from .roles import HIDDEN, IDS, LOGITS, POOLED, roles_of

if TYPE_CHECKING:
    from ..facts import Pooling, Task
    from .graph import Graph, Tensor
    from .roles import Roles

# Operators of these domains come with the runtime; others would need a library of somebody's.
DOMAINS = {"", "ai.onnx.ml", "ai.onnx.preview", "ai.onnx.preview.training", "com.microsoft", "com.microsoft.nchwc"}
DYNAMIC = {"DynamicQuantizeLinear", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM"}
INT8 = {"MatMulInteger", "ConvInteger", "QLinearMatMul", "QLinearConv", "QAttention", "QGemm", *DYNAMIC}
INT4 = {"MatMulNBits", "MatMulBnb4", "GatherBlockQuantized"}
POOLING: dict[str, Pooling] = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "last",
    "mean": "mean",
    "cls": "cls",
    "lasttoken": "last",
}
MODULES = {"Transformer", "Pooling", "Normalize"}  # of sentence-transformers, that are computed here
POOLING_FILE = "1_Pooling/config.json"
OFFSET_TYPES = ("roberta", "camembert", "mpnet", "longformer")  # positions begin after that of the padding
MAX_LABELS = 65_536
# What config.json calls what genai_config.json has, too.
GENAI_NAMES = {
    "hidden_size": "hidden_size",
    "num_hidden_layers": "num_hidden_layers",
    "num_attention_heads": "num_attention_heads",
    "num_key_value_heads": "num_key_value_heads",
    "head_dim": "head_size",
    "max_position_embeddings": "context_length",
    "vocab_size": "vocab_size",
}


def read_facts(path: str) -> ModelFacts:
    """Raises CorruptModel, with one sentence that is fit for a client."""
    try:
        graph = read(path)
    except BadProto as error:
        raise CorruptModel(f"the file is no ONNX model: {error}") from None
    except (OSError, ValueError) as error:
        raise CorruptModel(f"the file cannot be read: {getattr(error, 'strerror', None) or 'it is damaged'}") from None
    _check_ops(graph)
    outputs = [tensor for tensor in graph.outputs if tensor.datatype]
    if (odd := next((tensor for tensor in graph.inputs if not tensor.datatype), None)) is not None or not outputs:
        raise CorruptModel(f"its {f'input {odd.name[:64]!r}' if odd else 'output'} is of a kind that cannot be served")
    sizes = folder.check_external(path, graph.external)
    facts = _Sheet(path, graph, outputs, sizes).facts()
    weights = [os.path.join(os.path.dirname(path), location) for location in sizes]
    return msgspec.structs.replace(facts, files=(*weights, *genai_config.files(path)))


def _check_ops(graph: Graph) -> None:
    for domain, op in sorted(graph.ops):
        if domain not in DOMAINS and (domain, op) not in graph.functions:
            raise CorruptModel(f"it needs an operator of a custom library: {domain[:64]}.{op[:64]}")


class _Sheet:
    """What is said about one model, put together."""

    def __init__(self, path: str, graph: Graph, outputs: list[Tensor], external_bytes: dict[str, int]) -> None:
        self.path, self.graph, self.outputs = path, graph, outputs
        config = folder.read_json(path, folder.CONFIG)
        self.roles: Roles = roles_of(graph.inputs, graph.outputs)
        self.file_bytes = _size(path) + sum(external_bytes.values())
        self.genai = genai_config.read_config(path) if genai_config.applies(path) else {}
        self.config = {
            name: self.genai[theirs] for name, theirs in GENAI_NAMES.items() if theirs in self.genai
        } | config
        self.has_tokenizer = folder.find(path, folder.TOKENIZER) is not None

    def facts(self) -> ModelFacts:
        config, graph = self.config, self.graph
        task, pooling, normalize = self._task()
        heads = _int(config, "num_attention_heads", "n_head")
        n_embd = _int(config, "hidden_size", "n_embd", "dim")
        head_dim = _int(config, "head_dim") or (n_embd // heads if heads else 0)
        past = [tensor for tensor in graph.inputs if tensor.name in self.roles.past]
        kv_heads, past_dim = _past_shape(past)
        return ModelFacts(
            backend="onnx",
            path=self.path,
            file_bytes=self.file_bytes,
            architecture=_text(config.get("model_type") or graph.producer or "onnx")[:64],
            quantization=_quantization(graph),
            n_params=graph.n_params,
            n_layers=len(past) // 2 or _int(config, "num_hidden_layers", "n_layer", "n_layers"),
            n_embd=n_embd,
            n_heads=heads,
            n_kv_heads=kv_heads or _int(config, "num_key_value_heads") or heads,
            k_head_dim=past_dim or head_dim,
            v_head_dim=past_dim or head_dim,
            n_ctx_train=self._n_ctx() if task != "infer" else 0,
            n_vocab=_int(config, "vocab_size") or (self._n_values(task) if task == "generate" else 0),
            pooling=pooling,
            causal=task == "generate",
            n_embd_out=self._n_values(task),
            has_chat_template=task == "generate" and self._has_chat_template(),
            task=task,
            normalize=normalize,
            inputs=tuple(map(_tensor, graph.inputs)),
            outputs=tuple(map(_tensor, self.outputs)),
            labels=self._labels(),
            batched=self.roles.batched,
            dynamic_quantization=bool({op for _, op in graph.ops} & DYNAMIC),
            weights_bytes=graph.weights_bytes,
        )

    def _task(self) -> tuple[Task, Pooling, bool]:
        """What it is used for, how a text becomes one vector, and whether that is brought to a length of 1."""
        names = {tensor.name for tensor in self.outputs}
        said = self.config.get("architectures")
        kinds = [name for name in said if isinstance(name, str)] if isinstance(said, list) else []
        if self.genai and self.has_tokenizer and IDS in {tensor.name for tensor in self.graph.inputs}:
            return "generate", "", True
        if not self.has_tokenizer or not self.roles.text:
            return "infer", "", True
        if self.roles.past and LOGITS in names:
            whole = len(self.roles.past) == len(self.roles.present) and self.roles.writes
            return "generate" if whole else "infer", "", True
        if LOGITS in names and any(name.endswith("ForSequenceClassification") for name in kinds):
            return ("rank", "rank", True) if self._n_labels() == 1 else ("classify", "rank", True)
        if LOGITS in names and any(name.endswith("ForTokenClassification") for name in kinds):
            return "tag", "rank", True
        if POOLED in names or names & set(HIDDEN):
            return self._embeds(pooled=POOLED in names)
        return "infer", "", True

    def _embeds(self, *, pooled: bool) -> tuple[Task, Pooling, bool]:
        """As sentence-transformers writes it down: a list of modules, and of the pooling one its modes."""
        modules = folder.read_any(self.path, "modules.json")
        kinds = [str(m.get("type", "")) for m in modules if isinstance(m, dict)] if isinstance(modules, list) else []
        normalize = not kinds or any(kind.endswith("Normalize") for kind in kinds)
        if pooled:
            return "embed", "mean", normalize
        told = folder.read_json(self.path, POOLING_FILE)
        modes = [name for name, on in told.items() if "mode" in name and on is True]
        if said := told.get("pooling_mode"):  # since its version 5.4: one name, or a list of them
            modes = said if isinstance(said, list) else [said]
        if (
            not {kind.rpartition(".")[2] for kind in kinds} <= MODULES
            or len(modes) > 1
            or any(str(mode) not in POOLING for mode in modes)
        ):
            return "infer", "", True  # more than the graph computes
        return "embed", POOLING[str(modes[0])] if modes else "mean", normalize

    def _n_values(self, task: Task) -> int:
        """Of a vector, or of the logits of one input."""
        wanted = (LOGITS,) if task in ("rank", "classify", "tag", "generate") else (POOLED, *HIDDEN)
        for tensor in self.outputs:
            if tensor.name in wanted and tensor.axes and isinstance(last := tensor.axes[-1], int):
                return last
        return self._n_labels() if task in ("rank", "classify", "tag") else _int(self.config, "hidden_size", "dim")

    def _n_labels(self) -> int:
        for tensor in self.outputs:
            if tensor.name == LOGITS and tensor.axes and isinstance(last := tensor.axes[-1], int):
                return last
        return len(self._labels()) or _int(self.config, "num_labels") or 2

    def _labels(self) -> tuple[str, ...]:
        named = self.config.get("id2label")
        if not isinstance(named, dict) or len(named) > MAX_LABELS:
            return ()
        return tuple(_text(named.get(str(i), f"LABEL_{i}"))[:256] for i in range(len(named)))

    def _n_ctx(self) -> int:
        """The shortest of what the files say about the length of an input, in tokens."""
        n_positions = _int(self.config, "max_position_embeddings", "n_positions")
        if any(kind in str(self.config.get("model_type", "")) for kind in OFFSET_TYPES):
            n_positions -= _int(self.config, "pad_token_id") + 1
        said = (
            n_positions,
            _int(folder.read_json(self.path, folder.TOKENIZER_CONFIG), "model_max_length"),
            _int(folder.read_json(self.path, "sentence_bert_config.json"), "max_seq_length"),
            *(t.axes[1] for t in self.graph.inputs if t.name == IDS and t.axes and isinstance(t.axes[1], int)),
        )
        return min((n for n in said if 0 < n < 1 << 31), default=512)

    def _has_chat_template(self) -> bool:
        if folder.find(self.path, folder.CHAT_TEMPLATE) is not None:
            return True
        return bool(folder.read_json(self.path, folder.TOKENIZER_CONFIG).get("chat_template"))


def adapter_bytes(path: str, facts: ModelFacts) -> int:
    """Raises CorruptModel: these models take none."""
    raise CorruptModel("models of ONNX Runtime take no adapters")


def _past_shape(past: list[Tensor]) -> tuple[int, int]:
    """(heads, values of a head) of the keys; axes are batch, head, position, value."""
    axes = past[0].axes if past else None
    heads, values = (axes[1], axes[3]) if axes is not None and len(axes) == 4 else (0, 0)
    return heads if isinstance(heads, int) else 0, values if isinstance(values, int) else 0


def _tensor(tensor: Tensor) -> TensorFacts:
    shape = None if tensor.axes is None else tuple(-1 if isinstance(axis, str) else axis for axis in tensor.axes)
    return TensorFacts(tensor.name, tensor.datatype, shape)


def _quantization(graph: Graph) -> str:
    """By its operators, else by what most of its weights are."""
    ops = {op for _, op in graph.ops}
    if ops & INT4 or {21, 22} & graph.types.keys():
        return "INT4"
    int8 = graph.types.get(2, 0) + graph.types.get(3, 0)
    if ops & INT8 or ("DequantizeLinear" in ops and int8 * 2 > graph.weights_bytes):
        return "INT8"
    names = {1: "F32", 10: "F16", 16: "BF16", 11: "F64"}
    most = max(names, key=lambda data_type: graph.types.get(data_type, 0))
    return names[most] if graph.types.get(most) else ""


def _size(path: str) -> int:
    return os.stat(path).st_size


def _text(value: object) -> str:
    """JSON can have half of a character in it, which no answer of ours could carry."""
    return str(value).encode(errors="replace").decode()


def _int(values: dict[str, Any], *names: str) -> int:
    """The first of these that is a number, and a sane one; 0 if none is."""
    for name in names:
        value = values.get(name)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1 << 62:
            return int(value)
    return 0
