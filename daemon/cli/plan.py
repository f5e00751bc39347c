"""`inferd plan`: what a load would do now, without doing it."""

from typing import TYPE_CHECKING

from .common import (
    Address,
    AsJson,
    Model,
    all_fields,
    connect,
    console,
    duration,
    guarded,
    print_json,
    print_table,
    printable,
    size,
)

if TYPE_CHECKING:
    from ...protos import inferd_pb2 as pb


@guarded
def plan(model: Model, address: Address = None, as_json: AsJson = False) -> None:
    """Show what loading a model would take: devices, bytes, who would make way, or what would make it fit."""
    with connect(address) as client:
        report = client.plan(model)
    if as_json:
        print_json(all_fields(report))
    else:
        show(report)


def show(report: "pb.PlanLoadResponse") -> None:
    """The plan as people see it: the verdict first."""
    console().print(printable(verdict(report)))
    if report.change:
        console().print(printable(f"  it would fit with: {report.change}"))
    for note in report.notes:
        console().print(printable(f"  {note}"))
    print_table(
        ("pool", ">needed", ">free"),
        [(pool.pool, size(pool.needed_bytes), size(max(0, pool.free_bytes))) for pool in report.pools],
    )
    if report.holders:
        console().print()
        rows = [(h.model, size(h.bytes), h.stays or _goes(h.model, report), f"{h.cost:.2g} s") for h in report.holders]
        print_table(("loaded", ">memory", "makes way", ">cost"), rows)


def verdict(report: "pb.PlanLoadResponse") -> str:
    where = f"{report.model} on {', '.join(report.devices)}"
    after = f", about {duration(report.load_ms / 1e3)}" if report.HasField("load_ms") else ""
    match report.outcome:
        case "loaded":
            return f"{where}: is loaded already"
        case "fits":
            return f"{where}: fits{after}"
        case "evicts":
            return f"{where}: fits after {', '.join(report.victims)} made way{after}"
        case "waits":
            return f"{where}: has to wait: {report.message}"
        case _:
            return f"{where}: does not fit: {report.message}"


def _goes(model: str, report: "pb.PlanLoadResponse") -> str:
    return "yes" if model in report.victims else "could"
