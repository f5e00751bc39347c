"""The monitor in a terminal that is none, against a daemon that shows what a test gives it."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from inferd.tests.tui.stage import Stage
from inferd.tui import feed

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def in_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Events have the time of day."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stage says nothing for as long as nothing changes."""
    monkeypatch.setattr(feed, "SILENCE_S", 600.0)


@pytest.fixture
def quiet_stage() -> Iterator[Stage]:
    """Not started yet. Its folder is not tmp_path: a socket's path has at most 107 bytes."""
    with tempfile.TemporaryDirectory() as folder:
        made = Stage(Path(folder))  # type: ignore[abstract]  # the monitor calls no others
        yield made
        made.stop()


@pytest.fixture
def stage(quiet_stage: Stage) -> Stage:
    quiet_stage.start()
    return quiet_stage
