from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from inferd.backends.facts import Batching, LoadPlan
from inferd.backends.messages import Call
from inferd.backends.onnx.header import read_facts
from inferd.daemon.api.oip_models import check_version, config, index, metadata, ports, statistics
from inferd.daemon.domain.errors import InferdError
from inferd.daemon.domain.model import Model, ModelState
from inferd.daemon.node.figures import Statistics
from inferd.daemon.system.catalog import Entry
from inferd.protos import oip_pb2 as oip
from inferd.tests.models.random_onnx import affine

if TYPE_CHECKING:
    from pathlib import Path

PLAN = LoadPlan(
    backend="onnx",
    path="/secret/m/model.onnx",
    n_ctx=256,
    n_slots=8,
    kv_cells=256,
    n_threads=1,
    task="infer",
    batching=Batching(8, (4, 8), 500, True),
)


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return Model("m", read_facts(str(affine(tmp_path / "m.onnx"))), PLAN, 300.0)


def task(model: Model, name: Any, **facts: Any) -> Model:
    model.plan = msgspec.structs.replace(PLAN, task=name, batching=Batching())
    model.facts = msgspec.structs.replace(model.facts, task=name, **facts)
    return model


def test_a_graphs_own_tensors_are_told(model: Model) -> None:
    told = metadata(model)
    assert (told.name, list(told.versions), told.platform) == ("m", ["1"], "onnxruntime_onnx")
    assert [(one.name, one.datatype, list(one.shape)) for one in told.inputs] == [("x", "FP32", [-1, 4])]
    assert [one.name for one in told.outputs] == ["y", "total"]
    assert told.properties["task"] == "infer"


def test_texts_stand_in_where_there_are_none(model: Model) -> None:
    assert ports(task(model, "generate"))[1] == [("text_output", "BYTES", [1])]
    assert ports(task(model, "embed", inputs=()))[0] == [("text_input", "BYTES", [-1])]
    assert ports(task(model, "rank", inputs=())) == ([], [])
    assert config(task(model, "generate")).model_transaction_policy.decoupled


def test_the_configuration_is_in_tritons_words(model: Model) -> None:
    told = config(model)
    assert (told.max_batch_size, told.backend, told.default_model_filename) == (8, "onnxruntime", "model.onnx")
    assert (told.input[0].data_type, list(told.input[0].dims)) == (oip.TYPE_FP32, [4])
    assert list(told.output[1].dims) == []
    batching = told.dynamic_batching
    assert (list(batching.preferred_batch_size), batching.max_queue_delay_microseconds) == ([4, 8], 500)
    assert (batching.preserve_ordering, batching.priority_levels) == (True, 3)
    assert told.instance_group[0].kind == oip.ModelInstanceGroup.KIND_CPU
    assert "/secret" not in str(told)


def test_without_batching_dims_are_whole(model: Model) -> None:
    told = config(task(model, "infer"))
    assert (told.max_batch_size, list(told.input[0].dims)) == (0, [-1, 4])
    assert not told.HasField("dynamic_batching")


def test_there_is_one_version() -> None:
    check_version("")
    check_version("1")
    with pytest.raises(InferdError) as caught:
        check_version("2")
    assert caught.value.field == "model_version"


def test_the_index_says_what_is_ready_and_why_not(model: Model) -> None:
    entries = [
        Entry(name, model.facts, error, 1, 1) for name, error in (("m", None), ("cold", None), ("bad", "no model"))
    ]
    model.state = ModelState.READY
    rows = [(row.name, row.state, row.reason) for row in index(entries, {"m": model}, ready=False).models]
    assert rows == [("m", "READY", ""), ("cold", "UNAVAILABLE", "unloaded"), ("bad", "UNAVAILABLE", "no model")]
    assert [row.name for row in index(entries, {"m": model}, ready=True).models] == ["m"]


def test_statistics_are_counts_and_nanoseconds(model: Model) -> None:
    known = Statistics()
    known.on_call("m", Call(4, True, 1.0, 2.0, 3.0))
    model.booked_bytes = 1 << 20
    (told,) = statistics([(model, known.of("m"))]).model_stats
    assert (told.name, told.execution_count) == ("m", 1)
    assert (told.inference_stats.compute_infer.count, told.inference_stats.compute_infer.ns) == (1, 2_000_000)
    assert (told.batch_stats[0].batch_size, told.batch_stats[0].compute_output.ns) == (4, 3_000_000)
    assert told.memory_usage[0].byte_size == 1 << 20
