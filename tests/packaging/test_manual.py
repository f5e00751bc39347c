"""Man pages and completions say what the command line is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from inferd.tests.packaging.scripts import script

manual = script("manual")
CONFIG = (Path(__file__).parents[2] / "packaging" / "inferd.toml").read_text()
PAGES = {
    "inferd.1": manual.inferd_1("1"),
    "inferd-top.1": manual.inferd_top_1("1"),
    "inferd.toml.5": manual.inferd_toml_5("1", CONFIG),
    "inferd.8": manual.inferd_8("1"),
}


def words(page: str) -> str:
    return page.replace("\\-", "-").replace("\\&", "")


def test_every_verb_is_in_the_manual() -> None:
    page = words(PAGES["inferd.1"])
    for verb in ("serve", "run", "ps", "config check", "service install", "priority"):
        assert f"\n.SS inferd {verb} " in page
    assert "--max-tokens" in page
    assert "-h, --help" not in page


def test_every_setting_is_in_the_manual() -> None:
    page = words(PAGES["inferd.toml.5"])
    assert "\n.B drain_s = 30.0\nrunning requests may go on this long after SIGTERM\n" in page
    assert '\n.B adapters = { summaries = "lora/summaries.gguf" }\n' in page.replace("\\(dq", '"')
    settings = [line for line in CONFIG.splitlines() if line.startswith("# ") and " = " in line.partition("  #")[0]]
    assert len(settings) > 50
    assert page.count("\n.B ") >= len(settings)
    assert page.count("\n.SS [") == sum(line.lstrip("# ").startswith("[") for line in CONFIG.splitlines())


def test_the_monitors_options_are_those_it_parses() -> None:
    assert "\n.B --screen {overview,queue,models,devices,events,clients}\n" in words(PAGES["inferd-top.1"])


def test_text_never_becomes_an_order_to_roff() -> None:
    assert manual.escaped(".SH a\n'b\\c - d") == "\\&.SH a\n\\&'b\\ec \\- d"


@pytest.mark.skipif(shutil.which("man") is None, reason="there is no man")
@pytest.mark.parametrize("name", PAGES)
def test_man_has_nothing_to_complain_about(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(PAGES[name])
    command = ["man", "--warnings", "-E", "UTF-8", "-l", str(tmp_path / name)]
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "MANROFFSEQ": "", "MANWIDTH": "80"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert done.stderr == ""
    assert "inferd" in done.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_is_told_what_may_follow(shell: str) -> None:
    asked = {
        "bash": {"COMP_WORDS": "inferd unl", "COMP_CWORD": "1"},
        "zsh": {"_TYPER_COMPLETE_ARGS": "inferd unl"},
        "fish": {"_TYPER_COMPLETE_ARGS": "inferd unl", "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
    }
    environment = {**os.environ, **asked[shell], "_INFERD_COMPLETE": f"complete_{shell}"}
    code = "import sys; sys.argv = ['inferd']; from inferd.daemon.cli.app import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert "unload" in done.stdout, done.stderr
    assert "pin" not in done.stdout
    assert f"complete_{shell}" in manual.completions()[shell]
