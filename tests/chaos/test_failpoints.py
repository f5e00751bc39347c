"""Whether a change that is lost, doubled or half made is found; and that a process is killed where it should be."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from inferd.daemon.system.state import save_json
from inferd.tests.chaos import failpoints
from inferd.tests.chaos.changes import ROUNDS, SAVED

if TYPE_CHECKING:
    from pathlib import Path

Told = list[tuple[str, int]]


@pytest.fixture
def whole(tmp_path: Path) -> tuple[Path, Told]:
    """All changes, and what was told of them."""
    folder = tmp_path / "state"
    command = [sys.executable, "-m", "tests.chaos.changes", str(folder)]
    done = subprocess.run(command, cwd=failpoints.ROOT, capture_output=True, text=True, check=True)
    return folder, [(what, int(i)) for what, i in (line.split() for line in done.stdout.splitlines())]


def test_all_changes_are_there_when_nobody_is_killed(whole: tuple[Path, Told]) -> None:
    folder, told = whole
    assert len(told) == 5 * ROUNDS
    assert failpoints.judge(folder, told) == []


def test_the_last_change_may_be_made_and_not_told(whole: tuple[Path, Told]) -> None:
    folder, told = whole
    assert failpoints.judge(folder, told[:-1]) == []
    assert len(failpoints.judge(folder, told[:-6])) == 1  # of this kind two


@pytest.mark.parametrize("what", ["submitted", "grown", "ended", "saved", "token"])
def test_what_was_told_and_is_not_there_is_found(whole: tuple[Path, Told], what: str) -> None:
    folder, told = whole
    assert len(failpoints.judge(folder, [*told, (what, ROUNDS)])) == 1


def test_a_file_that_is_half_there_is_found(whole: tuple[Path, Told]) -> None:
    folder, told = whole
    save_json(SAVED, {"n": 0}, folder)
    (folder / "tokens.json").write_text('{"tokens": [')
    assert len(failpoints.judge(folder, told)) == 2


@pytest.mark.skipif(failpoints.missing() is not None, reason=f"{failpoints.missing()}")
def test_it_is_killed_or_failed_at_a_call_and_what_is_there_is_whole() -> None:
    points = failpoints.trace()
    assert len(points) > 20 * ROUNDS
    for point in (points[0], points[len(points) // 2], points[-2]):
        assert [failpoints.run(point, fate) for fate in failpoints.FATES] == [[], [], []]
    assert failpoints.run(("rename", 1000)) == ["signal=SIGKILL at rename number 1000: it was not killed"]
