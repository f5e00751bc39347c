"""What is in the files of a model, read once."""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
from typing import TYPE_CHECKING

import pytest

from inferd.daemon.system import digests as module
from inferd.daemon.system.digests import Digests, stamps_of
from inferd.daemon.system.state import save_json

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def paths(tmp_path: Path) -> list[str]:
    found = []
    for name in ("one", "two"):
        (tmp_path / name).write_bytes(name.encode())
        found.append(str(tmp_path / name))
    return found


def test_files_are_read_once_and_their_digest_is_known_after_a_restart(tmp_path: Path, paths: list[str]) -> None:
    digests, stamps = Digests(tmp_path / "state"), stamps_of(paths)
    assert digests.known(paths, stamps) is None
    digest = digests.read(paths, stamps)
    assert digest is not None
    assert digests.known(paths, stamps) == Digests(tmp_path / "state").known(paths, stamps) == digest


def test_what_somebody_else_has_read_is_not_read_again(
    tmp_path: Path, paths: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    digests, read = Digests(tmp_path / "state"), Digests().read(paths, stamps_of(paths))
    for path in paths:
        digests.record(path, hashlib.sha256(os.path.basename(path).encode()).hexdigest())
    digests.record(f"{paths[0]}-that-is-not-there", "0" * 64)
    monkeypatch.setattr(Digests, "_read", lambda *_: None)
    again = Digests(tmp_path / "state")
    assert digests.read(paths, stamps_of(paths)) == again.known(paths, stamps_of(paths)) == read
    shutil.copy(__file__, paths[0])
    assert again.known(paths, stamps_of(paths)) is None


@pytest.mark.parametrize("changed", [0, 1])
def test_with_any_file_changed_it_is_another_model(paths: list[str], changed: int) -> None:
    digests, before = Digests(), stamps_of(paths)
    first = digests.read(paths, before)
    shutil.copy(__file__, paths[changed])
    assert (digests.known(paths, before), digests.read(paths, before)) == (None, None)
    second = digests.read(paths, stamps_of(paths))
    assert second is not None
    assert second != first


def test_a_file_of_the_same_size_and_time_is_told_apart(paths: list[str]) -> None:
    digests, before = Digests(), stamps_of(paths)
    digests.read(paths, before)
    status = os.stat(paths[0])
    with open(paths[0], "wb") as file:
        file.write(b"ONE")
    os.utime(paths[0], ns=(status.st_atime_ns, status.st_mtime_ns))
    assert digests.known(paths, stamps_of(paths)) is None


def test_what_is_gone_has_none(paths: list[str]) -> None:
    digests, before = Digests(), stamps_of(paths)
    digests.read(paths, before)
    os.unlink(paths[1])
    assert stamps_of(paths) == []
    assert (digests.known(paths, before), digests.read(paths, before)) == (None, None)


def test_who_is_told_to_stop_reads_no_file_to_its_end(paths: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(fifo := paths[0] + ".fifo")
    monkeypatch.setattr(module, "PIECE_BYTES", 4)
    digests, found = Digests(), []
    reading = threading.Thread(target=lambda: found.append(digests.read([fifo], stamps_of([fifo]))))
    reading.start()
    with open(fifo, "wb", buffering=0) as file:
        file.write(b"1234")
        digests.stop()
        file.write(b"5678")
        reading.join(10)
        assert found == [None]


@pytest.mark.parametrize("kept", [[], {"x": [1]}, {"x": "y"}, {"x": [1, 2, 3, 4, 5]}, {"x": ["1", 2, 3, 4, "d"]}])
def test_what_was_kept_and_makes_no_sense_is_forgotten(tmp_path: Path, paths: list[str], kept: object) -> None:
    save_json("digests", kept, tmp_path)
    digests = Digests(tmp_path)
    assert digests.read(paths, stamps_of(paths)) is not None
