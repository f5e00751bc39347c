"""What is in a file, read once."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

import pytest

from inferd.daemon.system.digests import Digests
from inferd.daemon.system.state import save_json

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"one")
    return path


def test_a_file_is_read_once_and_its_digest_is_known_after_a_restart(tmp_path: Path, path: Path) -> None:
    digests = Digests(tmp_path / "state")
    assert digests.known(str(path)) is None
    assert digests.read(str(path)) == hashlib.sha256(b"one").hexdigest()
    assert digests.known(str(path)) == Digests(tmp_path / "state").known(str(path)) == digests.read(str(path))


def test_a_file_that_was_changed_is_another_one(tmp_path: Path, path: Path) -> None:
    digests = Digests()
    digests.read(str(path))
    path.write_bytes(b"two")
    os.utime(path, ns=(1, 1))
    assert digests.known(str(path)) is None
    assert digests.read(str(path)) == hashlib.sha256(b"two").hexdigest()


def test_a_file_that_is_gone_has_none(path: Path) -> None:
    digests = Digests()
    digests.read(str(path))
    path.unlink()
    assert (digests.known(str(path)), digests.read(str(path))) == (None, None)


@pytest.mark.parametrize("kept", [[], {"x": [1]}, {"x": "y"}, {"x": [1, 2, 3, 4, 5]}, {"x": ["1", 2, 3, 4, "d"]}])
def test_what_was_kept_and_makes_no_sense_is_forgotten(tmp_path: Path, path: Path, kept: object) -> None:
    save_json("digests", kept, tmp_path)
    digests = Digests(tmp_path)
    assert digests.known("x") is None
    assert digests.read(str(path)) is not None
