"""What the Open Inference Protocol says of models: metadata, configuration, statistics, and which there are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...protos import oip_pb2 as oip
from ..domain.errors import Code, InferdError
from ..domain.model import ModelState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ...backends.facts import TensorFacts
    from ..domain.model import Model
    from ..node.figures import Compute, Duration, ModelStatistics
    from ..system.catalog import Entry

VERSION = "1"  # each name is one model: another version of it has another name
PLATFORMS = {"onnx": "onnxruntime_onnx", "llama": "llama_cpp", "fake": "fake"}
BACKENDS = {"onnx": "onnxruntime", "llama": "llama_cpp", "fake": "fake"}
EXTENSIONS = (
    "classification",
    "model_configuration",
    "model_repository",
    "parameters",
    "schedule_policy",
    "statistics",
)
STATES = {ModelState.READY: "READY", ModelState.LOADING: "LOADING", ModelState.DRAINING: "UNLOADING"}
TYPES = {
    "BOOL": oip.TYPE_BOOL,
    "UINT8": oip.TYPE_UINT8,
    "UINT16": oip.TYPE_UINT16,
    "UINT32": oip.TYPE_UINT32,
    "UINT64": oip.TYPE_UINT64,
    "INT8": oip.TYPE_INT8,
    "INT16": oip.TYPE_INT16,
    "INT32": oip.TYPE_INT32,
    "INT64": oip.TYPE_INT64,
    "FP16": oip.TYPE_FP16,
    "FP32": oip.TYPE_FP32,
    "FP64": oip.TYPE_FP64,
    "BYTES": oip.TYPE_STRING,
}
# Of models that read texts and have no tensors of their own: inputs and outputs by task, with their shapes.
TEXT_PORTS: Mapping[str, tuple[tuple[str, str, list[int]], tuple[str, str, list[int]]]] = {
    "generate": (("text_input", "BYTES", [1]), ("text_output", "BYTES", [1])),
    "embed": (("text_input", "BYTES", [-1]), ("embedding", "FP32", [-1, -1])),
    "tag": (("text_input", "BYTES", [1]), ("logits", "FP32", [-1, -1])),
    "classify": (("text_input", "BYTES", [-1]), ("logits", "FP32", [-1, -1])),
}


def check_version(version: str) -> None:
    """Raises InferdError for any but the one there is."""
    if version not in ("", VERSION):
        raise InferdError(
            Code.NOT_FOUND, f"model_version: there is only {VERSION!r}, not {version[:32]!r}", field="model_version"
        )


def ports(model: Model) -> tuple[list[tuple[str, str, list[int]]], list[tuple[str, str, list[int]]]]:
    """(inputs, outputs), each as name, datatype and shape. A text's are told where it has none of its own."""
    facts, task = model.facts, model.plan.task
    if facts.inputs and task != "generate":
        return list(map(_port, facts.inputs)), list(map(_port, facts.outputs))
    if task not in TEXT_PORTS:
        return [], []
    given, made = TEXT_PORTS[task]
    return [given], [made]


def _port(port: TensorFacts) -> tuple[str, str, list[int]]:
    return port.name, port.datatype, list(port.shape or ())


def metadata(model: Model) -> oip.ModelMetadataResponse:
    answer = oip.ModelMetadataResponse(name=model.name, versions=[VERSION], platform=PLATFORMS[model.plan.backend])
    inputs, outputs = ports(model)
    for name, datatype, shape in inputs:
        answer.inputs.add(name=name, datatype=datatype, shape=shape)
    for name, datatype, shape in outputs:
        answer.outputs.add(name=name, datatype=datatype, shape=shape)
    facts = model.facts
    answer.properties.update(task=model.plan.task, architecture=facts.architecture, quantization=facts.quantization)
    return answer


def config(model: Model) -> oip.ModelConfig:
    plan, rules = model.plan, model.plan.batching
    answer = oip.ModelConfig(
        name=model.name,
        platform=PLATFORMS[plan.backend],
        backend=BACKENDS[plan.backend],
        max_batch_size=rules.max_batch_size,
        default_model_filename=plan.path.rpartition("/")[2],
    )
    first = 1 if rules.max_batch_size else 0  # the batch is no part of the dims then
    inputs, outputs = ports(model)
    for name, datatype, shape in inputs:
        answer.input.add(name=name, data_type=TYPES[datatype], dims=shape[first:])
    for name, datatype, shape in outputs:
        answer.output.add(name=name, data_type=TYPES[datatype], dims=shape[first:])
    kind = oip.ModelInstanceGroup.KIND_GPU if plan.devices else oip.ModelInstanceGroup.KIND_CPU
    answer.instance_group.add(name=model.name, count=1, kind=kind)
    if rules.max_batch_size:
        answer.dynamic_batching.preferred_batch_size.extend(rules.preferred_batch_size)
        answer.dynamic_batching.max_queue_delay_microseconds = rules.max_queue_delay_microseconds
        answer.dynamic_batching.preserve_ordering = rules.preserve_ordering
        answer.dynamic_batching.priority_levels, answer.dynamic_batching.default_priority_level = 3, 1
    answer.model_transaction_policy.decoupled = plan.task == "generate"
    return answer


def index(entries: Iterable[Entry], models: Mapping[str, Model], *, ready: bool) -> oip.RepositoryIndexResponse:
    answer = oip.RepositoryIndexResponse()
    for entry in entries:
        model = models.get(entry.name)
        state = STATES.get(model.state, "UNAVAILABLE") if model is not None else "UNAVAILABLE"
        if ready and state != "READY":
            continue
        reason = (model.error if model is not None else "") or entry.error or "unloaded"
        answer.models.add(name=entry.name, version=VERSION, state=state, reason="" if state == "READY" else reason)
    return answer


def statistics(models: Sequence[tuple[Model, ModelStatistics]]) -> oip.ModelStatisticsResponse:
    answer = oip.ModelStatisticsResponse()
    for model, figures in models:
        one = answer.model_stats.add(
            name=model.name,
            version=VERSION,
            last_inference=figures.last_inference_ms,
            inference_count=figures.inference_count,
            execution_count=figures.execution_count,
        )
        stats = one.inference_stats
        for wire, duration in (
            (stats.success, figures.success),
            (stats.fail, figures.fail),
            (stats.queue, figures.queue),
        ):
            _set(wire, duration)
        _compute(stats, figures.compute)
        for n_rows, compute in sorted(figures.by_rows.items()):
            _compute(one.batch_stats.add(batch_size=n_rows), compute)
        if model.booked_bytes:
            where = "GPU" if model.plan.devices else "CPU"
            one.memory_usage.add(type=where, id=0, byte_size=model.booked_bytes)
    return answer


def _compute(wire: oip.InferStatistics | oip.InferBatchStatistics, compute: Compute) -> None:
    _set(wire.compute_input, compute.input)
    _set(wire.compute_infer, compute.infer)
    _set(wire.compute_output, compute.output)


def _set(wire: oip.StatisticDuration, duration: Duration) -> None:
    wire.count, wire.ns = duration.count, duration.ns
