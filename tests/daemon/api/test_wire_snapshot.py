"""Every field of every row arrives, and what is not known stays absent."""

from __future__ import annotations

from typing import Any, get_args, get_type_hints

import msgspec
import pytest
from msgspec.structs import replace

from inferd.daemon.api.wire_snapshot import to_snapshot
from inferd.daemon.domain import snapshot as rows
from inferd.protos import inferd_pb2 as pb
from inferd.protos.twin import snapshot_twin

from .examples import FULL, SPARSE

MESSAGES: dict[type, Any] = {
    rows.ModelRow: pb.ModelState,
    rows.RequestRow: pb.RequestState,
    rows.TenantRow: pb.TenantState,
    rows.DeviceRow: pb.DeviceState,
    rows.ProcessRow: pb.ProcessState,
    rows.HostRow: pb.HostState,
    rows.NumaRow: pb.NumaState,
    rows.RatesRow: pb.Rates,
    rows.WarningRow: pb.Warning,
    rows.Snapshot: pb.Snapshot,
}


@pytest.mark.parametrize("row", MESSAGES, ids=lambda row: row.__name__)
def test_rows_and_messages_have_the_same_names(row: Any) -> None:
    assert set(row.__struct_fields__) == set(MESSAGES[row].DESCRIPTOR.fields_by_name)


@pytest.mark.parametrize("row", MESSAGES, ids=lambda row: row.__name__)
def test_what_may_be_missing_in_a_row_may_be_so_in_its_message(row: Any) -> None:
    message = MESSAGES[row].DESCRIPTOR
    optional = {name for name, field in message.fields_by_name.items() if field.containing_oneof is not None}
    assert {name for name, hint in get_type_hints(row).items() if type(None) in get_args(hint)} == optional


@pytest.mark.parametrize("snapshot", [FULL, SPARSE], ids=["full", "sparse"])
def test_the_message_says_what_the_rows_say(snapshot: rows.Snapshot) -> None:
    shown = pb.Snapshot.FromString(to_snapshot(snapshot).SerializeToString())
    assert snapshot_twin(shown) == msgspec.json.decode(msgspec.json.encode(snapshot))


def test_what_is_not_known_stays_absent() -> None:
    shown = to_snapshot(SPARSE)
    for message in (shown.models[0], shown.requests[0], shown.devices[0], shown.host, shown.rates):
        assert not any(field.containing_oneof for field, _ in message.ListFields()), message


def test_a_figure_of_zero_is_known() -> None:
    for n_bytes in (0, None):
        device = replace(FULL.devices[0], processes=(rows.ProcessRow(1, n_bytes, ""),))
        (process,) = to_snapshot(replace(FULL, devices=(device,))).devices[0].processes
        assert process.HasField("bytes") is (n_bytes is not None)
