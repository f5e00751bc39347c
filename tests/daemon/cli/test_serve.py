"""`inferd serve`, up to the daemon's own door."""

from __future__ import annotations

import sys
import types
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner, Result

from inferd.daemon.cli.app import app

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Run the verb with a stand-in for the daemon; what it was given is kept."""
    calls: list[tuple[Any, Any]] = []
    main = types.ModuleType("inferd.daemon.main")

    def stand_in(config: object, read: object) -> int:
        calls.append((config, read))
        return 75

    main.serve = stand_in  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "inferd.daemon.main", main)
    (tmp_path / "inferd.toml").write_text("log_level = 'warning'\n[models]\nfolders = ['/from/file']\n")

    def run(*args: str, config: str = "inferd.toml") -> tuple[Result, list[tuple[Any, Any]]]:
        return CliRunner().invoke(app, ["serve", "--config", str(tmp_path / config), *args]), calls

    return run


def test_the_file_is_used(serve: Any) -> None:
    result, ((config, _),) = serve()
    assert (result.exit_code, config.log_level) == (75, "warning")
    assert config.models.folders == ("/from/file",)
    assert config.fake.enabled is False


def test_the_command_line_wins(serve: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    options = ("--address", "/run/x.sock", "--models", "a", "--models", "/b", "--fake-tokens-per-s", "50")
    _, ((config, _),) = serve(*options, "--log-level", "debug")
    assert config.log_level == "debug"
    assert config.server.address == "unix:/run/x.sock"
    assert config.models.folders == (f"{tmp_path}/a", "/b", "/from/file")
    assert (config.fake.enabled, config.fake.tokens_per_s) == (True, 50)


def test_the_file_can_be_read_again_with_the_command_line_on_top(serve: Any, tmp_path: Path) -> None:
    _, ((first, read),) = serve("--fake", "--log-level", "debug")
    assert read() == first
    (tmp_path / "inferd.toml").write_text("log_level = 'error'\n[queue]\nmax_requests = 7\n")
    assert (read().queue.max_requests, read().fake.enabled, read().log_level) == (7, True, "debug")


@pytest.mark.parametrize("args", [("--address", "nonsense"), ("--fake-tokens-per-s", "-1"), ("--log-level", "loud")])
def test_bad_usage(serve: Any, args: Any) -> None:
    result, calls = serve(*args)
    assert (result.exit_code, calls) == (2, [])


def test_a_config_that_cannot_be_used(serve: Any) -> None:
    result, calls = serve(config="none.toml")
    assert (result.exit_code, calls) == (78, [])
    assert "none.toml" in result.stderr
