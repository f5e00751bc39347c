"""Messages as scripts see them."""

from __future__ import annotations

import json
import subprocess
import sys

from inferd.protos import inferd_pb2 as pb
from inferd.protos.twin import all_fields, field_value, fields, snapshot_twin


def test_a_missing_optional_field_is_none_and_an_empty_one_a_list() -> None:
    assert fields(pb.ModelState(name="a"), ("name", "pid", "devices")) == {"name": "a", "pid": None, "devices": []}


def test_zero_is_a_value() -> None:
    assert field_value(pb.RequestState(position=0), "position") == 0
    assert field_value(pb.RequestState(), "position") is None
    assert field_value(pb.RequestState(), "moves") == 0


def test_messages_inside_become_dicts() -> None:
    device = pb.DeviceState(id="gpu0", processes=[pb.ProcessState(pid=7, model="demo")])
    assert field_value(device, "processes") == [{"pid": 7, "bytes": None, "model": "demo"}]
    started = pb.GenerateResponse(started=pb.Started(model="demo"))
    shown = all_fields(started)
    assert shown["started"]["model"] == "demo"
    assert shown["delta"] is None


def test_a_map_is_a_dict() -> None:
    assert field_value(pb.Rates(wasted_tokens_total={"draft": 3}), "wasted_tokens_total") == {"draft": 3}


def test_the_twin_of_a_snapshot_has_every_name_of_the_contract_whatever_was_sent() -> None:
    shown = json.loads(json.dumps(snapshot_twin(pb.Snapshot())))
    assert set(shown) == set(pb.Snapshot.DESCRIPTOR.fields_by_name)
    assert {"models", "requests", "devices", "rates", "warnings", "tenants", "host", "state", "version"} < set(shown)
    assert {"uptime_s", "sequence"} < set(shown)
    assert shown["rates"]["num_requests_running"] == 0
    assert (shown["rates"]["ttft_p50_ms"], shown["host"]["pressure"], shown["host"]["numa_nodes"]) == (None, "", [])


def test_the_twin_of_a_snapshot_has_all_fields_of_its_rows() -> None:
    snapshot = pb.Snapshot(
        models=[pb.ModelState(name="demo", unload_in_s=3.5)],
        requests=[pb.RequestState(id="r1", why_text="its prompt is being read", devices=["cpu"])],
        tenants=[pb.TenantState(tenant="web")],
        host=pb.HostState(numa_nodes=[pb.NumaState(id=1, memory_free_bytes=5)]),
    )
    shown = snapshot_twin(snapshot)
    (model,), (request,), (tenant,) = shown["models"], shown["requests"], shown["tenants"]
    assert (model["unload_in_s"], model["pid"]) == (3.5, None)
    assert (request["why_text"], request["position"], request["devices"]) == ("its prompt is being read", None, ["cpu"])
    assert set(request) == set(pb.RequestState.DESCRIPTOR.fields_by_name)
    assert (tenant["tenant"], tenant["stalled"]) == ("web", 0)
    node = {"id": 1, "cores": 0, "memory_total_bytes": None, "memory_free_bytes": 5}
    assert shown["host"]["numa_nodes"] == [node]


def test_who_imports_it_does_not_pay_for_protobuf() -> None:
    code = "import sys, inferd.protos.twin; print('google.protobuf' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "False"
