"""The console script as a whole."""

from __future__ import annotations

import subprocess
import sys

from typer.testing import CliRunner

import inferd
from inferd.daemon.cli.app import app


def test_every_verb_is_there() -> None:
    shown = CliRunner().invoke(app, ["--help"]).stdout
    for verb in (
        "serve",
        "run",
        "ps",
        "models",
        "load",
        "unload",
        "doctor",
        "config",
        "cancel",
        "version",
        "events",
        "priority",
        "pin",
        "unpin",
        "drain",
        "whoami",
        "jobs",
        "token",
    ):
        assert f"\n  {verb}" in shown


def test_version_two_ways() -> None:
    for args in (["version"], ["--version"]):
        result = CliRunner().invoke(app, args)
        assert (result.exit_code, result.stdout) == (0, f"inferd {inferd.__version__}\n")


def test_bad_usage_is_two() -> None:
    for args in (
        ["nope"],
        ["run"],
        ["run", "demo", "hi", "--priority", "urgent"],
        ["ps", "--max-tokens", "3"],
        ["priority", "r1", "urgent"],
        ["pin"],
    ):
        assert CliRunner().invoke(app, args).exit_code == 2


def test_help_costs_no_heavy_import() -> None:
    program = (
        "import sys\n"
        "from inferd.daemon.cli.app import app\n"
        "app(['--help'], standalone_mode=False)\n"
        "heavy = {'grpc', 'google', 'rich', 'msgspec', 'asyncio', 'llama_cpp', 'pynvml'}\n"
        "sys.exit(', '.join(sorted(heavy & set(sys.modules))))"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert shown.stderr.strip() == ""
