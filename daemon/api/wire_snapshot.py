"""The Snapshot to protobuf, field for field: the rows and the messages have the same names; None stays absent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from ...protos import inferd_pb2 as pb

if TYPE_CHECKING:
    from ..domain.snapshot import DeviceRow, HostRow, Snapshot


def to_snapshot(snapshot: Snapshot) -> pb.Snapshot:
    wire = pb.Snapshot(
        sequence=snapshot.sequence, version=snapshot.version, uptime_s=snapshot.uptime_s, state=snapshot.state
    )
    wire.models.extend(pb.ModelState(**_present(row)) for row in snapshot.models)
    wire.requests.extend(pb.RequestState(**_present(row)) for row in snapshot.requests)
    wire.tenants.extend(pb.TenantState(**_present(row)) for row in snapshot.tenants)
    wire.devices.extend(_device(row) for row in snapshot.devices)
    wire.warnings.extend(pb.Warning(**_present(row)) for row in snapshot.warnings)
    wire.rates.CopyFrom(pb.Rates(**_present(snapshot.rates)))
    wire.host.CopyFrom(_host(snapshot.host))
    return wire


def _device(row: DeviceRow) -> pb.DeviceState:
    present = _present(row)
    present["processes"] = [pb.ProcessState(**_present(process)) for process in row.processes]
    return pb.DeviceState(**present)


def _host(row: HostRow) -> pb.HostState:
    present = _present(row)
    present["numa_nodes"] = [pb.NumaState(**_present(node)) for node in row.numa_nodes]
    return pb.HostState(**present)


def _present(row: msgspec.Struct) -> dict[str, Any]:
    return {name: value for name, value in msgspec.structs.asdict(row).items() if value is not None}
