"""`inferd ps` and `inferd cancel`: what the daemon is doing, and an end to one of it."""

from typing import TYPE_CHECKING, Annotated

import typer

from ...protos.twin import all_fields, snapshot_twin
from .common import (
    REFUSED,
    Address,
    AsJson,
    connect,
    console,
    duration,
    guarded,
    print_json,
    print_table,
    printable,
    size,
    stop,
)
from .waiting import span

if TYPE_CHECKING:
    from ...protos import inferd_pb2 as pb

MODEL_COLUMNS = ("model", "state", "backend", ">pid", "devices", ">memory", ">slots", ">running", ">waiting", "pinned")
REQUEST_COLUMNS = ("request", "model", "priority", "tenant", "state", ">tokens", ">tokens/s", ">age")
WAITING_COLUMNS = ("waits", ">before", "first token", "why")
DEVICE_COLUMNS = ("device", "kind", "name", "state", ">memory", ">used", ">booked", ">busy", ">temp", ">power")


@guarded
def ps(address: Address = None, as_json: AsJson = False) -> None:
    """Show models, live requests and why they wait, and devices."""
    with connect(address) as client:
        snapshot = client.snapshot()
    if as_json:
        print_json(snapshot_twin(snapshot))
    else:
        show(snapshot)


@guarded
def cancel(
    request_id: Annotated[str, typer.Argument(metavar="ID", help="A request's id, as `inferd ps` shows it.")],
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Cancel a request."""
    with connect(address) as client:
        cancelled = client.cancel(request_id)
    if as_json:
        print_json({"request_id": request_id, "cancelled": cancelled})
        raise typer.Exit(0 if cancelled else REFUSED)
    if not cancelled:
        stop(REFUSED, f"no request {request_id} is live")
    print(f"{request_id} is cancelled")


def show(snapshot: "pb.Snapshot") -> None:
    """The snapshot as people see it."""
    rates, out = snapshot.rates, console()
    out.print(
        f"inferd {printable(snapshot.version)}, {_state(snapshot)}up {duration(snapshot.uptime_s)}: "
        f"{rates.num_requests_running} running, {rates.num_requests_waiting} waiting, "
        f"{rates.generation_tokens_per_s:.1f} tokens/s out, {rates.prompt_tokens_per_s:.1f} in"
    )
    out.print()
    print_table(MODEL_COLUMNS, [_model_row(model) for model in snapshot.models])
    if snapshot.requests:
        out.print()
        print_table(REQUEST_COLUMNS, [_request_row(request) for request in snapshot.requests])
    if waiting := [request for request in snapshot.requests if request.why_text]:
        waiting.sort(key=lambda request: (request.model, request.position))
        out.print()
        print_table(WAITING_COLUMNS, [_waiting_row(request) for request in waiting])
    if snapshot.devices:
        out.print()
        print_table(DEVICE_COLUMNS, [_device_row(device) for device in snapshot.devices])
    for warning in snapshot.warnings:
        out.print()
        out.print(printable(f"{warning.severity}: {warning.message}"))
        if warning.remedy:
            out.print(printable(f"  {warning.remedy}"))


def _state(snapshot: "pb.Snapshot") -> str:
    return "" if snapshot.state in ("", "serving") else f"{printable(snapshot.state)}, "


def _model_row(model: "pb.ModelState") -> tuple[object, ...]:
    loading = model.state == "loading"
    state = f"loading {model.load_progress:.0%}" if loading else model.state
    return (
        model.name,
        f"{state}: {model.error}" if model.error else state,
        model.backend or "-",
        model.pid if model.HasField("pid") else "-",
        ", ".join(model.devices) or "-",
        size(model.bytes) if model.bytes else "-",
        model.slots or "-",
        model.running,
        model.waiting,
        "yes" if model.pinned else "",
    )


def _request_row(request: "pb.RequestState") -> tuple[object, ...]:
    state = f"{request.state} ({request.why})" if request.why else request.state
    rate, age = f"{request.tokens_per_s:.1f}", duration(request.age_ms / 1000)
    return request.id, request.model, request.priority, request.tenant, state, request.tokens, rate, age


def _waiting_row(request: "pb.RequestState") -> tuple[object, ...]:
    before = request.position if request.HasField("position") else "-"
    known = request.HasField("eta_low_ms") and request.HasField("eta_high_ms")
    return request.id, before, span(request.eta_low_ms, request.eta_high_ms) if known else "-", request.why_text


def _device_row(device: "pb.DeviceState") -> tuple[object, ...]:
    value = all_fields(device)
    busy, heat, power = value["utilization"], value["temperature_celsius"], value["power_watts"]
    return (
        device.id,
        device.kind,
        device.name,
        device.state,
        size(value["memory_total_bytes"]),
        size(value["memory_used_bytes"]),
        size(device.booked_bytes),
        "-" if busy is None else f"{busy:.0%}",
        "-" if heat is None else f"{heat:.0f} °C",
        "-" if power is None else f"{power:.0f} W",
    )
