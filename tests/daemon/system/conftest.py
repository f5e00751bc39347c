"""Machines that do not exist: small trees of /proc, /sys and /dev, and a false NVIDIA library."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from inferd.tests.machines import BASE, MACHINES, build_nvml, write_tree

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Machines that were already built; nobody writes into these."""
    return {}


@pytest.fixture
def plant(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, planted: dict[str, Path]) -> Callable[..., Path]:
    """plant("arc", {"proc/stat": None}): that machine's root, with files changed or left out.

    Without changes the root is shared between tests; with `{}` it is the test's own."""

    def build(machine: str = "plain", changes: dict[str, str | None] | None = None) -> Path:
        if changes is not None:
            root = tmp_path / "root"
            shutil.rmtree(root, ignore_errors=True)
            return write_tree(root, {**BASE, **MACHINES[machine], **changes})
        if machine not in planted:
            folder = tmp_path_factory.mktemp(machine)
            planted[machine] = write_tree(folder, {**BASE, **MACHINES[machine]})
        return planted[machine]

    return build


@pytest.fixture(scope="session")
def nvml_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with our libnvidia-ml.so.1 in it."""
    return build_nvml(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def with_nvml(nvml_folder: Path, tmp_path: Path) -> Callable[..., Any]:
    """Runs a script in a process of its own that finds the false library, and returns what its
    `answer(...)` was given. In the script, `world("gpus 2")` changes what the library says."""
    prelude = (
        "import json, os\nfrom dataclasses import asdict\nfrom pathlib import Path\n"
        "def world(text): Path(os.environ['FAKE_NVML']).write_text(text)\n"
        "def answer(value): print(json.dumps(value))\n"
    )

    def run(script: str, *arguments: object, library: bool = True) -> Any:
        environment = {**os.environ, "FAKE_NVML": str(tmp_path / "world")}
        environment["LD_LIBRARY_PATH"] = str(nvml_folder)
        without = "" if library else "import pynvml\ndef CDLL(name): raise OSError(name)\npynvml.CDLL = CDLL\n"
        done = subprocess.run(
            [sys.executable, "-c", prelude + without + script, *map(str, arguments)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run
