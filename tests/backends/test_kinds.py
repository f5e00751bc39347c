"""The one way the daemon asks about files and loads."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from inferd.backends import kinds
from inferd.backends.facts import HOST, CorruptModel, LoadPlan
from inferd.tests.models.random_onnx import affine

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("name", "owned"),
    [("a.gguf", True), ("A.GGUF", True), ("a.bin", False), ("gguf", False), (".gguf", False), ("", False)],
)
def test_owned_by_name(name: str, owned: bool) -> None:
    assert kinds.is_model_file(name) is owned


def test_facts_and_footprint(tmp_path: Path, gguf: Any) -> None:
    path = tmp_path / "Small.Q8_0-00001-of-00001.gguf"
    path.write_bytes(gguf.small().build())
    facts = kinds.read_facts(path)
    assert (facts.backend, facts.n_layers) == ("llama", 2)
    load = LoadPlan(backend="llama", path=str(path), n_ctx=256, n_slots=1, kv_cells=256, n_threads=1, n_ubatch=64)
    assert kinds.footprint(facts, load).kv_bytes == 2 * 64 * 2 * 256
    assert kinds.model_name(path, str(tmp_path), alone=True) == ("Small.Q8_0", "")
    assert kinds.model_name(path, str(tmp_path.parent), alone=True) == (tmp_path.name, "")
    assert kinds.model_name(path, str(tmp_path.parent), alone=False) == ("Small.Q8_0", "")
    assert kinds.model_files(path) == [str(path)]


def test_the_fake_engine_has_no_weights(tmp_path: Path, gguf: Any) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf.small().build())
    load = LoadPlan(backend="fake", path=str(path), n_ctx=256, n_slots=8, kv_cells=256, n_threads=1)
    price = kinds.footprint(kinds.read_facts(path), load)
    assert (price.bytes_on, price.weights_bytes) == ({HOST: kinds.FAKE_BYTES}, 0)


def test_graphs_are_owned_by_their_own_backend(tmp_path: Path) -> None:
    path = affine(tmp_path / "scorer" / "1" / "model.onnx")
    facts = kinds.read_facts(path)
    assert (facts.backend, facts.task) == ("onnx", "infer")
    assert kinds.model_name(path, str(tmp_path), alone=True) == ("scorer", "")
    assert kinds.model_files(path) == [str(path)]
    load = LoadPlan(backend="onnx", path=str(path), n_ctx=256, n_slots=8, kv_cells=256, n_threads=1, task="infer")
    assert kinds.footprint(facts, load).bytes_on[HOST] > 0
    assert kinds.largest_context(facts, load, {HOST: 1 << 40}) is None


def test_files_of_no_kind(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    with pytest.raises(
        CorruptModel, match=r"no backend reads files of this kind; the known ones end in \.gguf, \.onnx"
    ):
        kinds.read_facts(path)
    assert kinds.model_files(path) == []
    assert kinds.model_name(path, str(tmp_path), alone=True) == ("model.bin", "")


def test_importing_is_light() -> None:
    code = (
        "import sys, inferd.backends.facts\nbefore = set(sys.modules)\nimport inferd.backends.kinds\n"
        "print(*sorted(m for m in set(sys.modules) - before if not m.startswith('inferd.')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {name.split(".")[0] for name in done.stdout.split()} <= set(sys.stdlib_module_names)
