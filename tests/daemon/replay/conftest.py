"""The scripted daemon of the client's tests, for what talks to one."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

_PATH = Path(__file__).parents[2] / "protos" / "conftest.py"
_SPEC = importlib.util.spec_from_file_location("scripted_daemon", _PATH)
assert _SPEC is not None
assert _SPEC.loader is not None
scripted = importlib.util.module_from_spec(_SPEC)
sys.modules["scripted_daemon"] = scripted
_SPEC.loader.exec_module(scripted)

quiet_daemon, daemon, steps = scripted.quiet_daemon, scripted.daemon, scripted.steps
