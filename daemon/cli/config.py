"""`inferd config ...`: what the operator wrote, checked without a daemon."""

from pathlib import Path
from typing import Annotated

import typer

from .common import BAD_CONFIG, AsJson, guarded, print_json, stop

app = typer.Typer(help="The config file.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def group() -> None:
    """The config file."""


@app.command()
@guarded
def check(
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="The config; default: the user's.")] = None,
    as_json: AsJson = False,
) -> None:
    """Check the config that `inferd serve` would use."""
    from ..system.doors import BadDoor, doors_of
    from ..system.settings import ConfigError, find_config, load_config

    path = find_config(config)
    problem = None
    try:
        doors_of(load_config(path))
    except (ConfigError, BadDoor) as error:
        problem = str(error)
    if as_json:
        print_json({"ok": problem is None, "path": str(path) if path else None, "error": problem})
        raise typer.Exit(BAD_CONFIG if problem else 0)
    if problem:
        stop(BAD_CONFIG, problem)
    print(f"ok: {path}" if path else "ok: there is no config file, all defaults")
