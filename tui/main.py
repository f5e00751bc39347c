"""`inferd-top`, which `inferd top` becomes: the monitor, or one picture of it."""

from __future__ import annotations

import json
import os
import shutil
import sys
from typing import Annotated, NoReturn

import typer

from ..protos.errors import InferdError, Unreachable
from . import settings as options

USAGE, UNREACHABLE, FAILED, BAD_CONFIG = 2, 3, 5, 78
PIPE_COLUMNS = 160  # of who reads this by a program


def top(
    address: Annotated[
        str | None, typer.Option("--address", metavar="ADDRESS", help="Where the daemon is: unix:/path or host:port.")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Print one picture as text and end.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --once: print what `inferd ps --json` prints.")] = False,
    screen: Annotated[
        str, typer.Option("--screen", help="With --once: overview, queue, models, devices, events or clients.")
    ] = "overview",
    interval: Annotated[
        float | None, typer.Option("--interval", help="Seconds between two pictures: 0.25, 0.5, 1 or 2.")
    ] = None,
    theme: Annotated[str | None, typer.Option("--theme", help=f"One of {', '.join(options.THEMES)}.")] = None,
    plain: Annotated[bool, typer.Option("--ascii", help="No signs beyond ASCII.")] = False,
    read_only: Annotated[bool, typer.Option("--read-only", help="Look, and change nothing.")] = False,
) -> None:
    """Watch queues, speed, memory and models, and act on them."""
    try:
        chosen = _settings(interval, theme, ascii=plain, read_only=read_only)
        if once or as_json:
            _once(address, screen, chosen, as_json=as_json)
        else:
            _run(address, chosen)
    except InferdError as error:
        hint = "; start one with: inferd serve" if isinstance(error, Unreachable) else ""
        _stop(
            UNREACHABLE if error.code == "unreachable" else USAGE if error.code == "invalid" else FAILED,
            f"{error.message}{hint}",
        )


def _settings(interval: float | None, theme: str | None, *, ascii: bool, read_only: bool) -> options.Settings:
    """The file's, with what the command line says in front."""
    import msgspec

    from .bindings import NAMED

    names = frozenset(binding.id for binding in NAMED if binding.id)
    try:
        chosen = options.load(options.path(), names)
    except options.SettingsError as error:
        _stop(BAD_CONFIG, str(error))
    given: dict[str, object] = {"ascii": ascii or chosen.ascii, "read_only": read_only or chosen.read_only}
    if interval is not None:
        given["interval_ms"] = round(interval * 1e3)
    if theme is not None:
        given["theme"] = theme
    try:
        return options.check(msgspec.structs.replace(chosen, **given), names, "the command line")
    except options.SettingsError as error:
        _stop(USAGE, str(error))


def _once(address: str | None, screen: str, chosen: options.Settings, *, as_json: bool) -> None:
    from . import once
    from .symbols import ASCII, UNICODE

    if screen not in once.SCREENS:
        _stop(USAGE, f"--screen must be one of {', '.join(once.SCREENS)}, not {screen!r}")
    now, where = once.look(address, screen)
    assert now.snapshot is not None
    if as_json:
        from ..protos.twin import snapshot_twin

        print(json.dumps(snapshot_twin(now.snapshot), ensure_ascii=False))
        return
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else PIPE_COLUMNS
    print(once.text(once.lines(now, screen, width, ASCII if chosen.ascii else UNICODE, where)))


def _run(address: str | None, chosen: options.Settings) -> None:
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        _stop(USAGE, "the monitor needs a terminal; --once prints one picture")
    from .app import Monitor

    Monitor(address, chosen, settings_path=str(options.path())).run()


def _stop(code: int, message: str) -> NoReturn:
    print(f"inferd-top: {message}", file=sys.stderr)
    raise typer.Exit(code)


def main() -> None:
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command(context_settings={"help_option_names": ["-h", "--help"]})(top)
    app()


if __name__ == "__main__":
    main()
