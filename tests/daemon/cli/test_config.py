"""`inferd config check`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner, Result

from inferd.daemon.cli.app import app

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def written(tmp_path: Path) -> Any:
    def check(text: str, *args: str) -> Result:
        (tmp_path / "inferd.toml").write_text(text)
        return CliRunner().invoke(app, ["config", "check", "--config", str(tmp_path / "inferd.toml"), *args])

    return check


def test_a_good_config(written: Any, tmp_path: Path) -> None:
    result = written("log_level = 'debug'")
    assert (result.exit_code, result.stdout) == (0, f"ok: {tmp_path}/inferd.toml\n")
    assert json.loads(written("", "--json").stdout)["ok"] is True


def test_a_bad_config_names_the_field(written: Any) -> None:
    result = written("[models]\nfolders = [3]")
    assert result.exit_code == 78
    assert "`models.folders[0]`" in result.stderr
    shown = written("[models]\nfolders = [3]", "--json")
    assert shown.exit_code == 78
    assert "`models.folders[0]`" in json.loads(shown.stdout)["error"]


def test_what_must_not_be_open_is_named(written: Any) -> None:
    result = written('[server]\ntcp_address = "0.0.0.0:50051"')
    assert result.exit_code == 78
    assert "`server.tcp_address`" in result.stderr


def test_a_missing_file(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["config", "check", "--config", str(tmp_path / "none.toml")])
    assert result.exit_code == 78


def test_no_config_at_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from inferd.daemon.system import settings

    monkeypatch.setattr(settings, "find_config", lambda explicit: explicit)
    result = CliRunner().invoke(app, ["config", "check"])
    assert (result.exit_code, result.stdout) == (0, "ok: there is no config file, all defaults\n")
