"""The probe always prints one JSON object, whatever the engines do."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from inferd.backends import probe


def engine(result: Any) -> Any:
    def ask() -> Any:
        if isinstance(result, BaseException):
            raise result
        return result

    return ask


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (ModuleNotFoundError("No module named 'llama_cpp'"), "it is not installed: No module named 'llama_cpp'"),
        (OSError("libcudart.so.13: cannot open"), "it does not load: libcudart.so.13: cannot open"),
        (RuntimeError(), "it does not load: RuntimeError"),
        (KeyError("devices"), "it does not load: 'devices'"),
    ],
)
def test_a_missing_engine_is_null(monkeypatch: pytest.MonkeyPatch, failure: Exception, reason: str) -> None:
    monkeypatch.setattr(probe, "PROBES", {"llama.cpp": engine(failure), "onnxruntime": engine({"version": "1"})})
    assert probe.probe([]) == {
        "llama.cpp": None,
        "onnxruntime": {"version": "1"},
        "errors": {"llama.cpp": reason},
    }


def test_only_what_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "PROBES", {"a": engine({}), "b": engine(AssertionError("never asked"))})
    assert probe.probe(["a", "c"]) == {"a": {}, "c": None, "errors": {"c": "no such engine"}}


def test_the_program_prints_one_object() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "inferd.backends.probe"], capture_output=True, text=True, check=True, timeout=60
    )
    assert set(json.loads(done.stdout)) == {"llama.cpp", "onnxruntime", "errors"}


def test_what_drivers_print_goes_elsewhere() -> None:
    code = (
        "import os, sys\nfrom inferd.backends import probe\n"
        "def noisy():\n    os.write(1, b'driver says hello')\n    return {'version': '1'}\n"
        "probe.PROBES = {'noisy': noisy}\nsys.argv = ['probe']\nprobe.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert json.loads(done.stdout) == {"noisy": {"version": "1"}, "errors": {}}
    assert "driver says hello" in done.stderr
