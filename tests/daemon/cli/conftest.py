"""The command line in this process, against the scripted daemon of the client's tests."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner, Result

from inferd.daemon.cli.app import app

if TYPE_CHECKING:
    from collections.abc import Callable

_PATH = Path(__file__).parents[2] / "protos" / "conftest.py"
_SPEC = importlib.util.spec_from_file_location("scripted_daemon", _PATH)
assert _SPEC is not None
assert _SPEC.loader is not None
scripted = importlib.util.module_from_spec(_SPEC)
sys.modules["scripted_daemon"] = scripted
_SPEC.loader.exec_module(scripted)

quiet_daemon, daemon, steps = scripted.quiet_daemon, scripted.daemon, scripted.steps


@pytest.fixture
def inferd(daemon: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run one command line against the scripted daemon."""
    monkeypatch.setenv("INFERD_ADDRESS", daemon.address)

    def run(*args: str, stdin: str = "") -> Result:
        return CliRunner().invoke(app, args, input=stdin)

    return run
