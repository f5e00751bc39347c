"""What every verb shares: options, exit codes, and failures in one line."""

import functools
import json
import os
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, ParamSpec, TypeVar

import typer

from ...protos.errors import InferdError, Unreachable
from ...protos.twin import all_fields as all_fields
from ...protos.twin import field_value as field_value
from ...protos.twin import fields as fields

if TYPE_CHECKING:
    from rich.console import Console

    from ...protos.client import Client

P = ParamSpec("P")
R = TypeVar("R")

USAGE, UNREACHABLE, REFUSED, FAILED = 2, 3, 4, 5
ALREADY_RUNNING, BAD_CONFIG = 75, 78
INTERRUPTED, BROKEN_PIPE = 130, 141

# Refused: the daemon understood and will not do it, now or at all. What is not here has failed.
EXIT_CODES = {
    "bad_config": BAD_CONFIG,
    "invalid": USAGE,
    "unreachable": UNREACHABLE,
    "draining": REFUSED,
    "not_found": REFUSED,
    "no_disk": REFUSED,
    "no_room": REFUSED,
    "no_sandbox": REFUSED,
    "over_budget": REFUSED,
    "overloaded": REFUSED,
    "permission_denied": REFUSED,
    "prompt_too_long": REFUSED,
    "queue_full": REFUSED,
    "shutting_down": REFUSED,
    "too_large": REFUSED,
    "unauthenticated": REFUSED,
    "unsupported": REFUSED,
}

Address = Annotated[
    str | None,
    typer.Option("--address", metavar="ADDRESS", help="Where the daemon is: unix:/path, host:port or tls:host:port."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
Model = Annotated[str, typer.Argument(metavar="MODEL", help="A model's name, as `inferd models` shows it.")]


def connect(address: str | None) -> "Client":
    """The client for one verb; the import is here because it costs a tenth of a second."""
    from ...protos.client import Client

    return Client(address)


def guarded(verb: Callable[P, R]) -> Callable[P, R]:
    """Turn failures of a verb into one line on stderr and an exit code."""

    @functools.wraps(verb)
    def inner(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return verb(*args, **kwargs)
        except InferdError as error:
            show_error(error, as_json=bool(kwargs.get("as_json")))
            raise typer.Exit(EXIT_CODES.get(error.code, FAILED)) from None
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            # The reader has left; keep Python from failing once more when it flushes at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(BROKEN_PIPE) from None

    return inner


def show_error(error: InferdError, *, as_json: bool = False) -> None:
    """Write a failure to stderr; its JSON twin has everything the daemon said."""
    if as_json:
        shown = {"code": error.code, "message": error.message, "retry_after_ms": error.retry_after_ms}
        print(json.dumps({"error": {**shown, "details": error.details}}), file=sys.stderr)
        return
    line = error.message or error.code
    if isinstance(error, Unreachable) and line.startswith("no daemon"):
        line += "; start one with: inferd serve"
    if error.retry_after_ms is not None:
        line += f"; try again in {error.retry_after_ms / 1000:.1f} s"
    print(f"inferd: {line}", file=sys.stderr)


def stop(code: int, message: str) -> NoReturn:
    """End a verb with one line on stderr."""
    print(f"inferd: {message}", file=sys.stderr)
    raise typer.Exit(code)


def print_json(value: object) -> None:
    print(json.dumps(value, ensure_ascii=False))


def console() -> "Console":
    """Tables only; names from model files and clients are never read as markup."""
    from rich.console import Console

    # Who reads a pipe wants one row a line, however long.
    width = None if sys.stdout.isatty() else 1000
    return Console(markup=False, highlight=False, emoji=False, width=width)


def print_table(columns: Iterable[str], rows: Iterable[Iterable[object]], *, header: bool = True) -> None:
    """Print rows; a column whose name starts with '>' is of figures."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold", show_header=header)
    for column in columns:
        right = column.startswith(">")
        table.add_column(column.removeprefix(">"), justify="right" if right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(str(cell))) for cell in row))
    console().print(table)


def printable(text: str) -> str:
    """Text from elsewhere, without what a terminal would obey."""
    return text.translate(CONTROLS)


CONTROLS = {code: None for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


def fields_of(facts: object, names: Iterable[str]) -> dict[str, Any] | None:
    """Some attributes of a dataclass; None when there is none."""
    return None if facts is None else {name: getattr(facts, name) for name in names}


def size(n_bytes: float | None) -> str:
    """Bytes for people."""
    if n_bytes is None:
        return "-"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if n_bytes < 1024:
            return f"{n_bytes:.0f} {unit}" if unit == "B" or n_bytes >= 100 else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1024
    return f"{n_bytes:.1f} TiB"


def count(number: float | None) -> str:
    """A large number for people: 494 M, 8.03 B."""
    if not number:
        return "-"
    for limit, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= limit:
            return f"{number / limit:.3g} {unit}"
    return f"{number:g}"


def duration(seconds: float) -> str:
    """A span of time for people: 4.2 s, 3 min, 2.5 h."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"
