"""Messages as scripts see them: dicts of plain values, for JSON. A contract: fields are added, never renamed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from . import inferd_pb2 as pb


def snapshot_twin(snapshot: pb.Snapshot) -> dict[str, Any]:
    """What `inferd ps --json` prints: everything, by the names of protos/inferd.proto."""
    # What is there once is there always: scripts need not ask for it.
    return {**all_fields(snapshot), "rates": all_fields(snapshot.rates), "host": all_fields(snapshot.host)}


def all_fields(message: Any) -> dict[str, Any]:
    return fields(message, [field.name for field in message.DESCRIPTOR.fields])


def fields(message: Any, names: Iterable[str]) -> dict[str, Any]:
    """Some fields of a message; an optional one that is not set is None, a repeated one a list, a message a dict."""
    return {name: field_value(message, name) for name in names}


def field_value(message: Any, name: str) -> Any:
    value = getattr(message, name)
    if hasattr(value, "DESCRIPTOR"):
        return all_fields(value) if message.HasField(name) else None
    if hasattr(value, "append"):
        return [all_fields(one) if hasattr(one, "DESCRIPTOR") else one for one in value]
    if hasattr(value, "items"):
        return dict(value)
    if message.DESCRIPTOR.fields_by_name[name].has_presence and not message.HasField(name):
        return None
    return value
