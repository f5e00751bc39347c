"""`inferd ps` and `inferd cancel`: what the daemon is doing, and an end to one of it."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from .common import (
    REFUSED,
    Address,
    AsJson,
    all_fields,
    connect,
    console,
    duration,
    fields,
    guarded,
    print_json,
    print_table,
    printable,
    size,
    stop,
)

if TYPE_CHECKING:
    from ...protos import inferd_pb2 as pb

# The JSON twin is a contract with scripts: fields are added to it, never renamed.
MODEL = ("name", "state", "backend", "pid", "devices", "bytes", "slots", "running", "pinned")
REQUEST = ("id", "model", "priority", "tenant", "state", "why", "tokens", "tokens_per_s")

MODEL_COLUMNS = ("model", "state", "backend", ">pid", "devices", ">memory", ">slots", ">running", ">waiting", "pinned")
REQUEST_COLUMNS = ("request", "model", "priority", "tenant", "state", ">tokens", ">tokens/s", ">age")
DEVICE_COLUMNS = ("device", "kind", "name", "state", ">memory", ">used", ">booked", ">busy", ">temp", ">power")


@guarded
def ps(address: Address = None, as_json: AsJson = False) -> None:
    """Show models, live requests and devices."""
    with connect(address) as client:
        snapshot = client.snapshot()
    if as_json:
        print_json(twin(snapshot))
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


def twin(snapshot: "pb.Snapshot") -> dict[str, Any]:
    """The snapshot as scripts see it."""
    return {
        "models": [fields(model, MODEL) for model in snapshot.models],
        "requests": [fields(request, REQUEST) for request in snapshot.requests],
        "devices": [all_fields(device) for device in snapshot.devices],
        "rates": all_fields(snapshot.rates),
        "warnings": [all_fields(warning) for warning in snapshot.warnings],
    }


def show(snapshot: "pb.Snapshot") -> None:
    """The snapshot as people see it."""
    rates, out = snapshot.rates, console()
    out.print(
        f"inferd {printable(snapshot.version)}, up {duration(snapshot.uptime_s)}: "
        f"{rates.num_requests_running} running, {rates.num_requests_waiting} waiting, "
        f"{rates.generation_tokens_per_s:.1f} tokens/s out, {rates.prompt_tokens_per_s:.1f} in"
    )
    out.print()
    print_table(MODEL_COLUMNS, [_model_row(model) for model in snapshot.models])
    if snapshot.requests:
        out.print()
        print_table(REQUEST_COLUMNS, [_request_row(request) for request in snapshot.requests])
    if snapshot.devices:
        out.print()
        print_table(DEVICE_COLUMNS, [_device_row(device) for device in snapshot.devices])
    for warning in snapshot.warnings:
        out.print()
        out.print(printable(f"{warning.severity}: {warning.message}"))
        if warning.remedy:
            out.print(printable(f"  {warning.remedy}"))


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
