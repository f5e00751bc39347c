"""`inferd priority`, `pin`, `unpin`, `drain`, `reload` and `whoami`: what an operator does while the daemon runs."""

from typing import Annotated

import typer

from .common import REFUSED, Address, AsJson, Model, connect, guarded, print_json, printable, stop
from .run import Priority


@guarded
def priority(
    request_id: Annotated[str, typer.Argument(metavar="ID", help="A request's id, as `inferd ps` shows it.")],
    priority: Annotated[Priority, typer.Argument(metavar="CLASS", help="interactive, normal or batch.")],
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Move a live request to another class."""
    with connect(address) as client:
        changed = client.set_priority(request_id, priority)
    if as_json:
        print_json({"request_id": request_id, "priority": priority, "changed": changed})
        raise typer.Exit(0 if changed else REFUSED)
    if not changed:
        stop(REFUSED, f"no request {request_id} is live")
    print(f"{request_id} is {priority}")


@guarded
def pin(model: Model, address: Address = None, as_json: AsJson = False) -> None:
    """Have a model stay once it is loaded, until it is unpinned or the daemon ends."""
    _pin(model, True, address, as_json)


@guarded
def unpin(model: Model, address: Address = None, as_json: AsJson = False) -> None:
    """Let a model make way again, and be unloaded when nobody uses it."""
    _pin(model, False, address, as_json)


def _pin(model: str, pinned: bool, address: str | None, as_json: bool) -> None:
    with connect(address) as client:
        was_pinned = client.pin(model, pinned=pinned)
    if as_json:
        print_json({"model": model, "pinned": pinned, "was_pinned": was_pinned})
    else:
        already = " already" if was_pinned is pinned else ""
        print(f"{model} is{already} {'pinned' if pinned else 'not pinned'}")


@guarded
def drain(
    off: Annotated[bool, typer.Option("--off", help="Take requests in again.")] = False,
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Take no new request in; what runs and waits goes on."""
    with connect(address) as client:
        was_draining = client.drain(draining=not off)
    if as_json:
        print_json({"draining": not off, "was_draining": was_draining})
    else:
        already = " already" if was_draining is not off else ""
        print(f"the daemon is{already} {'serving' if off else 'draining: no new request is taken in'}")


@guarded
def reload(address: Address = None, as_json: AsJson = False) -> None:
    """Have the daemon read its config again: all of it holds then, or none of it."""
    with connect(address) as client:
        answer = client.reload()
    if as_json:
        print_json({"changed": list(answer.changed), "needs_restart": list(answer.needs_restart)})
        return
    print(printable(f"changed: {', '.join(answer.changed) or 'nothing'}"))
    if answer.needs_restart:
        print(printable(f"from the next start of the daemon: {', '.join(answer.needs_restart)}"))


@guarded
def whoami(address: Address = None, as_json: AsJson = False) -> None:
    """Show how the daemon sees you."""
    with connect(address) as client:
        seen = client.whoami()
    if as_json:
        print_json({"tenant": seen.tenant, "role": seen.role})
    else:
        print(printable(f"{seen.role} of tenant {seen.tenant}"))
