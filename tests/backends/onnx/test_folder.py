from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from inferd.backends.facts import CorruptModel
from inferd.backends.onnx import folder
from inferd.backends.onnx.graph import External

if TYPE_CHECKING:
    from pathlib import Path


def touch(path: Path, data: bytes = b"x") -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return str(path)


@pytest.mark.parametrize(
    ("where", "alone", "called"),
    [
        ("m.onnx", True, ("m", "")),
        ("minilm/model.onnx", True, ("minilm", "")),
        ("minilm/onnx/model.onnx", True, ("minilm", "")),
        ("minilm/onnx/model_int8.onnx", True, ("minilm", "")),
        ("minilm/onnx/model_int8.onnx", False, ("minilm", "int8")),
        ("minilm/onnx/model.onnx", False, ("minilm", "")),
        ("minilm/onnx/decoder_model.onnx", False, ("minilm", "decoder_model")),
        ("resnet/3/model.onnx", True, ("resnet", "")),
        ("resnet/²/model.onnx", True, ("²", "")),
        ("models--o--bge-small/snapshots/0123456789abcdef0123456789abcdef/onnx/model.onnx", True, ("bge-small", "")),
    ],
)
def test_names_are_those_that_people_gave(tmp_path: Path, where: str, alone: bool, called: tuple[str, str]) -> None:
    assert folder.name(touch(tmp_path / where), str(tmp_path), alone) == called


def test_older_versions_have_a_tag(tmp_path: Path) -> None:
    paths = [touch(tmp_path / "resnet" / version / "model.onnx") for version in ("2", "10")]
    assert [folder.name(path, str(tmp_path), True) for path in paths] == [("resnet", "2"), ("resnet", "")]


def test_a_folder_of_models_lends_no_name(tmp_path: Path) -> None:
    models = tmp_path / "onnx"
    assert folder.name(touch(models / "a.onnx"), str(models), True) == ("a", "")


def test_parts_are_weights_and_what_describes_them(tmp_path: Path) -> None:
    path = touch(tmp_path / "m" / "onnx" / "model.onnx")
    for name in (
        "onnx/model.onnx_data",
        "onnx/model.onnx_data_1",
        "config.json",
        "tokenizer.json",
        "1_Pooling/config.json",
    ):
        touch(tmp_path / "m" / name)
    names = [os.path.relpath(part, tmp_path / "m") for part in folder.part_paths(path)]
    assert names == [
        "onnx/model.onnx",
        "onnx/model.onnx_data",
        "onnx/model.onnx_data_1",
        "config.json",
        "tokenizer.json",
        "1_Pooling/config.json",
    ]


def test_the_nearest_file_is_read(tmp_path: Path) -> None:
    path = touch(tmp_path / "m" / "onnx" / "model.onnx")
    touch(tmp_path / "m" / "config.json", b'{"a": 1}')
    assert folder.read_json(path, "config.json") == {"a": 1}
    touch(tmp_path / "m" / "onnx" / "config.json", b'{"a": 2}')
    assert folder.read_json(path, "config.json") == {"a": 2}
    assert folder.read_json(path, "modules.json") == {}


@pytest.mark.parametrize("data", [b"[]", b"{", b"\xff", b'"' + b"[" * 100_000])
def test_what_is_no_configuration_is_refused(tmp_path: Path, data: bytes) -> None:
    path = touch(tmp_path / "m.onnx")
    touch(tmp_path / "config.json", data)
    with pytest.raises(CorruptModel, match=r"config\.json is no JSON"):
        folder.read_json(path, "config.json")


def test_what_is_too_large_or_no_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = touch(tmp_path / "m.onnx")
    monkeypatch.setattr(folder, "MAX_CONFIG_BYTES", 1 << 20)
    touch(tmp_path / "config.json", json.dumps({"a": "b" * (1 << 20)}).encode())
    with pytest.raises(CorruptModel, match="at most 1 MiB"):
        folder.read_json(path, "config.json")
    os.mkfifo(tmp_path / "modules.json")
    assert folder.find(path, "modules.json") is None


def test_weights_beneath_the_folder_are_measured(tmp_path: Path) -> None:
    path = touch(tmp_path / "m.onnx")
    touch(tmp_path / "sub" / "w.bin", b"x" * 100)
    wanted = [External("sub/w.bin", 0, 60), External("sub/w.bin", 60, 40)]
    assert folder.check_external(path, wanted) == {"sub/w.bin": 100}
    with pytest.raises(CorruptModel, match="shorter"):
        folder.check_external(path, [External("sub/w.bin", 60, 41)])


def test_weights_elsewhere_are_refused(tmp_path: Path) -> None:
    secret = touch(tmp_path / "secret", b"x" * 100)
    path = touch(tmp_path / "models" / "m.onnx")
    (tmp_path / "models" / "link").symlink_to(secret)
    (tmp_path / "models" / "into").symlink_to(tmp_path)
    os.link(secret, tmp_path / "models" / "hard")
    os.mkfifo(tmp_path / "models" / "pipe")
    escapes = ["../secret", secret, "", "a\0b", "link", "into/secret", "hard", "pipe", "missing", "sub/../../secret"]
    for location in escapes:
        with pytest.raises(CorruptModel) as caught:
            folder.check_external(path, [External(location, 0, 1)])
        assert str(tmp_path) not in str(caught.value)


def test_a_sign_that_looks_like_a_number_is_no_version(tmp_path: Path) -> None:
    for version in ("1", "²"):
        touch(tmp_path / "resnet" / version / "model.onnx")
    assert folder.name(str(tmp_path / "resnet" / "1" / "model.onnx"), str(tmp_path), True) == ("resnet", "")
    assert folder.name(str(tmp_path / "resnet" / "²" / "model.onnx"), str(tmp_path), True) == ("²", "")
