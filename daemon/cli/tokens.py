"""`inferd token ...`: who else may use this daemon, and as what. Goes to the admins' socket unless told otherwise."""

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from .common import (
    REFUSED,
    USAGE,
    Address,
    AsJson,
    all_fields,
    connect,
    guarded,
    print_json,
    print_table,
    printable,
    stop,
)

if TYPE_CHECKING:
    from ...protos import inferd_pb2 as pb
    from ...protos.client import Client

app = typer.Typer(help="Tokens: who else may use the daemon.", no_args_is_help=True, rich_markup_mode=None)

Role = Literal["viewer", "user", "operator", "admin"]
UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


@app.callback()
def group() -> None:
    """Tokens: who else may use the daemon."""


@app.command()
@guarded
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Who or what will use it.")],
    role: Annotated[Role, typer.Option(help="What it may do.")] = "user",
    tenant: Annotated[str, typer.Option(metavar="TENANT", help="Whose requests come with it; default: NAME.")] = "",
    ttl: Annotated[str, typer.Option(metavar="TIME", help="How long it holds: 12h, 30d; default: for good.")] = "",
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Make a token and print it; it is shown this once."""
    ttl_s = _seconds(ttl) if ttl else None
    with _dial(address) as client:
        made = client.create_token(name, role, tenant=tenant, ttl_s=ttl_s)
    if as_json:
        print_json({"token": made.token, **all_fields(made.info)})
    else:
        print(made.token)  # and nothing else, for scripts


@app.command("list")
@guarded
def show(address: Address = None, as_json: AsJson = False) -> None:
    """Show the tokens, never what they are."""
    with _dial(address) as client:
        tokens = client.tokens()
    if as_json:
        print_json({"tokens": [all_fields(token) for token in tokens]})
        return
    if not tokens:
        print("no tokens; make one with: inferd token create NAME")
        return
    print_table(("id", "name", "role", "tenant", "created", "expires", "last used"), [_row(token) for token in tokens])


@app.command()
@guarded
def revoke(
    token: Annotated[str, typer.Argument(metavar="ID", help="A token's id, or its name.")],
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """End a token, and the calls that came with it."""
    with _dial(address) as client:
        revoked = client.revoke_token(token)
    if as_json:
        print_json({"token": token, "revoked": revoked})
        raise typer.Exit(0 if revoked else REFUSED)
    if not revoked:
        stop(REFUSED, f"there is no token {token}, or more than one of that name")
    print(printable(f"{token} is revoked"))


def _dial(address: str | None) -> "Client":
    """The admins' socket says who one is; a token of the environment would say something else."""
    if address is not None:
        return connect(address)
    from ...protos.address import admin_of
    from ...protos.client import Client

    where = admin_of()
    return Client(where, token="" if where.startswith("unix:") else None)


def _seconds(written: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", written.strip())
    if found is None:
        stop(USAGE, f"--ttl must be a number with s, m, h or d, such as 30d, not {written!r}")
    return float(found[1]) * UNITS_S[found[2]]


def _row(token: "pb.TokenInfo") -> tuple[str, ...]:
    times = (
        token.created_unix_s,
        token.expires_unix_s if token.HasField("expires_unix_s") else None,
        token.last_used_unix_s if token.HasField("last_used_unix_s") else None,
    )
    return (token.id, token.name, token.role, token.tenant, *map(_time, times))


def _time(unix_s: float | None) -> str:
    if unix_s is None:
        return "-"
    return datetime.fromtimestamp(unix_s, UTC).astimezone().strftime("%Y-%m-%d %H:%M")
