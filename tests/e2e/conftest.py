"""Daemons for the tests of one module."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from inferd.tests.e2e.daemons import Launcher

if TYPE_CHECKING:
    from collections.abc import Iterator

    from inferd.tests.e2e.daemons import Daemon

CONFIG = """
[fake]
enabled = true
tokens_per_s = 200
[models.defaults]
context_tokens = 20_480
[models.model.single]
slots = 1
"""


@pytest.fixture(scope="module")
def launcher(gguf: Any) -> Iterator[Launcher]:
    # A socket's path has at most 107 bytes: pytest's own folders can be longer.
    with tempfile.TemporaryDirectory(prefix="inferd-") as folder:
        launcher = Launcher(Path(folder))
        launcher.models.mkdir()
        for name in ("small", "other", "single"):
            (launcher.models / f"{name}.gguf").write_bytes(gguf.small(n_vocab=512).build())
        try:
            yield launcher
        finally:
            launcher.close()


@pytest.fixture(scope="module")
def daemon(launcher: Launcher) -> Daemon:
    """The daemon that a module's tests share; each leaves it idle."""
    return launcher.start(CONFIG)
