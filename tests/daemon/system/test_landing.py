"""The folder that models are pulled into."""

from __future__ import annotations

import hashlib
import os
import stat
from typing import TYPE_CHECKING, Any

import pytest

from inferd.daemon.domain.errors import Code, InferdError
from inferd.daemon.domain.pull import HubFile
from inferd.daemon.system.digests import Digests
from inferd.daemon.system.landing import UNFINISHED, Landing
from inferd.tests.hub import git_blob

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

CONFIG = b"{}"


@pytest.fixture
def landing(tmp_path: Path) -> Landing:
    landing = Landing(tmp_path / "models")
    landing.open(3600.0)
    return landing


@pytest.fixture
def raw(gguf: Any) -> bytes:
    built: bytes = gguf.small().build()
    return built


def put(landing: Landing, raw: bytes, digest: str) -> HubFile:
    """As a fetch leaves it."""
    (landing.unfinished / digest).write_bytes(raw)
    return HubFile("m.gguf", len(raw), digest)


def sha256(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()


def place(landing: Landing, digests: Digests, raw: bytes, name: str = "tiny", more: Sequence[str] = ()) -> None:
    """A model with side files of these names, all with the same bytes."""
    wanted = [(put(landing, raw, sha256(raw)), "m.gguf")]
    wanted += [(put(landing, CONFIG, git_blob(CONFIG)), side) for side in more]
    landing.place(name, wanted, [sha256(raw), *(sha256(CONFIG) for _ in more)], digests.record)


def test_a_model_gets_its_place_with_all_its_files(landing: Landing, raw: bytes, tmp_path: Path) -> None:
    digests = Digests(tmp_path / "state")
    place(landing, digests, raw, more=("config.json", "1_Pooling/config.json"))
    home = landing.folder / "tiny"
    assert (home / "m.gguf").read_bytes() == raw
    assert (home / "config.json").read_bytes() == (home / "1_Pooling" / "config.json").read_bytes() == CONFIG
    assert list(landing.unfinished.iterdir()) == []
    assert all(path.stat().st_nlink == 1 for path in home.rglob("*.*")), "the catalog refuses what has two names"
    assert Digests(tmp_path / "state")._known[str(home / "m.gguf")][1] == sha256(raw)


@pytest.mark.parametrize(("mode", "folder_mode", "file_mode"), [(0o755, 0o750, 0o640), (0o775, 0o770, 0o660)])
def test_whose_folder_it_is_may_read_it_whatever_the_umask(
    landing: Landing, raw: bytes, mode: int, folder_mode: int, file_mode: int
) -> None:
    landing.folder.chmod(mode)
    before = os.umask(0o077)
    try:
        place(landing, Digests(), raw)
    finally:
        os.umask(before)
    home = landing.folder / "tiny"
    assert stat.S_IMODE(home.stat().st_mode) & 0o777 == folder_mode
    assert stat.S_IMODE((home / "m.gguf").stat().st_mode) == file_mode


def test_a_place_that_is_taken_is_left_alone(landing: Landing, raw: bytes) -> None:
    (landing.folder / "tiny").mkdir()
    (landing.folder / "tiny" / "mine.gguf").write_bytes(b"mine")
    with pytest.raises(InferdError) as caught:
        place(landing, Digests(), raw)
    assert (caught.value.code, caught.value.field) == (Code.INVALID, "name")
    assert [path.name for path in (landing.folder / "tiny").iterdir()] == ["mine.gguf"]


def test_what_is_no_model_gets_no_place(landing: Landing) -> None:
    with pytest.raises(InferdError) as caught:
        place(landing, Digests(), b"<html>no such file</html>")
    assert caught.value.code is Code.MODEL_CORRUPT
    assert str(landing.folder) not in caught.value.message
    assert [path.name for path in landing.folder.iterdir()] == [UNFINISHED]
    assert list(landing.unfinished.iterdir()) == []


def test_what_is_in_its_place_is_known_again(landing: Landing, raw: bytes) -> None:
    digests = Digests()
    wanted = [(HubFile("m.gguf", len(raw), sha256(raw)), "m.gguf"), (HubFile("c", 2, git_blob(CONFIG)), "config.json")]
    assert landing.holds("tiny", wanted, digests) is None
    place(landing, digests, raw, more=("config.json",))
    assert landing.holds("tiny", wanted, digests) == [sha256(raw), sha256(CONFIG)]
    (landing.folder / "tiny" / "config.json").write_bytes(b"[]")
    assert landing.holds("tiny", wanted, digests) is None


@pytest.mark.parametrize("other", [b"x", b""])
def test_bytes_that_changed_in_their_place_are_seen(landing: Landing, raw: bytes, other: bytes) -> None:
    digests = Digests()
    place(landing, digests, raw)
    (landing.folder / "tiny" / "m.gguf").write_bytes(other * len(raw))
    wanted = [(HubFile("m.gguf", len(raw), sha256(raw)), "m.gguf")]
    assert landing.holds("tiny", wanted, digests) is None


def test_all_that_lies_there_is_counted(landing: Landing, raw: bytes) -> None:
    put(landing, b"12345", "0" * 64)
    place(landing, Digests(), raw)
    (landing.folder / "link").symlink_to("/usr")
    assert landing.n_bytes() == len(raw) + 5
    assert landing.here_bytes(["0" * 64, "1" * 64]) == 5
    assert landing.free_bytes() > 0


def test_what_nobody_went_on_with_is_forgotten_after_a_while(landing: Landing) -> None:
    for name in ("0" * 64, "1" * 64, "2" * 64):
        put(landing, b"x", name)
    (landing.unfinished / "old.new").mkdir()
    for name in ("0" * 64, "1" * 64, "old.new"):
        os.utime(landing.unfinished / name, (1.0, 1.0))
    landing.open(3600.0, in_use=["1" * 64])
    assert sorted(path.name for path in landing.unfinished.iterdir()) == ["1" * 64, "2" * 64]
    landing.drop(["1" * 64, "9" * 64])
    assert [path.name for path in landing.unfinished.iterdir()] == ["2" * 64]


def test_a_folder_that_cannot_be_made_is_told_without_its_path(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InferdError) as caught:
        Landing(tmp_path / "file" / "models").open(1.0)
    assert caught.value.code is Code.PULL_FAILED
    assert str(tmp_path) not in caught.value.message
