"""`inferd-top`, which `inferd top` becomes: the monitor, or one picture of it."""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import sys
from typing import NoReturn

import msgspec

from ..protos.errors import InferdError, Unreachable
from . import settings as options

OK, USAGE, UNREACHABLE, REFUSED, FAILED, BAD_CONFIG = 0, 2, 3, 4, 5, 78
INTERRUPTED, BROKEN_PIPE = 130, 141
# As those of the other verbs; only what a look can meet.
EXIT_CODES = {
    "unreachable": UNREACHABLE,
    "invalid": USAGE,
    "permission_denied": REFUSED,
    "unauthenticated": REFUSED,
    "shutting_down": REFUSED,
}
SCREENS = ("overview", "queue", "models", "devices", "events", "clients")
PIPE_COLUMNS = 240  # of who reads this by a program: the reasons whole


def parser() -> argparse.ArgumentParser:
    """The library that the other verbs parse with would be a tenth of what the monitor weighs."""
    made = argparse.ArgumentParser(
        prog="inferd top", description="Watch queues, speed, memory and models, and act on them; ? shows the keys."
    )
    add = made.add_argument
    add("--address", metavar="ADDRESS", help="where the daemon is: unix:/path or host:port")
    add("--interval", type=float, metavar="S", help="seconds between two pictures: 0.25, 0.5, 1 or 2")
    add("--theme", metavar="NAME", help=f"one of {', '.join(options.THEMES)}")
    add("--ascii", action="store_true", help="no signs beyond ASCII")
    add("--read-only", action="store_true", help="look, and change nothing")
    add("--once", action="store_true", help="print one picture as text, and end")
    add("--screen", choices=SCREENS, default="overview", help="with --once: which one")
    add("--json", action="store_true", dest="as_json", help="print what `inferd ps --json` prints, and end")
    return made


def main() -> int:
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    given = parser().parse_args()
    try:
        chosen = settings(given)
        if given.once or given.as_json:
            return once(given, chosen)
        return run(given.address, chosen)
    except InferdError as error:
        nobody = isinstance(error, Unreachable) and error.message.startswith("no daemon")
        hint = "; start one with: inferd serve" if nobody else ""
        stop(EXIT_CODES.get(error.code, FAILED), f"{error.message}{hint}")
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader has left; keep Python from failing once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE


def settings(given: argparse.Namespace) -> options.Settings:
    """The file's, with what the command line says in front."""
    names = None if given.once or given.as_json else key_names()
    try:
        chosen = options.load(options.path(), names)
    except options.SettingsError as error:
        stop(BAD_CONFIG, str(error))
    said: dict[str, object] = {
        "ascii": given.ascii or chosen.ascii,
        "read_only": given.read_only or chosen.read_only,
        "interval_ms": chosen.interval_ms if given.interval is None else to_ms(given.interval),
        "theme": given.theme or chosen.theme,
    }
    try:
        return options.check(msgspec.structs.replace(chosen, **said), names, "the command line")
    except options.SettingsError as error:
        stop(USAGE, str(error))


def key_names() -> dict[str, str]:
    """Of every key; who prints once has none, and does without the library of the screens."""
    from .bindings import NAMED

    return {binding.id: binding.key for binding in NAMED if binding.id}


def to_ms(seconds: float) -> int:
    return round(seconds * 1e3) if math.isfinite(seconds) else 0


def once(given: argparse.Namespace, chosen: options.Settings) -> int:
    """A picture for scripts and logs."""
    from . import once as plain
    from .symbols import ASCII, UNICODE

    now, where = plain.look(given.address, given.screen)
    assert now.snapshot is not None
    if given.as_json:
        from ..protos.twin import snapshot_twin

        print(json.dumps(snapshot_twin(now.snapshot), ensure_ascii=False), flush=True)
        return OK
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else PIPE_COLUMNS
    print(plain.text(plain.lines(now, given.screen, width, ASCII if chosen.ascii else UNICODE, where)), flush=True)
    return OK


def run(address: str | None, chosen: options.Settings) -> int:
    """Until the user has seen enough."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        stop(USAGE, "the monitor needs a terminal; --once prints one picture")
    for name in ("COLUMNS", "LINES"):  # where a shell exports them, the size would be that for ever
        os.environ.pop(name, None)
    from .app import Monitor

    app = Monitor(address, chosen, settings_path=str(options.path()))
    app.run()
    return app.return_code or OK


def stop(code: int, message: str) -> NoReturn:
    print(f"inferd top: {message}", file=sys.stderr)
    raise SystemExit(code)


if __name__ == "__main__":
    sys.exit(main())
