"""What of .venv goes into the package."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path, PurePosixPath

import pytest

from inferd.tests.packaging.scripts import script

closure = script("closure")


def test_what_runs_is_there_and_what_developers_use_is_not() -> None:
    names = set(closure.needed())
    assert {"grpcio", "llama-cpp-python", "numpy", "textual", "typer", "linkify-it-py"} <= names  # the last by an extra
    assert names & {"pytest", "mypy", "ruff", "hypothesis", "grpcio-tools", "setuptools", "pip"} == set()


def test_every_library_has_a_line_in_the_copyright() -> None:
    text = closure.licences()
    assert " numpy " in text
    assert all(f" {name} " in text for name in closure.needed())


@pytest.mark.parametrize(
    "name",
    [
        "grpc/__init__.py",
        "grpc/_cython/cygrpc.cpython-311-x86_64-linux-gnu.so",
        "numpy/testing/__init__.py",
        "llama_cpp/lib/libllama.so.0",
        "rich-1.dist-info/licenses/LICENSE",
        "onnxruntime/capi/libonnxruntime_providers_shared.so",
    ],
)
def test_what_is_read_at_run_time_is_used(name: str) -> None:
    assert closure.is_used(PurePosixPath(name), with_cuda=False)


@pytest.mark.parametrize(
    "name",
    [
        "../../../bin/typer",
        "lib/libllama.so",
        "include/llama.h",
        "numpy/_core/tests/test_api.py",
        "numpy/_core/lib/libnpymath.a",
        "numpy/__init__.pyi",
        "grpc/__pycache__/__init__.cpython-311.pyc",
    ],
)
def test_what_is_not_read_stays_behind(name: str) -> None:
    assert not closure.is_used(PurePosixPath(name), with_cuda=True)


def test_nvidias_providers_go_with_an_engine_for_nvidia() -> None:
    name = PurePosixPath("onnxruntime/capi/libonnxruntime_providers_cuda.so")
    assert [closure.is_used(name, with_cuda=with_cuda) for with_cuda in (False, True)] == [False, True]


def test_names_of_one_library_become_links(tmp_path: Path) -> None:
    for name in ("libggml.so", "libggml.so.0", "libggml.so.0.25.3"):
        (tmp_path / name).write_bytes(b"ggml")
    (tmp_path / "libggml-cpu.so").write_bytes(b"cpu")
    closure.with_links(tmp_path)
    assert {path.name: str(path.readlink()) for path in tmp_path.iterdir() if path.is_symlink()} == {
        "libggml.so": "libggml.so.0.25.3",
        "libggml.so.0": "libggml.so.0.25.3",
    }
    assert (tmp_path / "libggml.so").read_bytes() == b"ggml"


def test_llama_cpp_has_no_way_to_other_machines() -> None:
    """Its RPC takes orders from whoever connects: https://github.com/ggml-org/llama.cpp/security/advisories."""
    spec = find_spec("llama_cpp")
    assert spec is not None
    assert spec.origin is not None
    libraries = [path for path in Path(spec.origin).with_name("lib").iterdir() if ".so" in path.name]
    assert any(path.name.startswith("libggml") for path in libraries)
    assert not [path.name for path in libraries if "rpc" in path.name or b"ggml_backend_rpc" in path.read_bytes()]
