from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from inferd.tui import main as tops

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from inferd.tests.tui.stage import Stage

    Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def run(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Its exit code, and what it has printed."""

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["inferd-top", *arguments])
        try:
            code = tops.main()
        except SystemExit as ended:
            code = int(ended.code or 0)
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return call


def test_once_prints_a_screen(stage: Stage, run: Run) -> None:
    code, out, _ = run("--once", "--screen", "queue", "--address", stage.address)
    assert code == 0
    assert "r8f2a" in out
    assert "mistral-7b-q5 needs 5.8 GiB" in out  # who reads a pipe gets wide lines


def test_json_is_that_of_ps(stage: Stage, run: Run) -> None:
    from inferd.protos.twin import snapshot_twin

    code, out, _ = run("--once", "--json", "--address", stage.address)
    assert code == 0
    assert json.loads(out) == json.loads(json.dumps(snapshot_twin(stage.picture)))


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        (("--once", "--screen", "attic"), 2, "--screen"),
        (("--interval", "7"), 2, "interval_ms"),
        (("--interval", "nan"), 2, "interval_ms"),
        (("--theme", "pink"), 2, "theme"),
        ((), 2, "terminal"),
        (("--once", "--address", "nonsense"), 2, "address"),
        (("--once", "--address", "unix:/nowhere/d.sock"), 3, "inferd serve"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(run: Run, arguments: tuple[str, ...], code: int, named: str) -> None:
    ended, out, err = run(*arguments)
    assert (ended, out) == (code, "")
    assert named in err.splitlines()[-1]
    assert "Traceback" not in err


def test_a_broken_file_of_settings_is_named(home: Path, run: Run) -> None:
    (home / "inferd").mkdir()
    (home / "inferd" / "top.toml").write_text("theme = 1")
    code, _, err = run("--once")
    assert code == 78
    assert "top.toml" in err
    assert "theme" in err


def test_the_command_line_goes_before_the_file(home: Path) -> None:
    (home / "inferd").mkdir()
    (home / "inferd" / "top.toml").write_text('theme = "inferd-cb"\ninterval_ms = 500\n')
    chosen = tops.settings(tops.parser().parse_args(["--interval", "2", "--ascii"]))
    assert (chosen.theme, chosen.interval_ms, chosen.ascii) == ("inferd-cb", 2000, True)


def test_printing_once_loads_no_textual(stage: Stage, home: Path) -> None:
    code = (
        "import sys; from inferd.tui.main import main;"
        "code = main(); print('textual' in sys.modules, file=sys.stderr); sys.exit(code)"
    )
    command = [sys.executable, "-c", code, "--once", "--address", stage.address]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ})
    assert done.stderr.strip() == "False"


def test_a_reader_that_leaves_is_no_failure(stage: Stage, home: Path) -> None:
    command = [sys.executable, "-m", "inferd.tui", "--once", "--json", "--address", stage.address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as top:
        assert top.stdout is not None
        assert top.stderr is not None
        top.stdout.close()
        assert top.stderr.read() == b""
        assert top.wait(20) == 141


def test_exit_codes_are_those_of_the_other_verbs() -> None:
    from inferd.daemon.cli.common import EXIT_CODES

    assert {code: EXIT_CODES[code] for code in tops.EXIT_CODES} == tops.EXIT_CODES
