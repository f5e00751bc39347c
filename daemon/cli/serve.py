"""`inferd serve`: run the daemon in the foreground."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from .common import BAD_CONFIG, guarded, stop

LogLevel = Literal["debug", "info", "warning", "error"]
Folders = Annotated[
    list[Path] | None, typer.Option("--models", metavar="DIR", help="A folder with models; may be repeated.")
]


@guarded
def serve(
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="The config; default: the user's.")] = None,
    address: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Where to listen: unix:/path or host:port.")
    ] = None,
    models: Folders = None,
    fake: Annotated[bool, typer.Option("--fake", help="Run every model on the fake engine.")] = False,
    fake_tokens_per_s: Annotated[
        float | None, typer.Option(metavar="N", min=0, help="The fake engine's rate per stream; implies --fake.")
    ] = None,
    log_level: Annotated[LogLevel | None, typer.Option(help="Least severe line to log.")] = None,
) -> None:
    """Run the daemon until SIGTERM or Ctrl-C."""
    from ...protos.address import normalize
    from ..domain.config import Config
    from ..system.settings import ConfigError, find_config, load_config, with_overrides

    where = normalize(address) if address else None
    folders = [str(folder.absolute()) for folder in models or ()]

    def read() -> Config:
        return with_overrides(
            load_config(find_config(config)),
            address=where,
            models=folders,
            fake=fake,
            fake_tokens_per_s=fake_tokens_per_s,
            log_level=log_level,
        )

    try:
        first = read()
    except ConfigError as error:
        stop(BAD_CONFIG, str(error))
    # Only now: reading a wrong config should not cost the daemon's imports.
    from ..main import serve as serve_until_stopped

    raise typer.Exit(serve_until_stopped(first, read))
