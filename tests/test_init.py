"""The package's own door: light to import, and complete."""

from __future__ import annotations

import subprocess
import sys

import pytest

import inferd


def test_importing_the_package_imports_nothing_heavy() -> None:
    program = (
        "import sys, inferd\n"
        "heavy = {'grpc', 'google', 'msgspec', 'rich', 'typer', 'llama_cpp', 'asyncio', 'importlib.metadata'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
        "from inferd import Client, AsyncClient, InferdError\n"
        "print(sorted({'llama_cpp', 'onnxruntime', 'textual', 'rich', 'typer'} & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert shown.split("\n")[:2] == ["[]", "[]"]


def test_every_promised_name_is_there() -> None:
    assert dir(inferd) == sorted(inferd.__all__)
    assert all(getattr(inferd, name) is not None for name in inferd.__all__)


def test_no_other_name_is() -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        _ = inferd.nonsense
