"""`inferd events`: what happened."""

import json
import time
from typing import TYPE_CHECKING, Annotated

import typer

from .common import Address, AsJson, all_fields, connect, guarded, printable

if TYPE_CHECKING:
    from ...protos import inferd_pb2 as pb


@guarded
def events(
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on with what happens.")] = False,
    severity: Annotated[str, typer.Option("--severity", help="The least: info, warning or error.")] = "",
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Show what happened, the oldest first; with --json one object a line."""
    with connect(address) as client:
        for event in client.events(severity=severity, follow=follow):
            print(json.dumps(all_fields(event), ensure_ascii=False) if as_json else line(event), flush=follow)


def line(event: "pb.Event") -> str:
    """In the time of this machine."""
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event.unix_s))
    return printable(f"{when}  {event.severity:<7}  {event.kind:<16}  {event.message}").replace("\n", " ")
