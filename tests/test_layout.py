"""The house rules that no linter knows: which folders ship, what files are called, what importing costs."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
NOT_SHIPPED = {"tests", "build", "dist"}  # folders at the top, beside hidden ones
GENERATED = "_pb2"
MAX_LINES = 350
HEAVY = ("grpc", "llama_cpp", "onnxruntime", "textual")


def sources() -> list[Path]:
    """Every Python file of the tree outside tests, written by hand."""
    found = []
    for path in ROOT.rglob("*.py"):
        top = path.relative_to(ROOT).parts[0]
        if top not in NOT_SHIPPED and not top.startswith(".") and GENERATED not in path.name:
            found.append(path.relative_to(ROOT))
    return sorted(found)


SOURCES = sources()


def in_a_fresh_process(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.strip()


def test_the_listed_packages_are_the_folders_of_the_tree() -> None:
    folders = {path.parent for path in SOURCES if path.name == "__init__.py"}
    names = {".".join(("inferd", *folder.parts)) for folder in folders}
    listed = PROJECT["tool"]["setuptools"]["packages"]
    assert sorted(names) == listed


def test_every_source_file_is_in_a_package() -> None:
    shipped = [path for path in SOURCES if path.parts[0] != "packaging"]
    assert [path for path in shipped if not (ROOT / path.parent / "__init__.py").is_file()] == []


def test_nothing_but_the_package_itself_lies_at_the_root() -> None:
    assert [path.name for path in ROOT.glob("*.py")] == ["__init__.py"]


def test_packaging_does_not_shadow_the_library_of_that_name() -> None:
    assert not (ROOT / "packaging" / "__init__.py").exists()


def test_no_module_is_called_like_one_of_the_standard_library() -> None:
    names = {part.removesuffix(".py") for path in SOURCES for part in path.parts} - {"__init__", "__main__"}
    assert names & sys.stdlib_module_names == set()


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_a_source_file_is_small_and_says_first_what_it_is(path: Path) -> None:
    text = (ROOT / path).read_text()
    assert text.startswith('"""'), "the first line is no docstring"
    assert ast.get_docstring(ast.parse(text))
    if path.parts[0] != "packaging":  # the word lists of the demo model are long
        assert text.count("\n") <= MAX_LINES


def test_importing_inferd_loads_nothing_heavy() -> None:
    code = f"import sys, inferd; print([name for name in {HEAVY!r} if name in sys.modules])"
    assert in_a_fresh_process(code) == "[]"


def test_what_a_worker_is_born_with_loads_nothing_heavy() -> None:
    code = f"import sys, inferd.backends.worker; print([name for name in {HEAVY!r} if name in sys.modules])"
    assert in_a_fresh_process(code) == "[]"


def test_the_names_that_inferd_promises_are_there() -> None:
    code = "import inferd; print([name for name in inferd.__all__ if getattr(inferd, name, None) is None])"
    assert in_a_fresh_process(code) == "[]"


def test_the_installed_version_is_the_written_one() -> None:
    assert metadata.version("inferd") == PROJECT["project"]["version"]
