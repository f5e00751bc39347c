"""What outlives the daemon, and what a damaged file does: nothing."""

from __future__ import annotations

import errno
import logging
import os
import stat
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inferd.daemon.system import state
from inferd.daemon.system.state import load_json, save_json, state_folder, sweep

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


# where


@pytest.mark.parametrize(
    ("environ", "folder"),
    [
        ({"STATE_DIRECTORY": "/var/lib/inferd", "XDG_STATE_HOME": "/x", "HOME": "/h"}, "/var/lib/inferd"),
        ({"STATE_DIRECTORY": "/var/lib/a:/var/lib/b"}, "/var/lib/a"),
        ({"STATE_DIRECTORY": "", "XDG_STATE_HOME": "/x", "HOME": "/h"}, "/x/inferd"),
        ({"XDG_STATE_HOME": "not/absolute", "HOME": "/h"}, "/h/.local/state/inferd"),
        ({"HOME": "/h"}, "/h/.local/state/inferd"),
        ({"HOME": ""}, "/.local/state/inferd"),
        ({}, "/.local/state/inferd"),
    ],
)
def test_the_folder(environ: dict[str, str], folder: str) -> None:
    assert state_folder(environ) == Path(folder)


def test_by_default_the_environment_is_asked_at_each_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "s"))
    assert save_json("kept", [1])
    assert load_json("kept") == [1]
    assert (tmp_path / "s" / "kept.json").is_file()


# back and forth


@given(value=PLAIN)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_was_saved_is_loaded(tmp_path: Path, value: Any) -> None:
    assert save_json("kept", value, tmp_path)
    assert load_json("kept", tmp_path) == value


def test_a_file_is_replaced_as_a_whole_and_nothing_else_is_left(tmp_path: Path) -> None:
    for value in ({"a": 1}, {"b": [2]}):
        assert save_json("kept", value, tmp_path / "deep" / "folder")
    assert load_json("kept", tmp_path / "deep" / "folder") == {"b": [2]}
    assert os.listdir(tmp_path / "deep" / "folder") == ["kept.json"]


def test_what_a_killed_daemon_left_half_written_is_removed_when_it_is_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert save_json("kept", {}, tmp_path)
    old, new, other = tmp_path / ".kept-abc.new", tmp_path / ".kept-def.new", tmp_path / ".of-somebody"
    for path in (old, new, other):
        path.touch()
    os.utime(old, (1, 1))
    os.utime(other, (1, 1))
    sweep(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"kept.json", new.name, other.name}
    sweep(tmp_path / "nowhere")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "glob", Mock(side_effect=PermissionError))
        sweep(tmp_path)  # a folder that cannot be read is no reason not to start


def test_only_the_owner_may_read(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        assert save_json("kept", 1, tmp_path / "state")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "state" / "kept.json").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700


# damage


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b'{"a": 1', b"nonsense", b"\xff\xfe", b'"\xff"', b"[" * 100_000, b"1 2", b"\0" * 4096],
    ids=["empty", "brace", "cut", "word", "bytes", "text", "deep", "two", "zeros"],
)
def test_a_damaged_file_is_none_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture, raw: bytes) -> None:
    (tmp_path / "kept.json").write_bytes(raw)
    assert load_json("kept", tmp_path) is None
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert save_json("kept", 2, tmp_path)
    assert load_json("kept", tmp_path) == 2


@given(raw=st.binary(max_size=64))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_content_is_an_exception(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "kept.json").write_bytes(raw)
    load_json("kept", tmp_path)


def test_a_missing_file_is_none_without_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert load_json("kept", tmp_path / "nowhere") is None
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_file_that_is_too_long_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "MAX_BYTES", 100)
    (tmp_path / "kept.json").write_bytes(b"[" + b" " * 100 + b"]")
    assert load_json("kept", tmp_path) is None


def test_a_folder_in_its_place_is_none(tmp_path: Path) -> None:
    (tmp_path / "kept.json").mkdir()
    assert load_json("kept", tmp_path) is None
    assert not save_json("kept", 1, tmp_path)


def test_a_place_that_cannot_be_written_is_said_not_raised(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    assert not save_json("kept", 1, tmp_path / "file" / "below")
    assert len(caplog.records) == 1


def test_when_the_disk_is_full_the_old_state_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert save_json("kept", "old", tmp_path)

    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    assert not save_json("kept", "new", tmp_path)
    assert os.listdir(tmp_path) == ["kept.json"]
    assert load_json("kept", tmp_path) == "old"
