"""`inferd top`: the monitor, which is a program of its own and a client like any other."""

import os
import sys

import typer


def top(context: typer.Context) -> None:
    """Watch queues, speed, memory and models, and act on them; see: inferd top --help."""
    # -P: a folder named inferd where somebody stands is not this package.
    os.execv(sys.executable, [sys.executable, "-P", "-m", "inferd.tui", *context.args])
