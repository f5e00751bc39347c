"""The console script `inferd`: its verbs, each in the file of its group."""

import os
import sys
from typing import Annotated

import typer

from . import (
    bench,
    config,
    doctor,
    embed,
    events,
    explain,
    jobs,
    models,
    operate,
    plan,
    ps,
    pull,
    run,
    serve,
    service,
    tokens,
    top,
)

app = typer.Typer(
    name="inferd",
    help="Local inference for everybody on this workstation.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # importing rich for plain help would double the time to show it
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(serve.serve)
app.command()(run.run)
app.command()(embed.embed)
app.command()(embed.rerank)
app.command()(embed.tokenize)
app.command()(ps.ps)
app.command()(ps.cancel)
app.command(add_help_option=False, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(top.top)
app.command("models")(models.models)
app.command()(models.load)
app.command()(models.unload)
app.command()(pull.pull)
app.command()(pull.alias)
app.command()(plan.plan)
app.command()(explain.explain)
app.command()(events.events)
app.command()(operate.priority)
app.command()(operate.pin)
app.command()(operate.unpin)
app.command()(operate.drain)
app.command()(operate.reload)
app.command()(operate.whoami)
app.command()(doctor.doctor)
app.command()(bench.bench)
app.add_typer(config.app, name="config")
app.add_typer(jobs.app, name="jobs")
app.add_typer(service.app, name="service")
app.add_typer(tokens.app, name="token")


@app.command()
def version() -> None:
    """Print the version."""
    from ... import __version__

    print(f"inferd {__version__}")


def _version_option(wanted: bool) -> None:
    if wanted:
        version()
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version_option, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Local inference for everybody on this workstation."""


def main() -> None:
    # gRPC's own log lines are for its developers; what matters comes back as an error.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that cannot show a character shows a '?'
    if "_INFERD_COMPLETE" in os.environ:  # a shell asks what may follow; the package brings the scripts that do
        from typer import completion

        completion.completion_init()  # type: ignore[attr-defined]  # as the program `typer` does
    app()


if __name__ == "__main__":
    main()
