"""Files that are what was imported, and files that are not."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

import pytest

from inferd.daemon.system.digests import Digests
from inferd.daemon.system.imports import Imports

if TYPE_CHECKING:
    from pathlib import Path

GOOD, BAD = b"good", b"evil"
SHA = hashlib.sha256(GOOD).hexdigest()


@pytest.fixture
def path(tmp_path: Path) -> str:
    (tmp_path / "m.gguf").write_bytes(GOOD)
    return str(tmp_path / "m.gguf")


@pytest.fixture
def imports(tmp_path: Path) -> Imports:
    return Imports(Digests(tmp_path / "state"), tmp_path / "state")


def damage(path: str) -> None:
    """Other bytes, and all that is looked at without reading them as it was."""
    before = os.stat(path)
    with open(path, "r+b") as file:
        file.write(BAD)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_what_was_imported_is_known_after_a_restart(tmp_path: Path, imports: Imports, path: str) -> None:
    imports.record(path, SHA.upper())
    again = Imports(Digests(tmp_path / "state"), tmp_path / "state")
    assert imports.expected(path) == again.expected(path) == SHA
    again.forget(path)
    assert Imports(Digests(), tmp_path / "state").expected(path) is None


def test_a_link_is_what_it_leads_to(tmp_path: Path, imports: Imports, path: str) -> None:
    (tmp_path / "link").symlink_to(path)
    imports.record(str(tmp_path / "link"), SHA)
    assert imports.expected(path) == SHA


def test_only_digests_are_recorded(imports: Imports, path: str) -> None:
    with pytest.raises(ValueError, match="64"):
        imports.record(path, "0f")


def test_a_promise_is_made_of_what_was_imported(imports: Imports, path: str) -> None:
    assert imports.promised([path], "stamp") == []
    assert imports.promised([path], "always") == [path]
    imports.record(path, SHA)
    assert imports.promised([path, f"{path}.other"], "stamp") == [path]
    assert imports.promised([path], "never") == []


def test_an_imported_file_is_read_once(imports: Imports, path: str) -> None:
    imports.record(path, SHA)
    assert imports.doubtful([path], "stamp") == [path]
    assert imports.changed([path], "stamp") is None
    assert imports.doubtful([path], "stamp") == []


def test_another_file_in_its_place_is_found(imports: Imports, path: str) -> None:
    imports.record(path, SHA)
    imports.changed([path], "stamp")
    os.unlink(path)
    with open(path, "wb") as file:
        file.write(BAD)
    for _ in range(2):  # and found again
        assert imports.doubtful([path], "stamp") == [path]
        assert imports.changed([path], "stamp") == path


def test_nobody_knows_what_a_file_should_be_that_was_never_imported(imports: Imports, path: str) -> None:
    assert imports.doubtful([path], "stamp") == []
    assert imports.changed([path], "stamp") is None


def test_always_finds_what_the_disk_has_done(imports: Imports, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stamps = imports._digests
    assert imports.changed([path], "always") is None
    kept = stamps._known[path]
    damage(path)
    stamp = (kept[0][0], kept[0][1], kept[0][2], os.stat(path).st_ctime_ns)  # which no program can set back
    stamps._known[path] = stamp, kept[1]
    assert imports.doubtful([path], "stamp") == []
    assert imports.doubtful([path], "always") == [path]
    for _ in range(2):
        assert imports.changed([path], "always") == path


def test_always_takes_a_file_that_was_replaced_for_a_new_one(imports: Imports, path: str) -> None:
    imports.changed([path], "always")
    os.unlink(path)
    with open(path, "wb") as file:
        file.write(BAD)
    assert imports.changed([path], "always") is None


def test_never_looks_at_nothing(imports: Imports, path: str) -> None:
    imports.record(path, hashlib.sha256(BAD).hexdigest())
    assert imports.doubtful([path], "never") == []


def test_a_file_that_is_gone_is_somebody_elses_error(imports: Imports, path: str) -> None:
    imports.record(path, SHA)
    os.unlink(path)
    assert imports.changed([path], "stamp") is None


@pytest.mark.parametrize("kept", [[], {"/m": 7}, {"/m": "0f"}, "x"])
def test_what_is_damaged_is_forgotten(tmp_path: Path, kept: object) -> None:
    from inferd.daemon.system.state import save_json

    save_json("imports", kept, tmp_path)
    assert Imports(Digests(), tmp_path).expected("/m") is None
