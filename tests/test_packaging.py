"""The scripts that stand before a build."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "packaging" / "amx-flags.sh"
NO_AMX = "-mno-amx-tile -mno-amx-int8 -mno-amx-bf16"


def flags(folder: Path, macros: dict[str, int]) -> str:
    """What the script says for a compiler that defines these."""
    compiler = folder / "cc"
    lines = "\n".join(f"#define {name} {value}" for name, value in macros.items())
    compiler.write_text(f"#!/bin/sh\ncat <<'END'\n{lines}\nEND\n")
    compiler.chmod(0o755)
    environment = {**os.environ, "CC": str(compiler)}
    done = subprocess.run(["sh", str(SCRIPT)], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.parametrize(("major", "minor"), [(11, 4), (12, 2), (12, 3), (13, 2), (10, 5)])
def test_a_gcc_that_compiles_amx_wrong_is_told_to_leave_it(tmp_path: Path, major: int, minor: int) -> None:
    assert flags(tmp_path, {"__GNUC__": major, "__GNUC_MINOR__": minor, "__AMX_TILE__": 1}) == NO_AMX


@pytest.mark.parametrize(("major", "minor"), [(11, 5), (12, 4), (13, 3), (14, 0), (15, 1)])
def test_a_gcc_without_the_fault_keeps_amx(tmp_path: Path, major: int, minor: int) -> None:
    assert flags(tmp_path, {"__GNUC__": major, "__GNUC_MINOR__": minor, "__AMX_TILE__": 1}) == ""


def test_a_processor_without_amx_needs_no_flags(tmp_path: Path) -> None:
    assert flags(tmp_path, {"__GNUC__": 12, "__GNUC_MINOR__": 2}) == ""


def test_clang_says_that_it_is_an_old_gcc_and_is_none(tmp_path: Path) -> None:
    assert flags(tmp_path, {"__GNUC__": 4, "__GNUC_MINOR__": 2, "__clang__": 1, "__AMX_TILE__": 1}) == ""
