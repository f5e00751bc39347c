"""ONNX Runtime's version and providers, without loading it before it is asked for."""

from __future__ import annotations

import subprocess
import sys
from types import ModuleType

import pytest

from inferd.backends.onnx import session


def test_version_and_providers(monkeypatch: pytest.MonkeyPatch) -> None:
    library = ModuleType("onnxruntime")
    library.__dict__.update(__version__="1.24.0", get_available_providers=lambda: ["CPUExecutionProvider"])
    monkeypatch.setitem(sys.modules, "onnxruntime", library)
    assert session.providers() == ("1.24.0", ["CPUExecutionProvider"])


def test_a_missing_library_is_an_import_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError):
        session.providers()


def test_importing_the_room_does_not_load_the_library() -> None:
    code = "import sys, inferd.backends.onnx.session; print('onnxruntime' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "False"
