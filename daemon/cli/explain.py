"""`inferd explain`: why a request waited, moved or was refused."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .common import Address, AsJson, connect, console, duration, guarded, print_json, print_table, printable

if TYPE_CHECKING:
    from ...protos import inferd_pb2 as pb

SCREEN = 16  # rows; what is between the first and the last ones is only counted


@guarded
def explain(
    request_id: Annotated[str, typer.Argument(metavar="ID", help="A request's id, as `inferd ps` shows it.")],
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Show the decisions about a request: why it waited, made way or was refused."""
    with connect(address) as client:
        records = client.explain(request_id)
    if as_json:
        print_json(twin(request_id, records))
    else:
        show(records)


def twin(request_id: str, records: "list[pb.DecisionRecord]") -> dict[str, Any]:
    """The records as scripts see them."""
    return {
        "request_id": request_id,
        "records": [
            {
                "kind": record.kind,
                "inputs": json.loads(record.inputs),
                "chosen": json.loads(record.chosen),
                "rejected": json.loads(record.rejected),
                "age_ms": record.age_ms,
                "model": record.model,
                "summary": record.summary,
            }
            for record in records
        ],
    }


def show(records: "list[pb.DecisionRecord]") -> None:
    """One line a decision, on one screen."""
    first_ms = records[0].age_ms
    rows = [(f"+{duration((first_ms - r.age_ms) / 1e3)}", r.kind, r.model, r.summary) for r in _together(records)]
    hidden = len(rows) - SCREEN
    if hidden > 0:
        half = SCREEN // 2
        rows = [*rows[:half], ("", "", "", f"... {hidden} more; --json shows all ..."), *rows[-half:]]
    print_table((">after", "decision", "model", "what it meant"), rows)
    passed = sum(record.summary.startswith("passed over") for record in records)
    if passed > 1:
        console().print()
        console().print(printable(f"It was passed over {passed} times in all; the last of each row's reason is shown."))


def _together(records: "list[pb.DecisionRecord]") -> "list[pb.DecisionRecord]":
    """Of turns that it lost in a row for the same reason only the last one counts."""
    kept: list[pb.DecisionRecord] = []
    for record in records:
        if kept and _reason(record) is not None and _reason(record) == _reason(kept[-1]):
            kept[-1] = record
        else:
            kept.append(record)
    return kept


def _reason(record: "pb.DecisionRecord") -> str | None:
    before, _, why = record.summary.partition(": ")
    return why.partition(" (")[0] if before.startswith("passed over") else None
