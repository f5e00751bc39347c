"""`inferd service`, against a systemctl that keeps what it was told."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from inferd.daemon.cli import service
from inferd.daemon.cli.app import app

if TYPE_CHECKING:
    from pathlib import Path

SYSTEMCTL = """#!/bin/sh
echo "$*" >> {folder}/told
case "$*" in
{answers}
esac
"""
RUNS = """LoadState=loaded
ActiveState=active
SubState=running
MainPID=41
NRestarts=2
UnitFileState=enabled
StatusText=2 models = loaded"""


class Home:
    """One user's home, with a systemctl first on the path."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.answer({})
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        monkeypatch.setenv("XDG_CONFIG_HOME", str(folder / "config"))
        monkeypatch.setattr(sys, "argv", ["/opt/of 100 %/bin/nothing"])

    def answer(self, answers: dict[str, str]) -> None:
        """What systemctl does, by a pattern of its words."""
        lines = "\n".join(f"{pattern}) {action} ;;" for pattern, action in answers.items())
        (self.folder / "systemctl").write_text(SYSTEMCTL.format(folder=self.folder, answers=lines))
        (self.folder / "systemctl").chmod(0o755)

    @property
    def told(self) -> list[str]:
        return (self.folder / "told").read_text().splitlines()

    @property
    def unit(self) -> Path:
        return self.folder / "config" / "systemd" / "user" / "inferd.service"

    def run(self, *words: str) -> Result:
        return CliRunner().invoke(app, ["service", *words])


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    return Home(tmp_path, monkeypatch)


def test_install_writes_the_unit_and_starts_it(home: Home) -> None:
    result = home.run("install", "--user")
    assert result.exit_code == 0, result.stderr
    assert home.told[-3:] == ["--user daemon-reload", "--user enable inferd.service", "--user restart inferd.service"]
    (start,) = [line for line in home.unit.read_text().splitlines() if line.startswith("ExecStart=")]
    assert shlex.split(start.removeprefix("ExecStart=")) == [
        sys.executable, "-P", "-m", "inferd.daemon.cli.app", "serve",
    ]  # fmt: skip
    assert "@EXEC@" not in home.unit.read_text().partition("[Unit]")[2]


def test_the_console_script_is_what_the_unit_starts(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    script = home.folder / "50% off" / "inferd"
    script.parent.mkdir()
    script.touch(0o755)
    monkeypatch.setattr(sys, "argv", [str(script)])
    assert home.run("install", "--user").exit_code == 0
    assert f'ExecStart="{home.folder}/50%% off/inferd" serve\n' in home.unit.read_text()


def test_a_users_daemon_does_not_read_the_machines_config(home: Home) -> None:
    config = home.folder / "config" / "inferd" / "inferd.toml"
    home.run("install", "--user")
    assert config.is_file()
    config.write_text("log_level = 'debug'\n")
    home.run("install", "--user")
    assert config.read_text() == "log_level = 'debug'\n"


def test_a_unit_written_by_hand_is_left_alone(home: Home) -> None:
    home.unit.parent.mkdir(parents=True)
    home.unit.write_text("[Service]\nExecStart=/my/own\n")
    for verb in ("install", "uninstall"):
        result = home.run(verb, "--user")
        assert result.exit_code == 4
        assert "was not written by inferd" in result.stderr
    assert home.unit.read_text() == "[Service]\nExecStart=/my/own\n"
    assert [words for words in home.told if "show" not in words] == []


def test_uninstall_ends_it_and_takes_the_unit_away(home: Home) -> None:
    home.run("install", "--user")
    assert json.loads(home.run("uninstall", "--user", "--json").stdout)["was_installed"] is True
    assert not home.unit.exists()
    assert home.told[-2:] == ["--user disable --now inferd.service", "--user daemon-reload"]
    assert json.loads(home.run("uninstall", "--user", "--json").stdout)["was_installed"] is False


def test_where_no_manager_runs_the_way_to_one_is_told(home: Home) -> None:
    home.answer({"*show*": "echo 'Failed to connect to bus: No medium found' >&2; exit 1"})
    result = home.run("install", "--user")
    assert result.exit_code == 5
    assert "Failed to connect to bus" in result.stderr
    assert "enable-linger" in result.stderr
    assert not home.unit.exists()


def test_a_start_that_fails_says_where_to_look(home: Home) -> None:
    home.answer({"*restart*": "echo 'Job for inferd.service failed' >&2; exit 1"})
    result = home.run("install", "--user")
    assert result.exit_code == 5
    assert "Job for inferd.service failed" in result.stderr
    assert "journalctl --user -u inferd" in result.stderr


def test_without_systemd_there_is_another_way(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(home.folder / "nothing"))
    result = home.run("install", "--user")
    assert result.exit_code == 5
    assert "inferd serve" in result.stderr


@pytest.mark.parametrize("verb", ["install", "uninstall"])
def test_the_machines_service_is_the_packages(home: Home, verb: str) -> None:
    result = home.run(verb)
    assert result.exit_code == 2
    assert "apt" in result.stderr
    assert "--user" in result.stderr


def test_status_shows_both(home: Home) -> None:
    home.answer({"--system*": f"cat <<'END'\n{RUNS}\nEND\n", "--user*": "echo LoadState=not-found"})
    machine, user = json.loads(home.run("status", "--json").stdout)["services"]
    assert machine == {
        "service": "machine",
        "state": "active (running)",
        "enabled": "enabled",
        "pid": 41,
        "restarts": 2,
        "status": "2 models = loaded",
    }
    assert (user["state"], user["pid"], user["enabled"]) == ("not installed", None, None)
    shown = home.run("status")
    assert shown.exit_code == 0
    assert "2 models = loaded" in shown.stdout


def test_status_fails_where_nothing_runs(home: Home) -> None:
    home.answer({"--system*": "echo LoadState=not-found", "--user*": "exit 1"})
    result = home.run("status", "--json")
    assert result.exit_code == 3
    assert [row["state"] for row in json.loads(result.stdout)["services"]] == ["not installed", "no manager"]


@given(st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1))
def test_a_quoted_word_is_one_word_without_specifiers(word: str) -> None:
    text = service.quoted(word)
    assert text.replace("%%", "").count("%") == text.replace("$$", "").count("$") == 0
    assert not set(text) & set("\n\r")
    assert unquoted(text).replace("%%", "%").replace("$$", "$") == word


def unquoted(text: str) -> str:
    """What systemd makes of it: one word, with C's escapes."""
    if not text.startswith('"'):
        assert not set(text) & set(" \t;'\\")
        return text
    return re.sub(r"\\(.)", lambda found: {"n": "\n", "r": "\r"}.get(found[1], found[1]), text[1:-1])
